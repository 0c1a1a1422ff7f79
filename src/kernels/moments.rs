//! Products of rows of activations, formed in single precision and added up in double precision.

use rayon::prelude::*;

use crate::kernels::panels::Panel;
use crate::kernels::product::{Rows, Sums, block, by_blocks};
use crate::kernels::{Matrix, Workspace};

/// Which elements of a product are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Triangle {
    /// All of them.
    Both,
    /// Those on the diagonal and right of it, of a symmetric product; some others too, which then have no meaning.
    Upper,
}

/// `sums += aᵀ b` for `a` (rows x m), `b` (rows x n) and `sums` (m x n, row-major), the sum over the rows in f32.
///
/// # Panics
/// When the shapes do not fit.
pub fn add_product(work: &mut Workspace<f32>, a: Matrix<f32>, b: Matrix<f32>, which: Triangle, sums: &mut [f64]) {
    assert_eq!(a.rows, b.rows, "rows of a product of moments");
    assert_eq!(sums.len(), a.cols * b.cols, "size of a product of moments");
    if sums.is_empty() {
        return;
    }
    let (columns, rows) = (b.cols, block(a.cols));
    let write = |out: &mut Rows<f64>, tile: &Sums<f32>| {
        for (r, values) in tile.values.chunks_exact(tile.width).enumerate().take(tile.rows) {
            let out = &mut out.0[(tile.row + r) * columns + tile.column..][..tile.columns];
            out.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*value));
        }
    };
    let blocks = sums.par_chunks_mut(rows * columns).map(Rows);
    let needed = |first: usize, panel: &Panel<f32>| which == Triangle::Both || panel.column + panel.columns > first;
    by_blocks(work, a.transposed(), b, rows, needed, blocks, write);
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::kernels::finite_difference::sample;

    /// Products of some rows, on so many threads.
    fn products(threads: usize, which: Triangle) -> Vec<Vec<f64>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut work = Workspace::new(NonZeroUsize::new(threads).unwrap());
        let of_shape = |&[rows, m, n]: &[usize; 3]| {
            let values = |len, seed| sample(len, seed).into_iter().map(|value| value as f32).collect::<Vec<f32>>();
            let (a, b) = (values(rows * m, 1), values(rows * n, if m == n { 1 } else { 2 }));
            let mut sums = vec![0.5; m * n];
            let (left, right) = (Matrix::new(&a, rows, m), Matrix::new(&b, rows, n));
            pool.install(|| add_product(&mut work, left, right, which, &mut sums));
            for i in 0..m {
                for j in 0..n {
                    let exact: f64 = (0..rows).map(|row| f64::from(a[row * m + i]) * f64::from(b[row * n + j])).sum();
                    let counts = which == Triangle::Both || j >= i;
                    assert!(!counts || (sums[i * n + j] - exact - 0.5).abs() < 1e-4, "{rows} rows, {m} x {n}");
                }
            }
            sums
        };
        [[1, 1, 1], [7, 3, 5], [600, 70, 130], [300, 300, 300], [5, 513, 513], [3, 4, 0]].iter().map(of_shape).collect()
    }

    #[test]
    fn products_are_added_to_what_is_there() {
        products(2, Triangle::Both);
    }

    #[test]
    fn a_triangle_is_complete_and_has_the_same_bits_on_any_number_of_threads() {
        assert!(products(1, Triangle::Upper) == products(3, Triangle::Upper));
    }

    #[test]
    fn most_of_the_other_triangle_is_left_alone() {
        let n = 513;
        let (x, mut sums) = (vec![1.0; n], vec![0.0; n * n]);
        let row = Matrix::new(&x, 1, n);
        add_product(&mut Workspace::new(NonZeroUsize::MIN), row, row, Triangle::Upper, &mut sums);
        let below = |i: usize| (0..i).filter(|j| sums[i * n + j] == 0.0).count();
        assert!((0..n).map(below).sum::<usize>() > n * n / 3, "it takes as long as both");
    }
}
