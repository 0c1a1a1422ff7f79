//! Products of matrices by tiles, with what follows them applied to each block while it is in the cache.

use rayon::prelude::*;

use crate::kernels::elementwise::positive;
use crate::kernels::panels::{Panel, Panels, pack_rows};
use crate::kernels::tile::{ROWS, Walk};
use crate::kernels::workspace::scratch;
use crate::kernels::{Float, Matrix, Workspace};

/// Most rows that are computed at once for a panel.
const MOST_ROWS: usize = 64;
/// Most steps of a sum that are taken at once, so that a panel and the rows that it meets stay in the cache.
const DEPTH: usize = 256;

/// What happens to a sum before it is written.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a, T> {
    /// Added to each row.
    pub bias: Option<&'a [T]>,
    /// Whether negative values become 0.
    pub relu: bool,
    /// Whether the sum is added to what is there.
    pub accumulate: bool,
}

impl<T> Epilogue<'_, T> {
    /// The sum as it is.
    pub const PLAIN: Self = Self { bias: None, relu: false, accumulate: false };

    /// Nothing, or adding to what is there.
    #[must_use]
    pub fn adding(accumulate: bool) -> Self {
        Self { accumulate, ..Self::PLAIN }
    }
}

/// A tile's place in the output.
#[derive(Debug)]
pub(super) struct TileSpan<'r> {
    /// Where its rows start in the output; as many as count.
    pub(super) rows: &'r [usize],
    /// First column, and how many count.
    pub(super) column: usize,
    pub(super) columns: usize,
}

impl<T: Float> Epilogue<'_, T> {
    /// Writes the sums of a tile of `stride` columns.
    pub(super) fn write(&self, sums: &[T], stride: usize, place: &TileSpan, out: &mut [T]) {
        for (sums, row) in sums.chunks_exact(stride).zip(place.rows) {
            let out = &mut out[row + place.column..][..place.columns];
            let sums = &sums[..place.columns];
            if self.accumulate {
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += *sum);
            } else {
                out.copy_from_slice(sums);
            }
            if let Some(bias) = self.bias {
                out.iter_mut().zip(&bias[place.column..]).for_each(|(out, bias)| *out += *bias);
            }
            if self.relu {
                for out in out {
                    *out = positive(*out);
                }
            }
        }
    }
}

/// Rows of a task, a multiple of a tile's; by size only.
pub(super) fn block(rows: usize) -> usize {
    rows.div_ceil(4).next_multiple_of(ROWS).min(MOST_ROWS)
}

/// `out = a b`, with its epilogue; `out` is row-major of shape (a.rows x b.cols).
///
/// The smaller operand is packed as a whole and stays in the cache; the larger one is gone through once, in blocks that are a task each.
///
/// # Panics
/// When the shapes do not fit.
pub fn product<T: Float>(work: &mut Workspace<T>, a: Matrix<T>, b: Matrix<T>, epilogue: Epilogue<T>, out: &mut [T]) {
    assert_eq!(a.cols, b.rows, "inner sizes of a product");
    assert_eq!(out.len(), a.rows * b.cols, "size of a product");
    let columns = b.cols;
    if columns > a.rows {
        let width = block(columns);
        let mut blocks: Vec<Vec<&mut [T]>> = (0..columns.div_ceil(width)).map(|_| Vec::with_capacity(a.rows)).collect();
        for row in out.chunks_exact_mut(columns) {
            blocks.iter_mut().zip(row.chunks_mut(width)).for_each(|(block, part)| block.push(part));
        }
        let write = |block: &mut Vec<&mut [T]>, sums: &Sums<T>| epilogue.write_transposed(sums, block);
        by_blocks(work, b.transposed(), a.transposed(), width, |_, _| true, blocks.into_par_iter(), write);
    } else {
        let rows = block(a.rows);
        let blocks = out.par_chunks_mut(rows * columns).map(Rows);
        let write = |block: &mut Rows<T>, sums: &Sums<T>| epilogue.write_rows(sums, columns, block.0);
        by_blocks(work, a, b, rows, |_, _| true, blocks, write);
    }
}

/// Whole rows of an output.
pub(super) struct Rows<'o, T>(pub(super) &'o mut [T]);

/// The sums of a tile: the product of some rows of the left operand and the columns of a panel.
pub(super) struct Sums<'s, T> {
    pub(super) values: &'s [T],
    pub(super) width: usize,
    /// First row of its block, its own first row from there, and how many of its rows count.
    pub(super) block: usize,
    pub(super) row: usize,
    pub(super) rows: usize,
    /// First column, and how many count.
    pub(super) column: usize,
    pub(super) columns: usize,
}

impl<T: Float> Epilogue<'_, T> {
    /// Writes them to a block of whole rows, each of `columns`.
    fn write_rows(&self, sums: &Sums<T>, columns: usize, out: &mut [T]) {
        let rows: [usize; ROWS] = std::array::from_fn(|r| (sums.row + r) * columns);
        let place = TileSpan { rows: &rows[..sums.rows], column: sums.column, columns: sums.columns };
        self.write(sums.values, sums.width, &place, out);
    }

    /// Writes them, as columns, to a block of columns, given by its part of each row.
    fn write_transposed(&self, sums: &Sums<T>, out: &mut [&mut [T]]) {
        for (c, out) in out[sums.column..][..sums.columns].iter_mut().enumerate() {
            for (r, out) in out[sums.row..][..sums.rows].iter_mut().enumerate() {
                let mut value = sums.values[r * sums.width + c];
                if self.accumulate {
                    value += *out;
                }
                if let Some(bias) = self.bias {
                    value += bias[sums.block + sums.row + r];
                }
                *out = if self.relu { positive(value) } else { value };
            }
        }
    }
}

