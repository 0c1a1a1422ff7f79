//! Sums, products value by value, copies, and what follows a product of matrices.

use rayon::prelude::*;

use crate::kernels::{Float, PIECE};

/// Adds `bias` to each row of `values` (rows x `width`) and applies ReLU if wanted.
pub fn finish_rows<T: Float>(values: &mut [T], width: usize, bias: Option<&[T]>, relu: bool) {
    if bias.is_none() && !relu {
        return;
    }
    let rows = (PIECE / width).max(1);
    values.par_chunks_mut(rows * width).for_each(|piece| finish_piece(piece, width, bias, relu));
}

/// [`finish_rows`] on this thread.
pub(super) fn finish_piece<T: Float>(values: &mut [T], width: usize, bias: Option<&[T]>, relu: bool) {
    if let Some(bias) = bias {
        for row in values.chunks_exact_mut(width) {
            row.iter_mut().zip(bias).for_each(|(value, bias)| *value += *bias);
        }
    }
    if relu {
        for value in values {
            *value = positive(*value);
        }
    }
}

/// `max(x, 0)`; NaN stays, so that a diverged network shows.
#[inline]
pub(super) fn positive<T: Float>(value: T) -> T {
    if value < T::ZERO { T::ZERO } else { value }
}

/// Gradient of ReLU by its output: `dy` becomes 0 where `y` is 0 (PyTorch's choice at 0).
pub fn relu_backward<T: Float>(y: &[T], dy: &mut [T]) {
    dy.par_chunks_mut(PIECE).zip(y.par_chunks(PIECE)).for_each(|(dy, y)| {
        dy.iter_mut().zip(y).for_each(|(dy, y)| *dy = if *y > T::ZERO { *dy } else { T::ZERO });
    });
}

/// `y = a + b`, then ReLU if wanted.
pub fn add<T: Float>(a: &[T], b: &[T], relu: bool, y: &mut [T]) {
    y.par_chunks_mut(PIECE).zip(a.par_chunks(PIECE)).zip(b.par_chunks(PIECE)).for_each(|((y, a), b)| {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            let sum = *a + *b;
            *y = if relu { positive(sum) } else { sum };
        }
    });
}

/// `y = x f` or `y += x f`: every row of `x` (examples x rows x width) value by value times its example's row of `factors`
/// (examples x width).
pub fn multiply<T: Float>(rows: usize, width: usize, x: &[T], factors: &[T], y: &mut [T], accumulate: bool) {
    let examples = y.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).zip(factors.par_chunks(width));
    examples.for_each(|((y, x), factors)| scale_piece(x, factors, y, accumulate));
}

/// Gradient of [`multiply`]'s factors: sums over each example's rows of `dy x`.
pub fn multiply_backward<T: Float>(rows: usize, width: usize, x: &[T], dy: &[T], dfactors: &mut [T], accumulate: bool) {
    let examples = dfactors.par_chunks_mut(width).zip(x.par_chunks(rows * width)).zip(dy.par_chunks(rows * width));
    examples.for_each(|((sums, x), dy)| {
        if !accumulate {
            sums.fill(T::ZERO);
        }
        for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
            for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
                *sum += *x * *dy;
            }
        }
    });
}

/// `y = x f` or `y += x f`: every row of `x` value by value times the one row of `factors`.
pub fn scale_rows<T: Float>(x: &[T], factors: &[T], y: &mut [T], accumulate: bool) {
    let piece = (PIECE / factors.len()).max(1) * factors.len();
    y.par_chunks_mut(piece).zip(x.par_chunks(piece)).for_each(|(y, x)| scale_piece(x, factors, y, accumulate));
}

fn scale_piece<T: Float>(x: &[T], factors: &[T], y: &mut [T], accumulate: bool) {
    for (y, x) in y.chunks_exact_mut(factors.len()).zip(x.chunks_exact(factors.len())) {
        for ((y, x), factor) in y.iter_mut().zip(x).zip(factors) {
            *y = if accumulate { *y + *x * *factor } else { *x * *factor };
        }
    }
}

