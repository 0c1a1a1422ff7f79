//! Gradient of a convolution's weights: for each piece of the window a product over all positions of all images.

use rayon::prelude::*;

use super::{Conv, Padded, Pieces};
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
    /// Tiles of output channels of a group.
    rows_of_group: usize,
    /// Columns of a piece, in tiles.
    columns: usize,
}

impl Split {
    fn new(conv: &Conv, pieces: &Pieces, images: usize, width: usize) -> Self {
        let (rows_of_group, columns) = (conv.of_group().1.div_ceil(ROWS), pieces.len.div_ceil(width));
        let all_rows = conv.groups * rows_of_group;
        let len = all_rows * pieces.starts.len() * columns * ROWS * width;
        let parts = (PARTS_LEN / len).clamp(1, 16).min(images);
        let tasks_per_part = 16_usize.div_ceil(parts).min(all_rows);
        let (images, rows) = (images.div_ceil(parts), all_rows.div_ceil(tasks_per_part));
        Self { images, rows, all_rows, rows_of_group, columns }
    }
}

/// `dweight` = the gradient, OHWI.
pub(super) fn weight_gradient<T: Float>(conv: &Conv, work: &mut Workspace<T>, x: &[T], dy: &[T], dweight: &mut [T]) {
    let g = &conv.geometry;
    let padded = Padded::of_input(g);
    let pieces = conv.pieces(&padded);
    let tile = T::tile(pieces.len);
    let (input, output) = (g.input_len(), g.positions() * conv.out_channels);
    let images = dy.len() / output;
    let split = Split::new(conv, &pieces, images, tile.columns);
    let tile_len = ROWS * tile.columns;
    let row_len = pieces.starts.len() * split.columns * tile_len;
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
            let x = padded.pad(&x[first * input..last * input], &mut lane.images);
            let dy = &dy[first * output..last * output];
            let rows = Rows { conv, split: &split, first: index * split.rows };
            rows.add(&padded, &pieces, &tile, x, dy, sums);
        }
    });
    dweight.par_chunks_mut(conv.kernel_len()).enumerate().for_each(|(o, dweight)| {
        dweight.fill(T::ZERO);
        let (group, within) = (o / conv.of_group().1, o % conv.of_group().1);
        for part in sums.chunks_exact(part_len) {
            let row = &part[(group * split.rows_of_group + within / ROWS) * row_len..][..row_len];
            let pieces = dweight.chunks_exact_mut(pieces.len).zip(row.chunks_exact(split.columns * tile_len));
            for (dweight, tiles) in pieces {
                for (dweight, tile_sums) in dweight.chunks_mut(tile.columns).zip(tiles.chunks_exact(tile_len)) {
                    let sums = &tile_sums[within % ROWS * tile.columns..];
                    dweight.iter_mut().zip(sums).for_each(|(weight, sum)| *weight += *sum);
                }
            }
        }
    });
}

/// Some tiles of output channels.
#[derive(Debug)]
struct Rows<'a> {
    conv: &'a Conv,
    split: &'a Split,
    /// The first tile.
    first: usize,
}

impl Rows<'_> {
    /// Adds the gradient by some images; `x` with its padding.
    fn add<T: Float>(&self, padded: &Padded, pieces: &Pieces, tile: &Tile<T>, x: &[T], dy: &[T], sums: &mut [T]) {
        let (g, (inputs, outputs)) = (&self.conv.geometry, self.conv.of_group());
        let out_line = g.output[1] * self.conv.out_channels;
        let (columns, tile_len) = (self.split.columns, ROWS * tile.columns);
        let mut starts = Vec::new();
        for (index, piece) in pieces.starts.iter().enumerate() {
            starts.clear();
            starts.extend((0..dy.len() / out_line).map(|line| {
                let (image, oy) = (line / g.output[0], line % g.output[0]);
                (line * out_line, image * padded.len() + oy * g.stride[0] * padded.line() + piece)
            }));
            let walk = Walk::new(&starts, g.output[1], (self.conv.out_channels, g.stride[1] * g.channels));
            for column in 0..columns {
                let all = sums.chunks_exact_mut(pieces.starts.len() * columns * tile_len).enumerate();
                for (row, sums) in all {
                    let row = self.first + row;
                    let (group, within) = (row / self.split.rows_of_group, row % self.split.rows_of_group * ROWS);
                    let rows = std::array::from_fn(|r| group * outputs + (within + r).min(outputs - 1));
                    let x = &x[group * inputs + column * tile.columns..];
                    tile.add(&walk, &rows, dy, x, &mut sums[(index * columns + column) * tile_len..][..tile_len]);
                }
            }
        }
    }
}
