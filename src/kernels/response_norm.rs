//! Global response normalisation (Woo et al. 2023): each channel is raised by how strong it is among all, over the whole image.

use rayon::prelude::*;

use crate::kernels::Float;
use crate::kernels::group_norm::Scale;

/// Sizes of a normalisation; examples are (positions x channels).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResponseNorm {
    /// Number of channels.
    pub channels: usize,
    /// Number of positions.
    pub positions: usize,
    /// Added to the mean of the norms.
    pub eps: f64,
}

/// What [`ResponseNorm::forward`] leaves behind: for each example the norm of every channel, and their mean plus eps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Responses {
    norms: Vec<f64>,
    means: Vec<f64>,
}

impl ResponseNorm {
    fn example(&self) -> usize {
        self.channels * self.positions
    }

    /// `y = x + weight x n + bias`, n the channel's norm over the mean of all.
    pub fn forward<T: Float>(&self, x: &[T], scale: Scale<'_, T>, responses: &mut Responses, y: &mut [T]) {
        let count = x.len() / self.example();
        responses.norms.resize(count * self.channels, 0.0);
        responses.means.resize(count, 0.0);
        let (norms, means) = (responses.norms.par_chunks_mut(self.channels), responses.means.par_iter_mut());
        let examples = y.par_chunks_mut(self.example()).zip(x.par_chunks(self.example()));
        examples.zip(norms.zip(means)).for_each(|((y, x), (norms, mean))| {
            norms.fill(0.0);
            for pixel in x.chunks_exact(self.channels) {
                norms.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += x.f64() * x.f64());
            }
            for norm in &mut *norms {
                *norm = norm.sqrt();
            }
            *mean = norms.iter().sum::<f64>() / self.channels as f64 + self.eps;
            for (y, x) in y.chunks_exact_mut(self.channels).zip(x.chunks_exact(self.channels)) {
                for (c, (y, x)) in y.iter_mut().zip(x).enumerate() {
                    *y = *x + scale.weight[c] * *x * T::of(norms[c] / *mean) + scale.bias[c];
                }
            }
        });
    }

    /// `sum over the positions of dy x`, channel by channel, of one example.
    fn products<T: Float>(&self, x: &[T], dy: &[T]) -> Vec<f64> {
        let mut sums = vec![0.0; self.channels];
        for (x, dy) in x.chunks_exact(self.channels).zip(dy.chunks_exact(self.channels)) {
            sums.iter_mut().zip(x.iter().zip(dy)).for_each(|(sum, (x, dy))| *sum += x.f64() * dy.f64());
        }
        sums
    }

    /// `dweight = sum dy x n`, `dbias = sum dy`.
    pub fn backward_parameters<T: Float>(
        &self,
        x: &[T],
        dy: &[T],
        responses: &Responses,
        [dweight, dbias]: [&mut [T]; 2],
    ) {
        let [mut weights, mut biases] = [vec![0.0; self.channels], vec![0.0; self.channels]];
        let examples = x.chunks_exact(self.example()).zip(dy.chunks_exact(self.example()));
        for ((x, dy), (norms, mean)) in examples.zip(responses.norms.chunks_exact(self.channels).zip(&responses.means))
        {
            let products = self.products(x, dy);
            for ((sum, product), norm) in weights.iter_mut().zip(products).zip(norms) {
                *sum += product * norm / mean;
            }
            for dy in dy.chunks_exact(self.channels) {
                biases.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy.f64());
            }
        }
        dweight.iter_mut().zip(weights).for_each(|(gradient, sum)| *gradient = T::of(sum));
        dbias.iter_mut().zip(biases).for_each(|(gradient, sum)| *gradient = T::of(sum));
    }

    /// The gradient of the operand, written or added.
    pub fn backward_input<T: Float>(
        &self,
        [x, dy, weight]: [&[T]; 3],
        responses: &Responses,
        dx: &mut [T],
        accumulate: bool,
    ) {
        let (norms, means) = (responses.norms.par_chunks(self.channels), responses.means.par_iter());
        let examples = dx.par_chunks_mut(self.example()).zip(x.par_chunks(self.example()));
        examples.zip(dy.par_chunks(self.example())).zip(norms.zip(means)).for_each(|(((dx, x), dy), (norms, mean))| {
            // By the share n, and from there by the norm g: n = g / m, m = mean(g) + eps.
            let by_share: Vec<f64> =
                self.products(x, dy).into_iter().zip(weight).map(|(product, weight)| product * weight.f64()).collect();
            let all: f64 = by_share.iter().zip(norms).map(|(slope, norm)| slope * norm).sum();
            let common = all / (mean * mean * self.channels as f64);
            let by_value = |c: usize| if norms[c] > 0.0 { (by_share[c] / mean - common) / norms[c] } else { 0.0 };
            let slopes: Vec<(f64, f64)> =
                (0..self.channels).map(|c| (1.0 + weight[c].f64() * norms[c] / mean, by_value(c))).collect();
            let pixels = dx.chunks_exact_mut(self.channels).zip(x.chunks_exact(self.channels));
            for ((dx, x), dy) in pixels.zip(dy.chunks_exact(self.channels)) {
                for (((dx, x), dy), (factor, slope)) in dx.iter_mut().zip(x).zip(dy).zip(&slopes) {
                    let gradient = T::of(dy.f64() * factor + x.f64() * slope);
                    *dx = if accumulate { *dx + gradient } else { gradient };
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample};

    #[test]
    fn gradients_equal_finite_differences() {
        let sizes = ResponseNorm { channels: 3, positions: 5, eps: 1e-6 };
        let [x, c] = [sample(30, 1), sample(30, 2)];
        let [weight, bias] = [sample(3, 3), sample(3, 4)];
        let run = |x: &[f64], weight: &[f64], bias: &[f64]| {
            let (mut responses, mut y) = (Responses::default(), vec![0.0; 30]);
            sizes.forward(x, Scale { weight, bias }, &mut responses, &mut y);
            (projection(&y, &c), responses)
        };
        let responses = run(&x, &weight, &bias).1;
        let mut dx = vec![0.25; 30];
        sizes.backward_input([&x, &c, &weight], &responses, &mut dx, true);
        for dx in &mut dx {
            *dx -= 0.25;
        }
        assert_gradient("x", &x, &dx, |x| run(x, &weight, &bias).0);
        let [mut dweight, mut dbias] = [vec![0.0; 3], vec![0.0; 3]];
        sizes.backward_parameters(&x, &c, &responses, [&mut dweight, &mut dbias]);
        assert_gradient("weight", &weight, &dweight, |weight| run(&x, weight, &bias).0);
        assert_gradient("bias", &bias, &dbias, |bias| run(&x, &weight, bias).0);
    }
}