/// Copies `values` (rows x width) into the columns from `first` on of `target` (rows x `of`).
pub fn put_columns<T: Float>(values: &[T], width: usize, target: &mut [T], first: usize, of: usize) {
    let rows = (PIECE / of).max(1);
    target.par_chunks_mut(rows * of).zip(values.par_chunks(rows * width)).for_each(|(target, values)| {
        for (target, values) in target.chunks_exact_mut(of).zip(values.chunks_exact(width)) {
            target[first..first + width].copy_from_slice(values);
        }
    });
}

/// The columns from `first` on of `values` (rows x `of`), copied or added to `target` (rows x width).
pub fn take_columns<T: Float>(values: &[T], first: usize, of: usize, target: &mut [T], width: usize, accumulate: bool) {
    let rows = (PIECE / of).max(1);
    target.par_chunks_mut(rows * width).zip(values.par_chunks(rows * of)).for_each(|(target, values)| {
        for (target, values) in target.chunks_exact_mut(width).zip(values.chunks_exact(of)) {
            put_piece(&values[first..first + width], target, accumulate);
        }
    });
}

/// `target = values`, or `target += values` with `accumulate`.
pub fn put<T: Float>(values: &[T], target: &mut [T], accumulate: bool) {
    let pieces = target.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE));
    pieces.for_each(|(target, values)| put_piece(values, target, accumulate));
}

/// [`put`] on this thread.
pub(super) fn put_piece<T: Float>(values: &[T], target: &mut [T], accumulate: bool) {
    if accumulate {
        target.iter_mut().zip(values).for_each(|(t, v)| *t += *v);
    } else {
        target.copy_from_slice(values);
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are exact")]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample};

    #[test]
    fn the_gradient_of_relu_at_zero_is_zero() {
        let y = [-1.0, -0.0, 0.0, 2.0_f64].map(positive);
        assert_eq!(y, [0.0, 0.0, 0.0, 2.0]);
        let mut dy = [1.0, 2.0, 3.0, 4.0];
        relu_backward(&y, &mut dy);
        assert_eq!(dy, [0.0, 0.0, 0.0, 4.0]);
    }

    #[test]
    fn relu_does_not_hide_nan() {
        assert!(positive(f32::NAN).is_nan());
    }

    #[test]
    fn bias_sum_and_relu_in_one_pass() {
        let mut rows = [1.0_f32, -3.0, 0.5, 2.0];
        finish_rows(&mut rows, 2, Some(&[-1.0, 1.0]), true);
        assert_eq!(rows, [0.0, 0.0, 0.0, 3.0]);
        let mut y = [0.0_f32; 2];
        add(&[1.0, 2.0], &[1.0, -3.0], false, &mut y);
        assert_eq!(y, [2.0, -1.0]);
        put(&[1.0, 1.0], &mut y, true);
        assert_eq!(y, [3.0, 0.0]);
    }

    #[test]
    fn columns_go_in_and_out() {
        let mut rows = [0.0_f32; 6];
        put_columns(&[1.0, 2.0], 1, &mut rows, 0, 3);
        put_columns(&[3.0, 4.0, 5.0, 6.0], 2, &mut rows, 1, 3);
        assert_eq!(rows, [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
        let mut out = [10.0; 4];
        take_columns(&rows, 1, 3, &mut out, 2, true);
        assert_eq!(out, [13.0, 14.0, 15.0, 16.0]);
    }

    #[test]
    fn gradients_of_products_equal_finite_differences() {
        let (x, f, c) = (sample(24, 1), sample(8, 2), sample(24, 3));
        let forward = |x: &[f64], f: &[f64]| {
            let mut y = vec![0.0; 24];
            multiply(3, 4, x, f, &mut y, false);
            projection(&y, &c)
        };
        let (mut dx, mut df) = (vec![1.0; 24], vec![1.0; 8]);
        multiply(3, 4, &c, &f, &mut dx, true);
        multiply_backward(3, 4, &x, &c, &mut df, true);
        dx.iter_mut().chain(&mut df).for_each(|gradient| *gradient -= 1.0);
        assert_gradient("x", &x, &dx, |x| forward(x, &f));
        assert_gradient("factors", &f, &df, |f| forward(&x, f));
        let mut rows = vec![0.0; 12];
        scale_rows(&x[..12], &f[..4], &mut rows, false);
        let mut expected = vec![0.0; 24];
        multiply(3, 4, &x, &f, &mut expected, false);
        assert_eq!(rows, expected[..12]);
    }
}
