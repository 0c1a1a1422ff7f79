//! Matrix products.

use std::num::NonZeroUsize;

use gemm::Parallelism;

use crate::kernels::Float;

/// A matrix in a slice: row-major, or the transpose of such a one.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// The row-major matrix of shape (rows x cols) in `data`.
    ///
    /// # Panics
    /// When `data` has another length.
    #[must_use]
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a matrix of shape {rows} x {cols}");
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same elements, rows as columns.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            data: self.data,
        }
    }
}

/// `out = a b`, or `out += a b` with `accumulate`; `out` is row-major of shape (a.rows x b.cols).
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul<T: Float>(threads: NonZeroUsize, a: Matrix<T>, b: Matrix<T>, out: &mut [T], accumulate: bool) {
    assert_eq!(a.cols, b.rows, "inner sizes of a product");
    assert_eq!(out.len(), a.rows * b.cols, "size of a product");
    let parallelism = if threads.get() == 1 { Parallelism::None } else { Parallelism::Rayon(threads.get()) };
    let keep = if accumulate { T::ONE } else { T::ZERO };
    #[expect(unsafe_code, reason = "the matrix product takes raw pointers; this is its only caller")]
    // SAFETY: a matrix's elements lie at `row * row_stride + col * col_stride < rows * cols = data.len()` by construction,
    // and the two assertions above give the same for `out`, which is borrowed mutably and so overlaps neither operand.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            b.cols as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            keep,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are exact")]
mod tests {
    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;

    #[test]
    fn products_of_all_orientations() {
        let a = [1.0_f64, 2.0, 3.0, 4.0, 5.0, 6.0]; // 2 x 3
        let b = [1.0, 0.0, 2.0, 1.0, 0.0, 3.0]; // 3 x 2
        let mut out = [10.0; 4];
        matmul(ONE, Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), &mut out, false);
        assert_eq!(out, [5.0, 11.0, 14.0, 23.0]);
        matmul(ONE, Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), &mut out, true);
        assert_eq!(out, [10.0, 22.0, 28.0, 46.0]);
        matmul(ONE, Matrix::new(&a, 3, 2).transposed(), Matrix::new(&b, 3, 2), &mut out, false);
        assert_eq!(out, [7.0, 18.0, 10.0, 22.0]);
        matmul(ONE, Matrix::new(&a, 2, 3), Matrix::new(&b, 2, 3).transposed(), &mut out, false);
        assert_eq!(out, [7.0, 10.0, 16.0, 22.0]);
    }

    #[test]
    fn threads_do_not_change_a_product() {
        let value = |i: usize| ((i * 7919) % 1013) as f32 / 1013.0 - 0.5;
        let a: Vec<f32> = (0..300 * 200).map(value).collect();
        let b: Vec<f32> = (0..200 * 100).map(|i| value(i + 1)).collect();
        let product = |threads| {
            let mut out = vec![0.0; 300 * 100];
            matmul(threads, Matrix::new(&a, 300, 200), Matrix::new(&b, 200, 100), &mut out, false);
            out
        };
        let one = product(ONE);
        for threads in [2, 3, 4] {
            assert!(one == product(NonZeroUsize::new(threads).unwrap()), "{threads} threads");
        }
    }
}
