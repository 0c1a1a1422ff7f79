//! Softmax of rows.

use rayon::prelude::*;

use crate::kernels::reduce::{sum, sum_of};
use crate::kernels::{Float, PIECE};

/// `exp(x) / Σ exp(x)` of every row of `x` (rows x width).
pub fn softmax<T: Float>(width: usize, x: &[T], y: &mut [T]) {
    let piece = (PIECE / width).max(1) * width;
    y.par_chunks_mut(piece).zip(x.par_chunks(piece)).for_each(|(y, x)| {
        y.copy_from_slice(x);
        y.chunks_exact_mut(width).for_each(|row| in_place(row, T::ONE));
    });
}

/// `dx = y (dy - Σ dy y)` by the output `y`, or `dx +=`.
pub fn softmax_backward<T: Float>(width: usize, y: &[T], dy: &[T], dx: &mut [T], accumulate: bool) {
    let piece = (PIECE / width).max(1) * width;
    dx.par_chunks_mut(piece).zip(y.par_chunks(piece)).zip(dy.par_chunks(piece)).for_each(|((dx, y), dy)| {
        let rows = dx.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(dy.chunks_exact(width));
        for ((dx, y), dy) in rows {
            let mean = mean_gradient(y, dy);
            for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
                let gradient = *y * (*dy - mean);
                *dx = if accumulate { *dx + gradient } else { gradient };
            }
        }
    });
}

/// Softmax of `factor x`, a single row, in its place.
pub(super) fn in_place<T: Float>(row: &mut [T], factor: T) {
    let highest = row.iter().fold(T::of(f64::NEG_INFINITY), |most, x| if *x > most { *x } else { most });
    for x in row.iter_mut() {
        *x = (factor * (*x - highest)).exp();
    }
    let share = T::of(1.0 / sum(row, |x| x));
    for x in row {
        *x = *x * share;
    }
}

/// The gradient's mean under the probabilities `y`.
pub(super) fn mean_gradient<T: Float>(y: &[T], dy: &[T]) -> T {
    T::of(sum_of([y, dy], |y, dy| y * dy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample};

    #[test]
    fn gradients_equal_finite_differences() {
        let (x, c) = (sample(15, 1), sample(15, 2));
        let forward = |x: &[f64]| {
            let mut y = vec![0.0; 15];
            softmax(5, x, &mut y);
            y
        };
        let mut dx = vec![1.0; 15];
        softmax_backward(5, &forward(&x), &c, &mut dx, true);
        for dx in &mut dx {
            *dx -= 1.0;
        }
        assert_gradient("x", &x, &dx, |x| projection(&forward(x), &c));
    }

    #[test]
    fn huge_values_do_not_overflow_and_nan_shows() {
        let mut y = [0.0_f32; 4];
        softmax(2, &[1e30, -1e30, f32::NAN, 0.0], &mut y);
        assert_eq!(y[..2], [1.0, 0.0]);
        assert!(y[2].is_nan() && y[3].is_nan());
    }
}
