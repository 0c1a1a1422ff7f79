//! Normalisation of each example by itself: over groups of channels and all positions (PyTorch's `GroupNorm`). Where every
//! position counts as an example and all channels are one group, it is `LayerNorm`.

use rayon::prelude::*;

use crate::kernels::reduce::{over_rows, sum, sum_of, sum_of_three};
use crate::kernels::{Float, PIECE, Workspace};

/// Sizes of a normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNorm {
    /// Channels of a position.
    pub channels: usize,
    /// Channels of a group.
    pub group: usize,
    /// Positions of an example.
    pub positions: usize,
    /// Added to the variance.
    pub eps: f64,
}

/// Mean and `1 / sqrt(var + eps)` of a group of an example.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GroupMoments {
    mean: f64,
    inverse: f64,
}

/// Factor and summand of each channel.
#[derive(Debug, Clone, Copy)]
pub struct Scale<'a, T> {
    /// The factors.
    pub weight: &'a [T],
    /// The summands.
    pub bias: &'a [T],
}

impl GroupNorm {
    /// Moments that [`Self::forward`] leaves behind for `elements` values.
    #[must_use]
    pub fn moments(&self, elements: usize) -> usize {
        elements / (self.positions * self.group)
    }

    /// Examples of one piece of work.
    fn piece(&self) -> usize {
        (PIECE / (self.positions * self.channels)).max(1)
    }

    /// `y = (x - mean) / sqrt(var + eps) * weight + bias`; leaves the moments of each group of each example.
    pub fn forward<T: Float>(&self, x: &[T], scale: Scale<T>, moments: &mut [GroupMoments], y: &mut [T]) {
        let (example, groups) = (self.positions * self.channels, self.channels / self.group);
        let piece = self.piece();
        let pieces = y.par_chunks_mut(piece * example).zip(x.par_chunks(piece * example));
        pieces.zip(moments.par_chunks_mut(piece * groups)).for_each(|((y, x), moments)| {
            let examples = y.chunks_exact_mut(example).zip(x.chunks_exact(example));
            for ((y, x), moments) in examples.zip(moments.chunks_exact_mut(groups)) {
                for (index, moments) in moments.iter_mut().enumerate() {
                    *moments = self.measure(x, index);
                    self.write(x, index, *moments, scale, y);
                }
            }
        });
    }

