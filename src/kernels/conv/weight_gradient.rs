//! Gradient of a convolution's weights: for each line of the kernel a product over all positions of all images.

use rayon::prelude::*;

use super::{Conv, Rim};
use crate::kernels::tile::{ROWS, Tile, Walk};
use crate::kernels::workspace::scratch;
use crate::kernels::{Float, Workspace};

/// Above this many positions the sum is split, see [`parts`].
pub(super) const FEW_POSITIONS: usize = 1 << 12;
/// Positions that are summed up in registers, at least, where there are as many.
const POSITIONS: usize = 512;
/// Elements of all parts of the sum together, where more than one part is needed.
const PARTS_LEN: usize = 1 << 21;

/// How the work is split; by sizes only.
#[derive(Debug, Clone, Copy)]
struct Split {
    /// Images of a part.
    images: usize,
    /// Tiles of output channels of a task, and of all.
    rows: usize,
    all_rows: usize,
    /// Columns of the kernel's line, in tiles.
    columns: usize,
}

impl Split {
    fn new(conv: &Conv, images: usize, width: usize) -> Self {
        let line = conv.geometry.kernel[1] * conv.geometry.channels;
        let (all_rows, columns) = (conv.out_channels.div_ceil(ROWS), line.div_ceil(width));
        let len = all_rows * conv.geometry.kernel[0] * columns * ROWS * width;
        let parts = (PARTS_LEN / len).clamp(1, 16).min(images);
        let tasks_per_part = 16_usize.div_ceil(parts).min(all_rows);
        Self { images: images.div_ceil(parts), rows: all_rows.div_ceil(tasks_per_part), all_rows, columns }
    }
}

/// `dweight` = the gradient, OHWI.
pub(super) fn weight_gradient<T: Float>(conv: &Conv, work: &mut Workspace<T>, x: &[T], dy: &[T], dweight: &mut [T]) {
    let g = &conv.geometry;
    let line = g.kernel[1] * g.channels;
    let tile = T::tile(line);
    let (input, output) = (g.input_len(), g.positions() * conv.out_channels);
    let images = dy.len() / output;
    let split = Split::new(conv, images, tile.columns);
    let tile_len = ROWS * tile.columns;
    let row_len = g.kernel[0] * split.columns * tile_len;
    let (part_len, parts) = (split.all_rows * row_len, images.div_ceil(split.images));
    let Workspace { sums, lanes, .. } = work;
    let sums = scratch(sums, parts * part_len);
    // Tasks of a part end where the part ends.
    let tasks: Vec<(usize, usize, &mut [T])> = sums
        .chunks_mut(part_len)
        .enumerate()
        .flat_map(|(part, sums)| sums.chunks_mut(split.rows * row_len).enumerate().map(move |(i, s)| (part, i, s)))
        .collect();
    tasks.into_par_iter().for_each(|(part, index, sums)| {
        sums.fill(T::ZERO);
        let (first, last) = (part * split.images, ((part + 1) * split.images).min(images));
        let lane = &mut *lanes.take();
        let group = POSITIONS.div_ceil(g.positions());
        for first in (first..last).step_by(group) {
            let last = (first + group).min(last);
            let rim = Rim::of_input(g);
            let x = rim.surround(&x[first * input..last * input], &mut lane.images);
            let dy = &dy[first * output..last * output];
            add(conv, &rim, &tile, index * split.rows * ROWS, x, dy, sums);
        }
    });
    dweight.par_chunks_mut(g.window_len()).enumerate().for_each(|(o, dweight)| {
        dweight.fill(T::ZERO);
        for part in sums.chunks_exact(part_len) {
            let row = &part[o / ROWS * row_len..][..row_len];
            let lines = dweight.chunks_exact_mut(line).zip(row.chunks_exact(split.columns * tile_len));
            for (dweight, tiles) in lines {
                for (dweight, tile_sums) in dweight.chunks_mut(tile.columns).zip(tiles.chunks_exact(tile_len)) {
                    let sums = &tile_sums[o % ROWS * tile.columns..];
                    dweight.iter_mut().zip(sums).for_each(|(weight, sum)| *weight += *sum);
                }
            }
        }
    });
}

/// Adds the gradient by some images, for output channels from `channel` on; `x` with its rim.
fn add<T: Float>(conv: &Conv, rim: &Rim, tile: &Tile<T>, channel: usize, x: &[T], dy: &[T], sums: &mut [T]) {
    let g = &conv.geometry;
    let out_line = g.output[1] * conv.out_channels;
    let tiles_of_line = (g.kernel[1] * g.channels).div_ceil(tile.columns);
    let row_len = g.kernel[0] * tiles_of_line * ROWS * tile.columns;
    let mut starts = Vec::new();
    for ky in 0..g.kernel[0] {
        starts.clear();
        starts.extend((0..dy.len() / out_line).map(|line| {
            let (image, oy) = (line / g.output[0], line % g.output[0]);
            (line * out_line, image * rim.len() + (oy * g.stride[0] + ky) * rim.line())
        }));
        let walk = Walk::new(&starts, g.output[1], (conv.out_channels, g.stride[1] * g.channels));
        for column in 0..tiles_of_line {
            let x = &x[column * tile.columns..];
            for (index, sums) in sums.chunks_exact_mut(row_len).enumerate() {
                let first = channel + index * ROWS;
                let rows = std::array::from_fn(|r| (first + r).min(conv.out_channels - 1));
                let at = (ky * tiles_of_line + column) * ROWS * tile.columns;
                tile.add(&walk, &rows, dy, x, &mut sums[at..at + ROWS * tile.columns]);
            }
        }
    }
}