/// `left right` in blocks of so many `rows` of the left operand; `write` gets each tile of a block, of the panels that are `needed` for the
/// block with this first row.
pub(super) fn by_blocks<T: Float, B: Send>(
    work: &mut Workspace<T>,
    left: Matrix<T>,
    right: Matrix<T>,
    rows: usize,
    needed: impl Fn(usize, &Panel<T>) -> bool + Sync,
    blocks: impl IndexedParallelIterator<Item = B>,
    write: impl Fn(&mut B, &Sums<T>) + Sync,
) {
    let Workspace { panels, lanes, .. } = work;
    let panels = Panels::pack(right, panels);
    let (width, tile_len) = (panels.tile.columns, ROWS * panels.tile.columns);
    blocks.enumerate().for_each(|(index, mut block)| {
        let first = index * rows;
        let count = rows.min(left.rows - first);
        let lane = &mut *lanes.take();
        // Panel by panel, and for each tile by tile.
        let of_panel = count.div_ceil(ROWS) * tile_len;
        let sums = scratch(&mut lane.sums, right.cols.div_ceil(width) * of_panel);
        sums.fill(T::ZERO);
        for start in (0..left.cols).step_by(DEPTH) {
            let steps = start..(start + DEPTH).min(left.cols);
            let tiles = scratch(&mut lane.tiles, count.next_multiple_of(ROWS) * steps.len());
            pack_rows(&left, first, count, steps.clone(), tiles);
            let starts = [(0, 0)];
            let walk = Walk::new(&starts, steps.len(), (ROWS, width));
            let rows = std::array::from_fn(|r| r);
            let pairs = panels.iter().zip(sums.chunks_exact_mut(of_panel));
            for (panel, sums) in pairs.filter(|(panel, _)| needed(first, panel)) {
                let right = &panel.data[start * width..];
                let tiles = tiles.chunks_exact(steps.len() * ROWS).zip(sums.chunks_exact_mut(tile_len));
                tiles.for_each(|(tile, sums)| panels.tile.add(&walk, &rows, tile, right, sums));
            }
        }
        let pairs = panels.iter().zip(sums.chunks_exact(of_panel)).filter(|(panel, _)| needed(first, panel));
        for (Panel { column, columns, .. }, sums) in pairs {
            for (row, values) in (0..count).step_by(ROWS).zip(sums.chunks_exact(tile_len)) {
                let rows = ROWS.min(count - row);
                write(&mut block, &Sums { values, width, block: first, row, rows, column, columns });
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::kernels::finite_difference::sample;
    use crate::kernels::matmul;

    const SHAPES: [[usize; 3]; 7] =
        [[300, 700, 130], [5, 33, 9], [64, 9, 200], [9, 1030, 17], [1, 1, 1], [8, 16, 32], [17, 5, 8]];

    fn on_threads<R: Send>(threads: usize, task: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(task)
    }

    /// All products of `SHAPES` in all orientations, checked against the reference.
    fn products<T: Float>(threads: usize, tolerance: f64) -> Vec<T> {
        let mut work = Workspace::new(NonZeroUsize::new(threads).unwrap());
        let mut all = Vec::new();
        for [m, k, n] in SHAPES {
            let values = |len, seed| sample(len, seed).into_iter().map(T::of).collect::<Vec<T>>();
            let (a, b, c) = (values(m * k, 1), values(k * n, 2), values(m * n, 3));
            for orientation in 0..4 {
                let left =
                    if orientation % 2 == 0 { Matrix::new(&a, m, k) } else { Matrix::new(&a, k, m).transposed() };
                let right = if orientation < 2 { Matrix::new(&b, k, n) } else { Matrix::new(&b, n, k).transposed() };
                let (mut out, mut expected) = (c.clone(), c.clone());
                product(&mut work, left, right, Epilogue::adding(true), &mut out);
                matmul(NonZeroUsize::MIN, left, right, &mut expected, true);
                for (got, expected) in out.iter().zip(&expected) {
                    assert!(
                        (got.f64() - expected.f64()).abs() < tolerance,
                        "{m} x {k} x {n}: {got:?} for {expected:?}"
                    );
                }
                all.extend(out);
            }
        }
        all
    }

    #[test]
    fn equal_the_reference() {
        products::<f64>(2, 1e-12);
        products::<f32>(2, 2e-4);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let bits = |threads| -> Vec<u32> {
            on_threads(threads, || products::<f32>(threads, 2e-4)).into_iter().map(f32::to_bits).collect()
        };
        let one = bits(1);
        for threads in [2, 3, 4] {
            assert!(one == bits(threads), "{threads} threads");
        }
    }

    #[test]
    fn bias_and_relu_follow_the_whole_sum() {
        let mut work = Workspace::new(NonZeroUsize::MIN);
        // As many columns as rows, and more.
        for (columns, expected) in [(2, vec![1.0, 0.0, 1.0, 0.0]), (3, vec![1.0, 0.0, 3.0, 1.0, 0.0, 3.0])] {
            let (a, b) = (vec![1.0_f64; 2 * 600], vec![-1.0; 600 * columns]);
            let mut out = vec![f64::NAN; 2 * columns];
            let epilogue = Epilogue { bias: Some(&[601.0, 0.0, 603.0][..columns]), relu: true, accumulate: false };
            product(&mut work, Matrix::new(&a, 2, 600), Matrix::new(&b, 600, columns), epilogue, &mut out);
            assert_eq!(out, expected);
        }
    }
}
