//! Convolutions with a kernel for each channel by itself: no products of matrices, but sums along the channels.

use rayon::prelude::*;

use crate::kernels::elementwise::finish_piece;
use crate::kernels::reduce::column_sums;
use crate::kernels::workspace::scratch;
use crate::kernels::{Float, Geometry, Workspace};

/// Most parts that the sum over all positions is split into; fixed, so that it does not depend on the number of threads.
const PARTS: usize = 16;

/// Sizes of a depthwise convolution with as many outputs as inputs; weights are (taps x channels).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depthwise {
    /// How the kernels slide.
    pub geometry: Geometry,
}

impl Depthwise {
    /// `y = w * x + b`, then ReLU if wanted; a line of the output at a time.
    pub fn forward<T: Float>(&self, x: &[T], weight: &[T], bias: Option<&[T]>, relu: bool, y: &mut [T]) {
        let g = &self.geometry;
        let line_len = g.input[1] * g.channels;
        y.par_chunks_mut(g.output[1] * g.channels).enumerate().for_each(|(line, y)| {
            let (image, oy) = (line / g.output[0], line % g.output[0]);
            let mut pairs = Vec::with_capacity(g.taps());
            for (ox, y) in y.chunks_exact_mut(g.channels).enumerate() {
                pairs.clear();
                for (ky, iy) in (0..g.kernel[0]).filter_map(|ky| Some((ky, g.source(0, oy, ky)?))) {
                    let start = (image * g.input[0] + iy) * line_len;
                    pairs.extend(self.taps(ky, |kx| g.source(1, ox, kx)).map(|(i, tap)| (start + i, tap)));
                }
                sum_products(&pairs, x, weight, y, false);
            }
            finish_piece(y, g.channels, bias, relu);
        });
    }

    /// Gradient of the input: `dx = ` or `dx +=`; a line of the input at a time.
    pub fn backward_input<T: Float>(&self, dy: &[T], weight: &[T], dx: &mut [T], accumulate: bool) {
        let g = &self.geometry;
        let line_len = g.output[1] * g.channels;
        dx.par_chunks_mut(g.input[1] * g.channels).enumerate().for_each(|(line, dx)| {
            let (image, iy) = (line / g.input[0], line % g.input[0]);
            let mut pairs = Vec::with_capacity(g.taps());
            for (ix, dx) in dx.chunks_exact_mut(g.channels).enumerate() {
                pairs.clear();
                for (ky, oy) in (0..g.kernel[0]).filter_map(|ky| Some((ky, g.target(0, iy, ky)?))) {
                    let start = (image * g.output[0] + oy) * line_len;
                    pairs.extend(self.taps(ky, |kx| g.target(1, ix, kx)).map(|(o, tap)| (start + o, tap)));
                }
                sum_products(&pairs, dy, weight, dx, accumulate);
            }
        });
    }

    /// Gradients of kernels and bias.
    pub fn backward_parameters<T: Float>(
        &self,
        work: &mut Workspace<T>,
        x: &[T],
        dy: &[T],
        dweight: &mut [T],
        dbias: Option<&mut [T]>,
    ) {
        if let Some(dbias) = dbias {
            column_sums(dy, work, dbias);
        }
        let g = &self.geometry;
        let line_len = g.output[1] * g.channels;
        let all = dy.len() / line_len;
        let lines = all.div_ceil(PARTS);
        let sums = scratch(&mut work.sums, all.div_ceil(lines) * dweight.len());
        sums.par_chunks_mut(dweight.len()).enumerate().for_each(|(part, sums)| {
            sums.fill(T::ZERO);
            let mut pairs = Vec::with_capacity(g.output[1]);
            for line in part * lines..((part + 1) * lines).min(all) {
                for (tap, sums) in sums.chunks_exact_mut(g.channels).enumerate() {
                    let Some(iy) = g.source(0, line % g.output[0], tap / g.kernel[1]) else { continue };
                    let start = (line / g.output[0] * g.input[0] + iy) * g.input[1] * g.channels;
                    let seen = |o| Some((start + g.source(1, o, tap % g.kernel[1])? * g.channels, o));
                    pairs.clear();
                    pairs.extend((0..g.output[1]).filter_map(seen).map(|(i, o)| (i, line * line_len + o * g.channels)));
                    sum_products(&pairs, x, dy, sums, true);
                }
            }
        });
        dweight.fill(T::ZERO);
        for part in sums.chunks_exact(dweight.len()) {
            dweight.iter_mut().zip(part).for_each(|(weight, sum)| *weight += *sum);
        }
    }

