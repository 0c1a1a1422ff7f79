//! Per-channel normalisation of (rows x channels), as PyTorch's BatchNorm1d and 2d.

use rayon::prelude::*;

use crate::kernels::elementwise::positive;
use crate::kernels::reduce::over_rows;
use crate::kernels::{Float, PIECE, Workspace};

/// Mean and `1 / sqrt(var + eps)` of each channel.
#[derive(Debug, Clone, Default)]
pub struct BatchStatistics {
    /// Means.
    pub mean: Vec<f64>,
    /// Biased variances.
    pub var: Vec<f64>,
}

/// How a batch's statistics enter the running ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Momentum {
    /// New = (1 - share) old + share batch; PyTorch's default share is 0.1.
    Exponential(f64),
    /// The mean of all batches; the value is the number of batches so far, this one included.
    Cumulative(u64),
}

impl Momentum {
    /// The batch's share.
    #[must_use]
    pub fn share(self) -> f64 {
        match self {
            Self::Exponential(share) => share,
            Self::Cumulative(batches) => 1.0 / batches.max(1) as f64,
        }
    }
}

impl BatchStatistics {
    /// Measures `x` (rows x channels), in two passes and f64.
    pub fn measure<T: Float>(&mut self, work: &mut Workspace<T>, x: &[T], channels: usize) {
        let rows = (x.len() / channels) as f64;
        let sums = over_rows(x, channels, channels, &mut work.partials, |row, _, sums| {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value.f64());
        });
        self.mean.clear();
        self.mean.extend(sums.iter().map(|sum| sum / rows));
        let mean = &self.mean;
        let squares = over_rows(x, channels, channels, &mut work.partials, |row, _, sums| {
            for ((sum, value), mean) in sums.iter_mut().zip(row).zip(mean) {
                *sum += (value.f64() - mean).powi(2);
            }
        });
        self.var.clear();
        self.var.extend(squares.iter().map(|square| square / rows));
    }

    /// Moves running statistics towards these, of a batch with `rows` rows. The running variance is the unbiased one.
    pub fn update_running<T: Float>(&self, rows: usize, momentum: Momentum, mean: &mut [T], var: &mut [T]) {
        let share = momentum.share();
        let unbiased = rows as f64 / rows.saturating_sub(1).max(1) as f64;
        let blend = |old: &mut T, new: f64| *old = T::of((1.0 - share) * old.f64() + share * new);
        mean.iter_mut().zip(&self.mean).for_each(|(old, new)| blend(old, *new));
        var.iter_mut().zip(&self.var).for_each(|(old, new)| blend(old, new * unbiased));
    }
}

/// Elements that constants of channels are repeated up to, row after row: so long is the innermost loop, even where rows are short.
const LOOP: usize = 256;

/// The constants of a row's channels, for several rows at once.
fn of_rows<T: Copy>(of_row: &[T]) -> Vec<T> {
    of_row.repeat((LOOP / of_row.len().max(1)).max(1))
}

/// One factor and one summand per channel: `y = factor x + summand`.
#[derive(Debug, Clone, Default)]
pub struct Affine<T> {
    /// Of several rows, as are the summands.
    factor: Vec<T>,
    summand: Vec<T>,
}

impl<T: Float> Affine<T> {
    /// `(x - mean) / sqrt(var + eps) * weight + bias`, for an iterator of (mean, var, weight, bias).
    pub fn set(&mut self, eps: f64, channels: impl Iterator<Item = (f64, f64, T, T)>) {
        let constants = channels.map(|(mean, var, weight, bias)| {
            let factor = weight.f64() / (var + eps).sqrt();
            (T::of(factor), T::of(bias.f64() - mean * factor))
        });
        let (factor, summand): (Vec<T>, Vec<T>) = constants.unzip();
        (self.factor, self.summand) = (of_rows(&factor), of_rows(&summand));
    }

    /// Applies it to `x` (rows x channels), then ReLU if wanted.
    pub fn apply(&self, x: &[T], relu: bool, y: &mut [T]) {
        let width = self.factor.len();
        let piece = (PIECE / width).max(1) * width;
        y.par_chunks_mut(piece).zip(x.par_chunks(piece)).for_each(|(y, x)| {
            for (y, x) in y.chunks_mut(width).zip(x.chunks(width)) {
                for (((y, x), factor), summand) in y.iter_mut().zip(x).zip(&self.factor).zip(&self.summand) {
                    let value = *x * *factor + *summand;
                    *y = if relu { positive(value) } else { value };
                }
            }
        });
    }
}

/// What the gradients need besides x and dy: the batch's statistics and the layer's constants.
#[derive(Debug, Clone, Copy)]
pub struct Backward<'a, T> {
    /// Statistics of the forward pass.
    pub statistics: &'a BatchStatistics,
    /// The layer's factors.
    pub weight: &'a [T],
    /// Added to the variance.
    pub eps: f64,
}

