//! Convolutions as in PyTorch (cross-correlation): tiles read their windows where they lie in the image, padding included, so
//! that nothing is unfolded. Of grouped channels each group is a convolution of its own, on its part of every pixel.

use rayon::prelude::*;

use crate::kernels::panels::Panels;
use crate::kernels::product::TileSpan;
use crate::kernels::reduce::column_sums;
use crate::kernels::tile::ROWS;
use crate::kernels::workspace::scratch;
use crate::kernels::{Epilogue, Float, Geometry, Matrix, Workspace, product};

mod depthwise;
mod input_gradient;
mod padded;
mod sums;
mod weight_gradient;

use padded::Padded;
use sums::window_sums;

pub use depthwise::Depthwise;

/// Positions that a task computes for a panel; images are taken together up to it.
const POSITIONS: usize = 64;

/// Sizes of a convolution; weights are OHWI, I the input channels of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv {
    /// How the kernel slides.
    pub geometry: Geometry,
    /// Channels of the output.
    pub out_channels: usize,
    /// Groups of channels, each of which reads and writes its own.
    pub groups: usize,
}

/// Pieces of a window that lie in the image without a gap: where they start from the window's first pixel on, and their
/// length.
#[derive(Debug)]
struct Pieces {
    starts: Vec<usize>,
    len: usize,
}

/// Images with their padding, and how windows lie in them.
#[derive(Debug)]
struct PaddedImages<'x, T> {
    padded: Padded,
    pieces: Pieces,
    x: &'x [T],
}

impl Conv {
    /// `y = w * x + b`, then ReLU if wanted.
    pub fn forward<T: Float>(
        &self,
        work: &mut Workspace<T>,
        x: &[T],
        weight: &[T],
        bias: Option<&[T]>,
        relu: bool,
        y: &mut [T],
    ) {
        let epilogue = Epilogue { bias, relu, accumulate: false };
        if self.is_product() {
            return product(work, self.windows(x), self.weights(weight).transposed(), epilogue, y);
        }
        let threads = work.threads().get();
        let Workspace { panels, lanes, images, .. } = work;
        let panels = self.pack(weight, panels);
        if x.len() / self.geometry.input_len() < threads {
            let images = self.pad(x, images);
            return y.par_chunks_mut(POSITIONS * self.out_channels).enumerate().for_each(|(index, y)| {
                self.correlate(&images, index * POSITIONS, &panels, epilogue, y);
            });
        }
        let group = POSITIONS.div_ceil(self.geometry.positions());
        let (input, output) =
            (group * self.geometry.input_len(), group * self.geometry.positions() * self.out_channels);
        y.par_chunks_mut(output).zip(x.par_chunks(input)).for_each(|(y, x)| {
            let lane = &mut *lanes.take();
            self.correlate(&self.pad(x, &mut lane.images), 0, &panels, epilogue, y);
        });
    }

    fn pad<'x, T: Float>(&self, x: &'x [T], buffer: &'x mut Vec<T>) -> PaddedImages<'x, T> {
        let (padded, x) = Padded::pad_input(&self.geometry, x, buffer);
        PaddedImages { padded, pieces: self.pieces(&padded), x }
    }

    /// Whether the convolution is a product of the pixels and a matrix.
    fn is_product(&self) -> bool {
        self.groups == 1 && self.geometry.is_pointwise()
    }

    /// Channels of a group: of the input, of the output.
    fn of_group(&self) -> (usize, usize) {
        (self.geometry.channels / self.groups, self.out_channels / self.groups)
    }

    /// Weights of an output channel.
    fn kernel_len(&self) -> usize {
        self.geometry.channels / self.groups * self.geometry.taps()
    }

