//! Convolutions as in PyTorch (cross-correlation), by unfolded windows and matrix products.

use std::num::NonZeroUsize;

use rayon::prelude::*;

use crate::kernels::reduce::column_sums;
use crate::kernels::workspace::scratch;
use crate::kernels::{Float, Geometry, Matrix, Workspace, elementwise, matmul};

/// Windows that are unfolded at once; enough to keep the matrix product busy, few enough to stay in the cache.
const TILE: usize = 512;
const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// Sizes of a convolution; weights are OHWI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv {
    /// How the kernel slides.
    pub geometry: Geometry,
    /// Channels of the output.
    pub out_channels: usize,
}

impl Conv {
    /// `y = w * x + b`, then ReLU if asked.
    pub fn forward<T: Float>(
        &self,
        work: &mut Workspace<T>,
        x: &[T],
        weight: &[T],
        bias: Option<&[T]>,
        relu: bool,
        y: &mut [T],
    ) {
        let kernel = self.weights(weight).transposed();
        if self.geometry.is_pointwise() {
            matmul(work.threads(), self.windows(x), kernel, y, false);
            return elementwise::finish_rows(y, self.out_channels, bias, relu);
        }
        let line = self.geometry.output[1] * self.out_channels;
        let lines = y.len() / line;
        let share = lines.div_ceil(work.threads().get());
        y.par_chunks_mut(share * line).zip(&mut work.lanes).enumerate().for_each(|(lane, (y, scratch_of))| {
            for (first, y) in self.tiles(lane * share, y) {
                let rows = first..first + y.len() / line;
                let columns = scratch(&mut scratch_of.columns, self.unfolded(rows.len()));
                self.geometry.unfold(x, rows, columns);
                matmul(ONE, self.windows(columns), kernel, y, false);
                elementwise::finish_piece(y, self.out_channels, bias, relu);
            }
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
            column_sums(dy, &mut work.partials, dbias);
        }
        if self.geometry.is_pointwise() {
            return matmul(work.threads(), self.outputs(dy).transposed(), self.windows(x), dweight, false);
        }
        let line = self.geometry.output[1] * self.out_channels;
        let share = (dy.len() / line).div_ceil(work.threads().get());
        let busy = dy.len().div_ceil(share * line);
        dy.par_chunks(share * line).zip(&mut work.lanes).enumerate().for_each(|(lane, (dy, scratch_of))| {
            let part = scratch(&mut scratch_of.weights, dweight.len());
            part.fill(T::ZERO);
            for (index, dy) in dy.chunks(self.tile_lines() * line).enumerate() {
                let first = lane * share + index * self.tile_lines();
                let rows = first..first + dy.len() / line;
                let columns = scratch(&mut scratch_of.columns, self.unfolded(rows.len()));
                self.geometry.unfold(x, rows, columns);
                matmul(ONE, self.outputs(dy).transposed(), self.windows(columns), part, true);
            }
        });
        dweight.fill(T::ZERO);
        for lane in &work.lanes[..busy] {
            elementwise::put(&lane.weights[..dweight.len()], dweight, true);
        }
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
        let kernel = self.weights(weight);
        if self.geometry.is_pointwise() {
            return matmul(work.threads(), self.outputs(dy), kernel, dx, accumulate);
        }
        let (in_len, line) = (self.geometry.input_len(), self.geometry.output[1] * self.out_channels);
        let out_len = line * self.geometry.output[0];
        let share = (dy.len() / out_len).div_ceil(work.threads().get());
        let parts = dx.par_chunks_mut(share * in_len).zip(dy.par_chunks(share * out_len)).zip(&mut work.lanes);
        parts.for_each(|((dx, dy), scratch_of)| {
            for (dx, dy) in dx.chunks_exact_mut(in_len).zip(dy.chunks_exact(out_len)) {
                if !accumulate {
                    dx.fill(T::ZERO);
                }
                for (index, dy) in dy.chunks(self.tile_lines() * line).enumerate() {
                    let first = index * self.tile_lines();
                    let rows = first..first + dy.len() / line;
                    let columns = scratch(&mut scratch_of.columns, self.unfolded(rows.len()));
                    matmul(ONE, self.outputs(dy), kernel, columns, false);
                    self.geometry.fold(columns, rows, dx);
                }
            }
        });
    }

    /// Output lines (of all positions with one height) that make a tile.
    fn tile_lines(&self) -> usize {
        (TILE / self.geometry.output[1]).max(1)
    }

    /// Splits a lane's share of the output into tiles, each with the number of its first line.
    fn tiles<'y, T>(&self, first: usize, y: &'y mut [T]) -> impl Iterator<Item = (usize, &'y mut [T])> {
        let lines = self.tile_lines();
        let len = lines * self.geometry.output[1] * self.out_channels;
        y.chunks_mut(len).enumerate().map(move |(index, y)| (first + index * lines, y))
    }

    /// Elements of the unfolded windows of `lines` output lines.
    fn unfolded(&self, lines: usize) -> usize {
        lines * self.geometry.output[1] * self.geometry.window_len()
    }

    fn weights<'a, T>(&self, weight: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(weight, self.out_channels, self.geometry.window_len())
    }

    fn windows<'a, T>(&self, columns: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(columns, columns.len() / self.geometry.window_len(), self.geometry.window_len())
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
        let output = [0, 1].map(|i| (input[i] + 2 * padding[i] - kernel[i]) / stride[i] + 1);
        Conv { geometry: Geometry { channels: 2, input, output, kernel, stride, padding }, out_channels: 3 }
    }

    /// The definition, with six loops.
    fn naive(conv: &Conv, x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
        let g = &conv.geometry;
        let mut y = Vec::new();
        for image in x.chunks(g.input_len()) {
            for (oy, ox) in (0..g.output[0]).flat_map(|oy| (0..g.output[1]).map(move |ox| (oy, ox))) {
                for o in 0..conv.out_channels {
                    let mut sum = b[o];
                    for (ky, kx) in (0..g.kernel[0]).flat_map(|ky| (0..g.kernel[1]).map(move |kx| (ky, kx))) {
                        let (Some(iy), Some(ix)) = (g.source(0, oy, ky), g.source(1, ox, kx)) else { continue };
                        for c in 0..g.channels {
                            let weight = w[((o * g.kernel[0] + ky) * g.kernel[1] + kx) * g.channels + c];
                            sum += image[(iy * g.input[1] + ix) * g.channels + c] * weight;
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
        ];
        for conv in cases {
            let g = conv.geometry;
            let (x, w) = (sample(3 * g.input_len(), 1), sample(3 * g.window_len(), 2));
            let (b, c) = (sample(3, 3), sample(3 * 3 * g.positions(), 4));
            let mut y = vec![0.0; c.len()];
            conv.forward(&mut workspace(), &x, &w, Some(&b), false, &mut y);
            for (got, expected) in y.iter().zip(naive(&conv, &x, &w, &b)) {
                assert!((got - expected).abs() < 1e-12, "{conv:?}: {got} for {expected}");
            }
            let (mut dx, mut dw, mut db) = (sample(x.len(), 5), vec![0.0; w.len()], vec![0.0; 3]);
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
}
