//! Blur pools (Zhang 2019): a binomial filter over an image that is reflected at its rims, taken at every few positions.

use rayon::prelude::*;

use crate::kernels::Float;

/// A position of the input along one axis, and what it counts for.
type Tap = (usize, f64);

/// What each position of a blur pool's output is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Blur {
    input: [usize; 2],
    /// For each row, and each column, of the output.
    taps: [Vec<Vec<Tap>>; 2],
}

impl Blur {
    /// A filter of `kernel` (at least 1) by `kernel` values every `stride` positions, behind a rim of `padding` reflected
    /// values, less than the image has.
    #[must_use]
    pub fn new(input: [usize; 2], output: [usize; 2], kernel: usize, stride: usize, padding: usize) -> Self {
        let filter = binomial(kernel);
        let of_one = |axis: usize, at: usize| {
            let taps = filter.iter().enumerate();
            taps.map(|(k, share)| (reflected(at * stride + k, padding, input[axis]), *share)).collect()
        };
        Self { input, taps: [0, 1].map(|axis| (0..output[axis]).map(|at| of_one(axis, at)).collect()) }
    }

    /// Calls `each` with every position of the input that the position `o` of the output is made of, and its share.
    fn each_tap(&self, o: usize, mut each: impl FnMut(usize, f64)) {
        let ([rows, columns], width) = (&self.taps, self.taps[1].len());
        for (row, of_row) in &rows[o / width] {
            for (column, of_column) in &columns[o % width] {
                each(row * self.input[1] + column, of_row * of_column);
            }
        }
    }

    /// Positions of the output.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.taps[0].len() * self.taps[1].len()
    }

    /// What the position `o` of the output is made of: positions of the input, which may come twice where the rim reflects them, and
    /// their shares.
    #[must_use]
    pub fn shares(&self, o: usize) -> Vec<(usize, f64)> {
        let mut shares = Vec::new();
        self.each_tap(o, |position, share| shares.push((position, share)));
        shares
    }

    fn lengths(&self, channels: usize) -> [usize; 2] {
        [self.input[0] * self.input[1] * channels, self.outputs() * channels]
    }

    /// The blurred images.
    pub fn forward<T: Float>(&self, channels: usize, x: &[T], y: &mut [T]) {
        let [input, output] = self.lengths(channels);
        y.par_chunks_mut(output).zip(x.par_chunks(input)).for_each(|(y, x)| {
            for (o, y) in y.chunks_exact_mut(channels).enumerate() {
                y.fill(T::ZERO);
                self.each_tap(o, |position, share| {
                    let (pixel, share) = (&x[position * channels..][..channels], T::of(share));
                    y.iter_mut().zip(pixel).for_each(|(y, x)| *y += *x * share);
                });
            }
        });
    }

    /// Spreads the gradients over what the outputs are made of.
    pub fn backward<T: Float>(&self, channels: usize, dy: &[T], dx: &mut [T], accumulate: bool) {
        let [input, output] = self.lengths(channels);
        dx.par_chunks_mut(input).zip(dy.par_chunks(output)).for_each(|(dx, dy)| {
            if !accumulate {
                dx.fill(T::ZERO);
            }
            for (o, dy) in dy.chunks_exact(channels).enumerate() {
                self.each_tap(o, |position, share| {
                    let (pixel, share) = (&mut dx[position * channels..][..channels], T::of(share));
                    pixel.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += *dy * share);
                });
            }
        });
    }
}

/// The binomial coefficients of `count - 1`, divided by their sum.
fn binomial(count: usize) -> Vec<f64> {
    let mut row = vec![1.0];
    while row.len() < count {
        let before = std::iter::once(&0.0).chain(&row);
        row = before.zip(row.iter().chain(std::iter::once(&0.0))).map(|(a, b)| (a + b) / 2.0).collect();
    }
    row
}

/// The position in an axis of `size` of the position `at` of the same axis with a rim of `padding` at both ends.
fn reflected(at: usize, padding: usize, size: usize) -> usize {
    let from = at.abs_diff(padding);
    if at < padding || from < size { from } else { 2 * (size - 1) - from }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample};

    #[test]
    fn gradients_equal_finite_differences() {
        for (input, kernel, stride, padding) in
            [([4, 6], 3, 2, 1), ([5, 7], 3, 2, 1), ([5, 3], 5, 2, 2), ([6, 4], 2, 3, 1), ([3, 3], 4, 1, 1)]
        {
            let output = input.map(|size| (size + 2 * padding - kernel) / stride + 1);
            let blur = Blur::new(input, output, kernel, stride, padding);
            let [x, c] = blur.lengths(2).map(|length| sample(2 * length, length as u64));
            for accumulate in [false, true] {
                let mut dx = sample(x.len(), 3);
                let before = if accumulate { dx.clone() } else { vec![0.0; x.len()] };
                blur.backward(2, &c, &mut dx, accumulate);
                dx.iter_mut().zip(&before).for_each(|(dx, before)| *dx -= before);
                assert_gradient("x", &x, &dx, |x| {
                    let mut y = vec![0.0; c.len()];
                    blur.forward(2, x, &mut y);
                    projection(&y, &c)
                });
            }
        }
    }

    #[test]
    fn an_image_of_one_colour_keeps_it() {
        let blur = Blur::new([5, 4], [3, 2], 5, 2, 2);
        let mut y = [0.0_f32; 6];
        blur.forward(1, &[0.75; 20], &mut y);
        assert!(y.iter().all(|y| (y - 0.75).abs() < 1e-6), "{y:?}");
    }

    #[test]
    fn filters_are_binomial_and_rims_reflected() {
        let sums: Vec<f64> = binomial(5).into_iter().map(|share| share * 16.0).collect();
        assert!(sums.iter().zip([1.0, 4.0, 6.0, 4.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{sums:?}");
        let positions: Vec<usize> = (0..8).map(|at| reflected(at, 2, 4)).collect();
        assert_eq!(positions, [2, 1, 0, 1, 2, 3, 2, 1]);
    }
}
