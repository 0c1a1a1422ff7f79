//! The sums of windows: what a convolution and the gradient of its input have in common.

use super::POSITIONS;
use crate::kernels::Float;
use crate::kernels::panels::{Panel, Panels};
use crate::kernels::tile::{MOST_COLUMNS, ROWS, Walk};

/// Hands the sums of `count` positions to `write`, a tile of positions and a panel at a time, with the first of the positions. The window of a
/// position starts at `window` of it in `source`, and goes on in segments of `len` steps that start at `starts` from there; the panels have
/// them one after another.
pub(super) fn window_sums<T: Float>(
    (starts, len): (impl Iterator<Item = usize>, usize),
    source: &[T],
    panels: &Panels<T>,
    count: usize,
    window: impl Fn(usize) -> usize,
    mut write: impl FnMut(&[T], usize, &Panel<T>),
) {
    let width = panels.tile.columns;
    let starts: Vec<(usize, usize)> = starts.enumerate().map(|(index, start)| (start, index * len * width)).collect();
    let walk = Walk::new(&starts, len, (1, width));
    let tile_len = ROWS * width;
    let mut sums = [T::ZERO; POSITIONS * MOST_COLUMNS];
    let mut rows = [[0; ROWS]; POSITIONS / ROWS];
    for panel in panels.iter() {
        for first in (0..count).step_by(POSITIONS) {
            let tiles = (count - first).min(POSITIONS).div_ceil(ROWS);
            for (index, rows) in rows[..tiles].iter_mut().enumerate() {
                let top = first + index * ROWS;
                *rows = std::array::from_fn(|r| window((top + r).min(count - 1)));
            }
            let sums = &mut sums[..tiles * tile_len];
            sums.fill(T::ZERO);
            for (rows, sums) in rows.iter().zip(sums.chunks_exact_mut(tile_len)) {
                panels.tile.add(&walk, rows, source, panel.data, sums);
            }
            for (index, sums) in sums.chunks_exact(tile_len).enumerate() {
                write(sums, first + index * ROWS, &panel);
            }
        }
    }
}