    /// A group's values, position by position.
    fn rows<'x, T>(&self, x: &'x [T], index: usize) -> impl Iterator<Item = &'x [T]> {
        let (first, group) = (index * self.group, self.group);
        x.chunks_exact(self.channels).map(move |pixel| &pixel[first..first + group])
    }

    /// The moments of one group of one example, in two passes.
    fn measure<T: Float>(&self, x: &[T], index: usize) -> GroupMoments {
        let count = (self.positions * self.group) as f64;
        let mean = self.rows(x, index).map(|row| sum(row, |value| value)).sum::<f64>() / count;
        let center = T::of(mean);
        let square = |value: T| (value - center) * (value - center);
        let var = self.rows(x, index).map(|row| sum(row, square)).sum::<f64>() / count;
        GroupMoments { mean, inverse: 1.0 / (var + self.eps).sqrt() }
    }

    fn write<T: Float>(&self, x: &[T], index: usize, moments: GroupMoments, scale: Scale<T>, y: &mut [T]) {
        let first = index * self.group;
        let (mean, inverse) = (T::of(moments.mean), T::of(moments.inverse));
        let (weight, bias) = (&scale.weight[first..][..self.group], &scale.bias[first..][..self.group]);
        for (x, y) in self.rows(x, index).zip(y.chunks_exact_mut(self.channels)) {
            for (((y, x), w), b) in y[first..].iter_mut().zip(x).zip(weight).zip(bias) {
                *y = (*x - mean) * inverse * *w + *b;
            }
        }
    }

    /// `dweight = sum dy x̂`, `dbias = sum dy`, x̂ the normalised input.
    pub fn backward_parameters<T: Float>(
        &self,
        work: &mut Workspace<T>,
        x: &[T],
        dy: &[T],
        moments: &[GroupMoments],
        [dweight, dbias]: [&mut [T]; 2],
    ) {
        let (channels, groups) = (self.channels, self.channels / self.group);
        let sums = over_rows(dy, channels, 2 * channels, &mut work.partials, |dy, row, sums| {
            let (of_product, of_dy) = sums.split_at_mut(channels);
            let x = &x[row * channels..][..channels];
            let moments = &moments[row / self.positions * groups..][..groups];
            let products = of_product.chunks_exact_mut(self.group).zip(x.chunks_exact(self.group));
            for (((sums, x), dy), moments) in products.zip(dy.chunks_exact(self.group)).zip(moments) {
                for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
                    *sum += dy.f64() * (x.f64() - moments.mean) * moments.inverse;
                }
            }
            of_dy.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy.f64());
        });
        dweight.iter_mut().chain(dbias).zip(sums).for_each(|(gradient, sum)| *gradient = T::of(*sum));
    }

    /// `dx = (g - mean(g) - x̂ mean(g x̂)) / sqrt(var + eps)` for `g = weight dy`; or `dx +=`.
    pub fn backward_input<T: Float>(
        &self,
        [x, dy, weight]: [&[T]; 3],
        moments: &[GroupMoments],
        dx: &mut [T],
        accumulate: bool,
    ) {
        let (example, groups) = (self.positions * self.channels, self.channels / self.group);
        let piece = self.piece();
        let pieces = dx.par_chunks_mut(piece * example).zip(x.par_chunks(piece * example));
        let rest = dy.par_chunks(piece * example).zip(moments.par_chunks(piece * groups));
        pieces.zip(rest).for_each(|((dx, x), (dy, moments))| {
            let examples = dx.chunks_exact_mut(example).zip(x.chunks_exact(example)).zip(dy.chunks_exact(example));
            for (((dx, x), dy), moments) in examples.zip(moments.chunks_exact(groups)) {
                for (index, moments) in moments.iter().enumerate() {
                    self.spread([x, dy, weight], index, *moments, dx, accumulate);
                }
            }
        });
    }

    /// The gradient of one group of one example: `dx = a dy weight + b (x - mean) + c`.
    fn spread<T: Float>(
        &self,
        [x, dy, weight]: [&[T]; 3],
        index: usize,
        moments: GroupMoments,
        dx: &mut [T],
        accumulate: bool,
    ) {
        let (first, count) = (index * self.group, (self.positions * self.group) as f64);
        let (weight, center) = (&weight[first..][..self.group], T::of(moments.mean));
        let (mut of_g, mut of_product) = (0.0, 0.0);
        for (x, dy) in self.rows(x, index).zip(self.rows(dy, index)) {
            of_g += sum_of([dy, weight], |dy, w| dy * w);
            of_product += sum_of_three([dy, weight, x], |dy, w, x| dy * w * (x - center));
        }
        let b = -moments.inverse.powi(3) * of_product / count;
        let c = T::of(-moments.inverse * of_g / count);
        let (a, b) = (T::of(moments.inverse), T::of(b));
        let rows = self.rows(x, index).zip(self.rows(dy, index));
        for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(self.channels)) {
            for (((dx, x), dy), w) in dx[first..].iter_mut().zip(x).zip(dy).zip(weight) {
                let gradient = a * *dy * *w + b * (*x - center) + c;
                *dx = if accumulate { *dx + gradient } else { gradient };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample, workspace};

    #[test]
    fn gradients_equal_finite_differences() {
        for (channels, group, positions) in [(6, 6, 1), (6, 2, 3), (6, 1, 4), (35, 35, 1), (4, 4, 5)] {
            let norm = GroupNorm { channels, group, positions, eps: 1e-5 };
            let len = 3 * positions * channels;
            let (x, w, b, c) = (sample(len, 1), sample(channels, 2), sample(channels, 3), sample(len, 4));
            let forward = |x: &[f64], weight: &[f64], bias: &[f64]| {
                let (mut y, mut moments) = (vec![0.0; len], vec![GroupMoments::default(); norm.moments(len)]);
                norm.forward(x, Scale { weight, bias }, &mut moments, &mut y);
                (y, moments)
            };
            let (_, moments) = forward(&x, &w, &b);
            let (mut dx, mut dw, mut db) = (sample(len, 5), vec![0.0; channels], vec![0.0; channels]);
            let before = dx.clone();
            norm.backward_parameters(&mut workspace(), &x, &c, &moments, [&mut dw, &mut db]);
            norm.backward_input([&x, &c, &w], &moments, &mut dx, true);
            dx.iter_mut().zip(&before).for_each(|(dx, before)| *dx -= before);
            assert_gradient("x", &x, &dx, |x| projection(&forward(x, &w, &b).0, &c));
            assert_gradient("weight", &w, &dw, |w| projection(&forward(&x, w, &b).0, &c));
            assert_gradient("bias", &b, &db, |b| projection(&forward(&x, &w, b).0, &c));
        }
    }

    #[test]
    fn a_row_far_from_zero_keeps_its_variance() {
        let norm = GroupNorm { channels: 4, group: 4, positions: 1, eps: 0.0 };
        let (mut y, mut moments) = ([0.0_f32; 4], [GroupMoments::default()]);
        let scale = Scale { weight: &[1.0; 4], bias: &[0.0; 4] };
        norm.forward(&[1e4, 1e4 + 1.0, 1e4 + 2.0, 1e4 + 3.0], scale, &mut moments, &mut y);
        let expected = [-1.341_64, -0.447_21, 0.447_21, 1.341_64];
        assert!(y.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-4), "{y:?}");
    }
}
