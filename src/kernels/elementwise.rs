//! ReLU, sums, and what follows a product.

use rayon::prelude::*;

use crate::kernels::{Float, PIECE};

/// Adds `bias` to each row of `values` (rows x `width`) and applies ReLU, as asked.
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

/// `y = max(x, 0)`.
pub fn relu<T: Float>(x: &[T], y: &mut [T]) {
    y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(y, x)| {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = positive(*x));
    });
}

/// Gradient of ReLU by its output: `dy` becomes 0 where `y` is 0 (PyTorch's choice at 0).
pub fn relu_backward<T: Float>(y: &[T], dy: &mut [T]) {
    dy.par_chunks_mut(PIECE).zip(y.par_chunks(PIECE)).for_each(|(dy, y)| {
        dy.iter_mut().zip(y).for_each(|(dy, y)| *dy = if *y > T::ZERO { *dy } else { T::ZERO });
    });
}

/// `y = a + b`, then ReLU if asked.
pub fn add<T: Float>(a: &[T], b: &[T], relu: bool, y: &mut [T]) {
    y.par_chunks_mut(PIECE).zip(a.par_chunks(PIECE)).zip(b.par_chunks(PIECE)).for_each(|((y, a), b)| {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            let sum = *a + *b;
            *y = if relu { positive(sum) } else { sum };
        }
    });
}

/// `target = values`, or `target += values` with `accumulate`.
pub fn put<T: Float>(values: &[T], target: &mut [T], accumulate: bool) {
    target.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE)).for_each(|(target, values)| {
        if accumulate {
            target.iter_mut().zip(values).for_each(|(t, v)| *t += *v);
        } else {
            target.copy_from_slice(values);
        }
    });
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are exact")]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_of_relu_at_zero_is_zero() {
        let x = [-1.0, -0.0, 0.0, 2.0_f64];
        let mut y = [0.0; 4];
        relu(&x, &mut y);
        assert_eq!(y, [0.0, 0.0, 0.0, 2.0]);
        let mut dy = [1.0, 2.0, 3.0, 4.0];
        relu_backward(&y, &mut dy);
        assert_eq!(dy, [0.0, 0.0, 0.0, 4.0]);
    }

    #[test]
    fn relu_does_not_hide_nan() {
        let mut y = [0.0_f32];
        relu(&[f32::NAN], &mut y);
        assert!(y[0].is_nan());
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
}