    /// The kernels of each group as panels, (window x output channel).
    fn pack<'p, T: Float>(&self, weight: &[T], buffer: &'p mut Vec<T>) -> Vec<Panels<'p, T>> {
        let (depth, outputs) = (self.kernel_len(), self.of_group().1);
        let len = Panels::<T>::len(depth, outputs);
        let buffers = scratch(buffer, self.groups * len).chunks_exact_mut(len);
        let kernels = weight.chunks_exact(outputs * depth);
        let pack = |(kernel, data)| Panels::pack_into(Matrix::new(kernel, outputs, depth).transposed(), data);
        kernels.zip(buffers).map(pack).collect()
    }

    /// How a group's window lies in an image with its padding, from the group's first channel on.
    fn pieces(&self, padded: &Padded) -> Pieces {
        let g = &self.geometry;
        let lines = (0..g.kernel[0]).map(|ky| ky * g.dilation[0] * padded.line());
        if self.groups == 1 && (g.dilation[1] == 1 || g.kernel[1] == 1) {
            return Pieces { starts: lines.collect(), len: g.kernel[1] * g.channels };
        }
        let columns = |line: usize| (0..g.kernel[1]).map(move |kx| line + kx * g.dilation[1] * g.channels);
        Pieces { starts: lines.flat_map(columns).collect(), len: self.of_group().0 }
    }

    /// The output at the positions from `from` on, through all images.
    fn correlate<T: Float>(
        &self,
        images: &PaddedImages<T>,
        from: usize,
        panels: &[Panels<T>],
        epilogue: Epilogue<T>,
        y: &mut [T],
    ) {
        for (group, panels) in panels.iter().enumerate() {
            self.correlate_group(images, from, group, panels, epilogue, y);
        }
    }

    fn correlate_group<T: Float>(
        &self,
        PaddedImages { padded, pieces, x }: &PaddedImages<T>,
        from: usize,
        group: usize,
        panels: &Panels<T>,
        epilogue: Epilogue<T>,
        y: &mut [T],
    ) {
        let (g, width, (inputs, outputs)) = (&self.geometry, panels.tile.columns, self.of_group());
        let starts = pieces.starts.iter().map(|start| start + group * inputs);
        let count = y.len() / self.out_channels;
        let window = |position: usize| {
            let (image, within) = ((from + position) / g.positions(), (from + position) % g.positions());
            let (oy, ox) = (within / g.output[1], within % g.output[1]);
            image * padded.len() + oy * g.stride[0] * padded.line() + ox * g.stride[1] * g.channels
        };
        window_sums((starts, pieces.len), x, panels, count, window, |sums, top, panel| {
            let rows: [usize; ROWS] = std::array::from_fn(|r| (top + r) * self.out_channels);
            let rows = &rows[..ROWS.min(count - top)];
            let column = group * outputs + panel.column;
            epilogue.write(sums, width, &TileSpan { rows, column, columns: panel.columns }, y);
        });
    }

    /// Gradients of kernel and bias.
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
        if self.is_product() && dy.len() / self.out_channels <= weight_gradient::FEW_POSITIONS {
            return product(work, self.outputs(dy).transposed(), self.windows(x), Epilogue::PLAIN, dweight);
        }
        weight_gradient::weight_gradient(self, work, x, dy, dweight);
    }

    /// Gradient of the input: `dx = ` or `dx +=`.
    pub fn backward_input<T: Float>(
        &self,
        work: &mut Workspace<T>,
        dy: &[T],
        weight: &[T],
        dx: &mut [T],
        accumulate: bool,
    ) {
        if self.is_product() {
            return product(work, self.outputs(dy), self.weights(weight), Epilogue::adding(accumulate), dx);
        }
        input_gradient::input_gradient(self, work, dy, weight, dx, accumulate);
    }

    fn weights<'a, T>(&self, weight: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(weight, self.out_channels, self.kernel_len())
    }

    fn windows<'a, T>(&self, columns: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(columns, columns.len() / self.kernel_len(), self.kernel_len())
    }

    fn outputs<'a, T>(&self, y: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(y, y.len() / self.out_channels, self.out_channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample, workspace};

    fn conv(input: [usize; 2], kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Conv {
        dilated(input, kernel, stride, padding, [1, 1])
    }

    fn dilated(
        input: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        dilation: [usize; 2],
    ) -> Conv {
        let reach = |i: usize| (kernel[i] - 1) * dilation[i] + 1;
        let output = [0, 1].map(|i| (input[i] + 2 * padding[i] - reach(i)) / stride[i] + 1);
        let geometry = Geometry { channels: 2, input, output, kernel, stride, padding, dilation };
        Conv { geometry, out_channels: 3, groups: 1 }
    }

    /// A convolution with channels in groups of 2 inputs and 3 outputs.
    fn grouped(conv: Conv, groups: usize) -> Conv {
        let geometry = Geometry { channels: 2 * groups, ..conv.geometry };
        Conv { geometry, out_channels: 3 * groups, groups }
    }

    /// The definition, with six loops.
    fn naive(conv: &Conv, x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
        let g = &conv.geometry;
        let mut y = Vec::new();
        for image in x.chunks(g.input_len()) {
            for (oy, ox) in (0..g.output[0]).flat_map(|oy| (0..g.output[1]).map(move |ox| (oy, ox))) {
                let (inputs, outputs) = conv.of_group();
                for o in 0..conv.out_channels {
                    let mut sum = b[o];
                    for (ky, kx) in (0..g.kernel[0]).flat_map(|ky| (0..g.kernel[1]).map(move |kx| (ky, kx))) {
                        let (Some(iy), Some(ix)) = (g.source(0, oy, ky), g.source(1, ox, kx)) else { continue };
                        for c in 0..inputs {
                            let weight = w[((o * g.kernel[0] + ky) * g.kernel[1] + kx) * inputs + c];
                            sum += image[(iy * g.input[1] + ix) * g.channels + o / outputs * inputs + c] * weight;
                        }
                    }
                    y.push(sum);
                }
            }
        }
        y
    }

    #[test]
    fn equals_the_definition_and_its_finite_differences() {
        let cases = [
            conv([5, 6], [3, 3], [1, 1], [1, 1]),
            conv([7, 5], [3, 2], [2, 3], [0, 1]),
            conv([4, 4], [1, 1], [1, 1], [0, 0]),
            conv([5, 4], [1, 1], [2, 2], [0, 0]),
            conv([2, 2], [5, 5], [1, 1], [2, 2]),
            conv([3, 1], [3, 3], [1, 1], [3, 3]),
            dilated([7, 8], [3, 2], [1, 2], [2, 0], [2, 3]),
            dilated([6, 5], [2, 3], [3, 2], [1, 2], [3, 2]),
            dilated([6, 5], [3, 1], [1, 1], [1, 0], [1, 4]),
            grouped(conv([5, 4], [3, 3], [2, 1], [1, 1]), 2),
            grouped(dilated([6, 7], [2, 2], [1, 2], [1, 1], [2, 3]), 3),
            grouped(conv([3, 3], [1, 1], [1, 1], [0, 0]), 2),
        ];
        for conv in cases {
            let g = conv.geometry;
            let (x, w) = (sample(3 * g.input_len(), 1), sample(conv.out_channels * conv.kernel_len(), 2));
            let (b, c) = (sample(conv.out_channels, 3), sample(3 * conv.out_channels * g.positions(), 4));
            let mut y = vec![0.0; c.len()];
            conv.forward(&mut workspace(), &x, &w, Some(&b), false, &mut y);
            for (got, expected) in y.iter().zip(naive(&conv, &x, &w, &b)) {
                assert!((got - expected).abs() < 1e-12, "{conv:?}: {got} for {expected}");
            }
            let (mut dx, mut dw, mut db) = (sample(x.len(), 5), vec![0.0; w.len()], vec![0.0; b.len()]);
            let before = dx.clone();
            conv.backward_parameters(&mut workspace(), &x, &c, &mut dw, Some(&mut db));
            conv.backward_input(&mut workspace(), &c, &w, &mut dx, true);
            dx.iter_mut().zip(&before).for_each(|(dx, before)| *dx -= before);
            assert_gradient("x", &x, &dx, |x| projection(&naive(&conv, x, &w, &b), &c));
            assert_gradient("weight", &w, &dw, |w| projection(&naive(&conv, &x, w, &b), &c));
            assert_gradient("bias", &b, &db, |b| projection(&naive(&conv, &x, &w, b), &c));
        }
    }

    #[test]
    fn tiles_larger_and_smaller_than_an_image_agree_with_the_definition() {
        for input in [[3, 3], [40, 40]] {
            let conv = conv(input, [3, 3], [1, 1], [1, 1]);
            let (x, w, b) = (sample(70 * conv.geometry.input_len(), 1), sample(54, 2), sample(3, 3));
            let mut y = vec![0.0; 70 * 3 * conv.geometry.positions()];
            conv.forward(&mut workspace(), &x, &w, Some(&b), true, &mut y);
            for (got, expected) in y.iter().zip(naive(&conv, &x, &w, &b)) {
                assert!((got - expected.max(0.0)).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn single_precision_follows_double_on_any_number_of_threads() {
        let mut wide = conv([17, 12], [3, 3], [1, 1], [1, 1]);
        (wide.geometry.channels, wide.out_channels) = (20, 41);
        let mut strided = Conv { geometry: Geometry { stride: [2, 2], output: [9, 6], ..wide.geometry }, ..wide };
        strided.out_channels = 12;
        let in_groups = Conv { geometry: Geometry { channels: 20, ..strided.geometry }, out_channels: 60, groups: 5 };
        // One image is shared by all threads, nine are not.
        for (conv, images) in [(wide, 9), (strided, 9), (in_groups, 9), (wide, 1), (in_groups, 1)] {
            let g = conv.geometry;
            let (x, w) = (sample(images * g.input_len(), 1), sample(conv.out_channels * conv.kernel_len(), 2));
            let dy = sample(images * g.positions() * conv.out_channels, 3);
            let expected = passes::<f64>(&conv, 2, &x, &w, &dy);
            let one = passes::<f32>(&conv, 1, &x, &w, &dy);
            for (got, expected) in one.iter().zip(&expected) {
                assert!((f64::from(*got) - expected).abs() < 1e-3, "{got} for {expected}");
            }
            for threads in [2, 3, 4] {
                let other = passes::<f32>(&conv, threads, &x, &w, &dy);
                assert!(one.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits()), "{threads} threads");
            }
        }
    }

    /// Output and both gradients, one after another.
    fn passes<T: Float>(conv: &Conv, threads: usize, x: &[f64], w: &[f64], dy: &[f64]) -> Vec<T> {
        let of = |values: &[f64]| values.iter().map(|value| T::of(*value)).collect::<Vec<T>>();
        let (x, w, dy) = (of(x), of(w), of(dy));
        let (mut y, mut dw, mut dx) = (dy.clone(), w.clone(), x.clone());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut work = Workspace::new(std::num::NonZeroUsize::new(threads).unwrap());
            conv.forward(&mut work, &x, &w, None, false, &mut y);
            conv.backward_parameters(&mut work, &x, &dy, &mut dw, None);
            conv.backward_input(&mut work, &dy, &w, &mut dx, false);
        });
        [y, dw, dx].concat()
    }
}