    /// Of row `ky` of the kernel every offset that meets a column: where the column starts, and the kernel's values.
    fn taps(&self, ky: usize, meets: impl Fn(usize) -> Option<usize>) -> impl Iterator<Item = (usize, usize)> {
        let (columns, channels) = (self.geometry.kernel[1], self.geometry.channels);
        (0..columns).filter_map(move |kx| Some((meets(kx)? * channels, (ky * columns + kx) * channels)))
    }
}

/// Channels whose sums are kept in registers.
const LANES: usize = 16;

/// `out = ` or `out += ` the sum of `a b` over all `pairs` of places, channel by channel.
fn sum_products<T: Float>(pairs: &[(usize, usize)], a: &[T], b: &[T], out: &mut [T], accumulate: bool) {
    for (index, out) in out.chunks_mut(LANES).enumerate() {
        let (first, len) = (index * LANES, out.len());
        let mut sums = [T::ZERO; LANES];
        if accumulate {
            sums[..len].copy_from_slice(out);
        }
        if len == LANES {
            for (at, bt) in pairs {
                let (a, b) = (&a[at + first..][..LANES], &b[bt + first..][..LANES]);
                sums.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += *a * *b);
            }
        } else {
            for (at, bt) in pairs {
                let (a, b) = (&a[at + first..][..len], &b[bt + first..][..len]);
                sums.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += *a * *b);
            }
        }
        out.copy_from_slice(&sums[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::conv::Conv;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample, workspace};
    use crate::kernels::layout::channels_first;

    fn depthwise(input: [usize; 2], kernel: [usize; 2], stride: [usize; 2], dilation: [usize; 2]) -> Depthwise {
        let padding = [kernel[0] / 2, kernel[1] / 2];
        let reach = |i: usize| (kernel[i] - 1) * dilation[i] + 1;
        let output = [0, 1].map(|i| (input[i] + 2 * padding[i] - reach(i)) / stride[i] + 1);
        Depthwise { geometry: Geometry { channels: 3, input, output, kernel, stride, padding, dilation } }
    }

    #[test]
    fn equals_the_grouped_convolution_and_its_finite_differences() {
        for conv in [
            depthwise([5, 6], [3, 3], [1, 1], [1, 1]),
            depthwise([6, 5], [3, 2], [2, 3], [1, 1]),
            depthwise([1, 9], [1, 5], [1, 2], [1, 1]),
            depthwise([7, 7], [3, 3], [1, 2], [3, 2]),
            depthwise([2, 2], [5, 5], [1, 1], [1, 1]),
        ] {
            let g = conv.geometry;
            let (x, w) = (sample(3 * g.input_len(), 1), sample(3 * g.taps(), 2));
            let (b, c) = (sample(3, 3), sample(3 * 3 * g.positions(), 4));
            let forward = |x: &[f64], w: &[f64], b: &[f64]| {
                let mut y = vec![0.0; c.len()];
                conv.forward(x, w, Some(b), false, &mut y);
                y
            };
            let mut kernels = vec![0.0; w.len()];
            channels_first(3, g.taps(), &w, &mut kernels, false);
            let mut expected = vec![0.0; c.len()];
            let grouped = Conv { geometry: g, out_channels: 3, groups: 3 };
            grouped.forward(&mut workspace(), &x, &kernels, Some(&b), false, &mut expected);
            for (got, expected) in forward(&x, &w, &b).iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-12, "{conv:?}: {got} for {expected}");
            }
            let (mut dx, mut dw, mut db) = (sample(x.len(), 5), vec![0.0; w.len()], vec![0.0; 3]);
            let before = dx.clone();
            conv.backward_parameters(&mut workspace(), &x, &c, &mut dw, Some(&mut db));
            conv.backward_input(&c, &w, &mut dx, true);
            dx.iter_mut().zip(&before).for_each(|(dx, before)| *dx -= before);
            assert_gradient("x", &x, &dx, |x| projection(&forward(x, &w, &b), &c));
            assert_gradient("weight", &w, &dw, |w| projection(&forward(&x, w, &b), &c));
            assert_gradient("bias", &b, &db, |b| projection(&forward(&x, &w, b), &c));
        }
    }
}
