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
    /// `y = w * x + b`, then ReLU if asked; a line of the output at a time.
    pub fn forward<T: Float>(&self, x: &[T], weight: &[T], bias: Option<&[T]>, relu: bool, y: &mut [T]) {
        let g = &self.geometry;
        y.par_chunks_mut(g.output[1] * g.channels).enumerate().for_each(|(line, y)| {
            y.fill(T::ZERO);
            self.rows(line, |from, taps| {
                let (x, weight) = (self.input_line(x, line, from), &weight[taps * g.channels..]);
                self.pairs(|o, i, kx| {
                    let factors = &weight[kx * g.channels..][..g.channels];
                    add_product(pixel(y, o, g.channels), &x[i * g.channels..][..g.channels], factors);
                });
            });
            finish_piece(y, g.channels, bias, relu);
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
        let lines = (dy.len() / line_len).div_ceil(PARTS);
        let parts = (dy.len() / line_len).div_ceil(lines);
        let sums = scratch(&mut work.sums, parts * dweight.len());
        let tasks = sums.par_chunks_mut(dweight.len()).zip(dy.par_chunks(lines * line_len)).enumerate();
        tasks.for_each(|(part, (sums, dy))| {
            sums.fill(T::ZERO);
            for (index, dy) in dy.chunks_exact(line_len).enumerate() {
                let line = part * lines + index;
                self.rows(line, |from, taps| {
                    let (x, sums) = (self.input_line(x, line, from), &mut sums[taps * g.channels..]);
                    self.pairs(|o, i, kx| {
                        let (x, dy) = (&x[i * g.channels..][..g.channels], &dy[o * g.channels..][..g.channels]);
                        add_product(pixel(sums, kx, g.channels), x, dy);
                    });
                });
            }
        });
        dweight.fill(T::ZERO);
        for part in sums.chunks_exact(dweight.len()) {
            dweight.iter_mut().zip(part).for_each(|(weight, sum)| *weight += *sum);
        }
    }

    /// Gradient of the input: `dx = ` or `dx +=`; a line of the input at a time.
    pub fn backward_input<T: Float>(&self, dy: &[T], weight: &[T], dx: &mut [T], accumulate: bool) {
        let g = &self.geometry;
        dx.par_chunks_mut(g.input[1] * g.channels).enumerate().for_each(|(line, dx)| {
            if !accumulate {
                dx.fill(T::ZERO);
            }
            let (image, iy) = (line / g.input[0], line % g.input[0]);
            for ky in 0..g.kernel[0] {
                let Some(oy) = g.target(0, iy, ky) else { continue };
                let dy = &dy[(image * g.output[0] + oy) * g.output[1] * g.channels..][..g.output[1] * g.channels];
                let weight = &weight[ky * g.kernel[1] * g.channels..];
                self.pairs(|o, i, kx| {
                    let factors = &weight[kx * g.channels..][..g.channels];
                    add_product(pixel(dx, i, g.channels), &dy[o * g.channels..][..g.channels], factors);
                });
            }
        });
    }

    /// Calls `each` with the input's row and the first tap for every row of the kernel that lies on the image.
    fn rows(&self, line: usize, mut each: impl FnMut(usize, usize)) {
        let g = &self.geometry;
        for ky in 0..g.kernel[0] {
            if let Some(iy) = g.source(0, line % g.output[0], ky) {
                each(iy, ky * g.kernel[1]);
            }
        }
    }

    /// Row `iy` of the image that line `line` of the output belongs to.
    fn input_line<'a, T>(&self, x: &'a [T], line: usize, iy: usize) -> &'a [T] {
        let g = &self.geometry;
        let len = g.input[1] * g.channels;
        &x[(line / g.output[0] * g.input[0] + iy) * len..][..len]
    }

    /// Calls `each` with every column of the output, every column of the input that it sees, and the tap.
    fn pairs(&self, mut each: impl FnMut(usize, usize, usize)) {
        let g = &self.geometry;
        for o in 0..g.output[1] {
            for kx in 0..g.kernel[1] {
                if let Some(i) = g.source(1, o, kx) {
                    each(o, i, kx);
                }
            }
        }
    }
}

fn pixel<T>(line: &mut [T], at: usize, channels: usize) -> &mut [T] {
    &mut line[at * channels..][..channels]
}

/// `sum += a b`, channel by channel.
fn add_product<T: Float>(sum: &mut [T], a: &[T], b: &[T]) {
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum += *a * *b;
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
