//! Sums over the rows of a matrix.

use rayon::prelude::*;

use crate::kernels::workspace::scratch;
use crate::kernels::{Float, Workspace};

/// Most blocks that the rows are split into; fixed, so that sums do not depend on the number of threads.
const BLOCKS: usize = 16;
/// Fewest rows of a block.
const ROWS: usize = 64;

/// Adds up, in f64, what `add(row, index of the row, sums)` adds for each row of `data` (rows x width); `sums` values
/// per row. The result lies at the start of `partials`.
pub(super) fn over_rows<'p, T: Float>(
    data: &[T],
    width: usize,
    sums: usize,
    partials: &'p mut Vec<f64>,
    add: impl Fn(&[T], usize, &mut [f64]) + Sync,
) -> &'p [f64] {
    let rows = data.len() / width;
    let per_block = rows.div_ceil(BLOCKS).max(ROWS);
    let blocks = rows.div_ceil(per_block).max(1);
    let partials = scratch(partials, blocks * sums);
    partials.fill(0.0);
    partials.par_chunks_mut(sums).zip(data.par_chunks(per_block * width)).enumerate().for_each(
        |(block, (partial, rows))| {
            for (row, values) in rows.chunks_exact(width).enumerate() {
                add(values, block * per_block + row, partial);
            }
        },
    );
    let (total, rest) = partials.split_at_mut(sums);
    for partial in rest.chunks_exact(sums) {
        total.iter_mut().zip(partial).for_each(|(t, p)| *t += p);
    }
    total
}

/// Sum of each column of `data` (rows x `out.len()`).
pub fn column_sums<T: Float>(data: &[T], work: &mut Workspace<T>, out: &mut [T]) {
    let width = out.len();
    let sums = over_rows(data, width, width, &mut work.partials, |row, _, sums| {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value.f64());
    });
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = T::of(*sum));
}

/// Sum over each column of `a` times `b` (both rows x `out.len()`), value by value.
pub fn column_products<T: Float>(a: &[T], b: &[T], work: &mut Workspace<T>, out: &mut [T]) {
    let width = out.len();
    let sums = over_rows(a, width, width, &mut work.partials, |a, row, sums| {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(&b[row * width..][..width]) {
            *sum += a.f64() * b.f64();
        }
    });
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = T::of(*sum));
}

/// Partial sums of a row; so many that their additions need not wait for each other.
const LANES: usize = 16;

/// Sum of `value` over a row.
pub(super) fn sum<T: Float>(row: &[T], value: impl Fn(T) -> T) -> f64 {
    lanes([row], |[x]| value(x))
}

/// Sum of `value` over two rows of one length.
pub(super) fn sum_of<T: Float>(rows: [&[T]; 2], value: impl Fn(T, T) -> T) -> f64 {
    lanes(rows, |[a, b]| value(a, b))
}

/// Sum of `value` over three rows of one length.
pub(super) fn sum_of_three<T: Float>(rows: [&[T]; 3], value: impl Fn(T, T, T) -> T) -> f64 {
    lanes(rows, |[a, b, c]| value(a, b, c))
}

fn lanes<T: Float, const N: usize>(rows: [&[T]; N], value: impl Fn([T; N]) -> T) -> f64 {
    let mut sums = [T::ZERO; LANES];
    let whole = rows[0].len() / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        let rows = rows.map(|row| &row[first..first + LANES]);
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += value(rows.map(|row| row[lane]));
        }
    }
    let rest: f64 = (whole..rows[0].len()).map(|i| value(rows.map(|row| row[i])).f64()).sum();
    rest + sums.iter().map(|sum| sum.f64()).sum::<f64>()
}
