//! The sums of windows, a block of steps at a time, so that a block of a panel stays in the cache for all the positions that it meets.

use super::POSITIONS;
use crate::kernels::Float;
use crate::kernels::panels::{Panel, Panels};
use crate::kernels::product::DEPTH;
use crate::kernels::tile::{MOST_COLUMNS, ROWS, Walk};

/// The steps of a window's sum, in blocks of no more than a product takes at once.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Where each segment starts in the window and in a panel.
    starts: Vec<(usize, usize)>,
    /// Of each block in their order: how many of them it has, and of how many steps.
    sizes: Vec<(usize, usize)>,
    /// Columns of a panel.
    width: usize,
}

impl Blocks {
    /// Those of segments of `len` steps that start at `starts` in the window, for panels of `width` columns that have them one after another.
    pub(super) fn new(starts: impl ExactSizeIterator<Item = usize>, len: usize, width: usize) -> Self {
        let segments = starts.len();
        let whole = starts.enumerate().map(|(index, start)| (start, index * len * width));
        let parts = len.div_ceil(DEPTH);
        if parts > 1 {
            let part = len.div_ceil(parts);
            let cuts = (0..len).step_by(part);
            let starts = whole.flat_map(|(left, right)| cuts.clone().map(move |cut| (left + cut, right + cut * width)));
            let sizes = (0..segments).flat_map(|_| cuts.clone().map(|cut| (1, part.min(len - cut))));
            return Self { starts: starts.collect(), sizes: sizes.collect(), width };
        }
        let together = (DEPTH / len).max(1);
        let sizes = (0..segments).step_by(together).map(|first| (together.min(segments - first), len));
        Self { starts: whole.collect(), sizes: sizes.collect(), width }
    }

    fn walks(&self) -> impl Iterator<Item = Walk<'_>> {
        let mut rest = self.starts.as_slice();
        self.sizes.iter().map(move |&(segments, len)| {
            let (starts, others) = rest.split_at(segments);
            rest = others;
            Walk::new(starts, len, (1, self.width))
        })
    }

    /// Hands the sums of `count` positions to `write`, a tile of `ROWS` positions and a panel at a time, with the first of the positions.
    /// The window of a position starts at `window` of it in `source`.
    pub(super) fn sums<T: Float>(
        &self,
        source: &[T],
        panels: &Panels<T>,
        count: usize,
        window: impl Fn(usize) -> usize,
        mut write: impl FnMut(&[T], usize, &Panel<T>),
    ) {
        let walks: Vec<Walk> = self.walks().collect();
        let tile_len = ROWS * self.width;
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
                for walk in &walks {
                    for (rows, sums) in rows.iter().zip(sums.chunks_exact_mut(tile_len)) {
                        panels.tile.add(walk, rows, source, panel.data, sums);
                    }
                }
                for (index, sums) in sums.chunks_exact(tile_len).enumerate() {
                    write(sums, first + index * ROWS, &panel);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_in_one_block_and_no_block_is_long() {
        for (segments, len) in [(1, 1), (3, 48), (3, 96), (9, 256), (3, 257), (2, 1536), (25, 3), (300, 1)] {
            let width = 24;
            let blocks = Blocks::new((0..segments).map(|segment| segment * 5000), len, width);
            assert_eq!(blocks.walks().count(), blocks.sizes.len());
            let mut starts = blocks.starts.iter();
            let mut steps = Vec::new();
            for &(segments, len) in &blocks.sizes {
                assert!((1..=DEPTH).contains(&(segments * len)), "{segments} segments of {len}");
                for (left, right) in starts.by_ref().take(segments) {
                    steps.extend((0..len).map(|step| (left + step, right + step * width)));
                }
            }
            let all =
                |segment: usize| (0..len).map(move |step| (segment * 5000 + step, (segment * len + step) * width));
            assert_eq!(steps, (0..segments).flat_map(all).collect::<Vec<_>>(), "{segments} segments of {len}");
        }
    }
}