impl<T: Float> Backward<'_, T> {
    /// `dweight = sum dy x̂`, `dbias = sum dy`, x̂ the normalised input.
    pub fn parameters(&self, work: &mut Workspace<T>, x: &[T], dy: &[T], dweight: &mut [T], dbias: &mut [T]) {
        let channels = self.weight.len();
        let mean = &self.statistics.mean;
        let sums = over_rows(dy, channels, 2 * channels, &mut work.partials, |dy, row, sums| {
            let (of_product, of_dy) = sums.split_at_mut(channels);
            let x = &x[row * channels..][..channels];
            for (c, (dy, x)) in dy.iter().zip(x).enumerate() {
                of_product[c] += dy.f64() * (x.f64() - mean[c]);
                of_dy[c] += dy.f64();
            }
        });
        for c in 0..channels {
            dweight[c] = T::of(sums[c] * self.inverse_deviation(c));
            dbias[c] = T::of(sums[channels + c]);
        }
    }

    /// `dx = weight / sqrt(var + eps) (dy - mean(dy) - x̂ mean(dy x̂))`, from the gradients of [`Self::parameters`].
    pub fn input(&self, x: &[T], dy: &[T], dweight: &[T], dbias: &[T], dx: &mut [T], accumulate: bool) {
        let channels = self.weight.len();
        let rows = (x.len() / channels) as f64;
        // dx = a dy + b x + c, channel by channel.
        let line = |c: usize| {
            let inverse = self.inverse_deviation(c);
            let a = self.weight[c].f64() * inverse;
            let b = -a * inverse * dweight[c].f64() / rows;
            ((T::of(a), T::of(b)), T::of(-a * dbias[c].f64() / rows - b * self.statistics.mean[c]))
        };
        let (slopes, constants): (Vec<(T, T)>, Vec<T>) = (0..channels).map(line).unzip();
        let (slopes, constants) = (of_rows(&slopes), of_rows(&constants));
        let width = constants.len();
        let piece = (PIECE / width).max(1) * width;
        dx.par_chunks_mut(piece).zip(x.par_chunks(piece)).zip(dy.par_chunks(piece)).for_each(|((dx, x), dy)| {
            let rows = dx.chunks_mut(width).zip(x.chunks(width)).zip(dy.chunks(width));
            for ((dx, x), dy) in rows {
                for ((((dx, x), dy), (a, b)), c) in dx.iter_mut().zip(x).zip(dy).zip(&slopes).zip(&constants) {
                    let gradient = *a * *dy + *b * *x + *c;
                    *dx = if accumulate { *dx + gradient } else { gradient };
                }
            }
        });
    }

    fn inverse_deviation(&self, channel: usize) -> f64 {
        1.0 / (self.statistics.var[channel] + self.eps).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample, workspace};

    const EPS: f64 = 1e-5;

    fn forward(x: &[f64], w: &[f64], b: &[f64]) -> (BatchStatistics, Vec<f64>) {
        let (mut statistics, mut affine, mut y) = (BatchStatistics::default(), Affine::default(), vec![0.0; x.len()]);
        statistics.measure(&mut workspace(), x, w.len());
        affine.set(EPS, (0..w.len()).map(|c| (statistics.mean[c], statistics.var[c], w[c], b[c])));
        affine.apply(x, false, &mut y);
        (statistics, y)
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let (x, w, b, c) = (sample(21, 1), sample(3, 2), sample(3, 3), sample(21, 4));
        let (statistics, _) = forward(&x, &w, &b);
        let backward = Backward { statistics: &statistics, weight: &w, eps: EPS };
        let (mut dx, mut dw, mut db) = (sample(21, 5), vec![0.0; 3], vec![0.0; 3]);
        let before = dx.clone();
        backward.parameters(&mut workspace(), &x, &c, &mut dw, &mut db);
        backward.input(&x, &c, &dw, &db, &mut dx, true);
        dx.iter_mut().zip(&before).for_each(|(dx, before)| *dx -= before);
        assert_gradient("x", &x, &dx, |x| projection(&forward(x, &w, &b).1, &c));
        assert_gradient("weight", &w, &dw, |w| projection(&forward(&x, w, &b).1, &c));
        assert_gradient("bias", &b, &db, |b| projection(&forward(&x, &w, b).1, &c));
    }

    #[test]
    fn running_statistics_follow_pytorch() {
        let mut statistics = BatchStatistics::default();
        statistics.measure(&mut workspace(), &[1.0, 10.0, 3.0, 14.0], 2);
        assert_eq!((&statistics.mean[..], &statistics.var[..]), (&[2.0, 12.0][..], &[1.0, 4.0][..]));
        let (mut mean, mut var) = (vec![0.0_f64; 2], vec![1.0; 2]);
        statistics.update_running(2, Momentum::Exponential(0.1), &mut mean, &mut var);
        for (got, expected) in mean.iter().chain(&var).zip([0.2, 1.2, 1.1, 1.7]) {
            assert!((got - expected).abs() < 1e-12, "{got} for {expected}");
        }
        statistics.update_running(2, Momentum::Cumulative(1), &mut mean, &mut var);
        assert_eq!((&mean[..], &var[..]), (&[2.0, 12.0][..], &[2.0, 8.0][..]));
    }
}
