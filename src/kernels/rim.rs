//! Zeros around images, as wide on each side as they are to be.

use rayon::prelude::*;

use crate::kernels::Float;
use crate::kernels::elementwise::put_piece;

/// An image within zeros; examples are (height x width x channels).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZeroRim {
    /// Height and width within.
    pub inner: [usize; 2],
    /// Height and width with the zeros.
    pub outer: [usize; 2],
    /// Rows above and columns before the image.
    pub begin: [usize; 2],
    /// Number of channels.
    pub channels: usize,
}

impl ZeroRim {
    fn lengths(&self) -> [usize; 2] {
        [self.inner, self.outer].map(|size| size[0] * size[1] * self.channels)
    }

    /// Where the row `row` of the image begins in the larger one.
    fn place(&self, row: usize) -> usize {
        ((row + self.begin[0]) * self.outer[1] + self.begin[1]) * self.channels
    }

    /// The images within their zeros.
    pub fn forward<T: Float>(&self, x: &[T], y: &mut [T]) {
        let ([inner, outer], width) = (self.lengths(), self.inner[1] * self.channels);
        y.par_chunks_mut(outer).zip(x.par_chunks(inner)).for_each(|(y, x)| {
            y.fill(T::ZERO);
            for (row, x) in x.chunks_exact(width).enumerate() {
                y[self.place(row)..][..width].copy_from_slice(x);
            }
        });
    }

    /// The gradients of what is within: copied, or added to `dx`.
    pub fn backward<T: Float>(&self, dy: &[T], dx: &mut [T], accumulate: bool) {
        let ([inner, outer], width) = (self.lengths(), self.inner[1] * self.channels);
        dx.par_chunks_mut(inner).zip(dy.par_chunks(outer)).for_each(|(dx, dy)| {
            for (row, dx) in dx.chunks_exact_mut(width).enumerate() {
                put_piece(&dy[self.place(row)..][..width], dx, accumulate);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_come_back_from_where_values_went() {
        let rim = ZeroRim { inner: [2, 3], outer: [5, 4], begin: [2, 1], channels: 2 };
        let x: Vec<f64> = (1..=24).map(f64::from).collect();
        let mut y = vec![7.0; 80];
        rim.forward(&x, &mut y);
        assert_eq!(y.iter().filter(|value| value.abs() < 0.5).count(), 80 - 24);
        assert_eq!(y[(2 * 4 + 1) * 2..][..6], x[..6]);
        let mut dx = vec![0.5; 24];
        rim.backward(&y, &mut dx, false);
        assert_eq!(dx, x);
        rim.backward(&y, &mut dx, true);
        assert_eq!(dx, x.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
    }
}
