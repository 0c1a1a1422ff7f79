//! Matrices and convolutions, by unfolded windows and matrix products.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::ops::Range;

use rayon::prelude::*;

use crate::fusion::reference::feature_map::FeatureMap;
use crate::kernels::{Matrix, matmul};
use crate::model::graph::{Convolution, Window};

/// Most examples that go through a matrix row by row, which is then read once, as it lies in memory.
const FEW: usize = 8;
/// Rows that a thread takes at once.
const ROWS: usize = 64;
/// Partial sums of a product of two rows.
const LANES: usize = 16;
/// Elements of the windows that are unfolded at once.
const TILE: usize = 1 << 18;
const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// `W x + b` at every position; N x out x P. `tensors` are the matrix and, if there is one, the bias.
pub(super) fn linear(x: &FeatureMap, outputs: usize, tensors: &[Cow<'_, [f32]>]) -> Vec<f32> {
    let (weight, positions) = (Matrix::new(&tensors[0], outputs, x.channels), x.positions());
    let mut y = vec![0.0; x.values.len() / x.channels * outputs];
    let examples = x.values.len() / x.channels.max(1);
    if positions == 1 && examples <= FEW {
        few(&x.values, examples, &tensors[0], &mut y);
    } else if positions == 1 {
        let rows = Matrix::new(&x.values, x.values.len() / x.channels, x.channels);
        let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(ONE);
        matmul(threads, rows, weight.transposed(), &mut y, false);
    } else {
        let examples = y.par_chunks_exact_mut(outputs * positions).zip(x.values.par_chunks_exact(x.example()));
        examples.for_each(|(y, x)| matmul(ONE, weight, Matrix::new(x, x.len() / positions, positions), y, false));
    }
    add_bias(&mut y, tensors.get(1), positions);
    y
}

/// `W x` for each of a few `examples`; both lie row by row.
fn few(x: &[f32], examples: usize, weight: &[f32], y: &mut [f32]) {
    let (inputs, outputs) = (x.len() / examples.max(1), y.len() / examples.max(1));
    if inputs == 0 || outputs == 0 {
        return;
    }
    let mut by_row = vec![0.0; y.len()];
    let parts = by_row.par_chunks_mut(ROWS * examples).zip(weight.par_chunks(ROWS * inputs));
    parts.for_each(|(out, rows)| {
        for (out, row) in out.chunks_exact_mut(examples).zip(rows.chunks_exact(inputs)) {
            out.iter_mut().zip(x.chunks_exact(inputs)).for_each(|(out, example)| *out = dot(row, example));
        }
    });
    for (row, of_row) in by_row.chunks_exact(examples).enumerate() {
        of_row.iter().enumerate().for_each(|(example, value)| y[example * outputs + row] = *value);
    }
}

/// The product of two rows, in lanes that a processor adds up side by side.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_parts, b_parts) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_parts.zip(b_parts) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    lanes.iter().sum::<f32>() + rest
}

/// Cross-correlation with all kernels, N x out x P'. `tensors` are the kernels and, if there is one, the bias.
pub(super) fn convolve(x: &FeatureMap, conv: &Convolution, tensors: &[Cow<'_, [f32]>], size: [usize; 2]) -> Vec<f32> {
    let (p_in, p_out) = (x.positions(), size[0] * size[1]);
    let (inputs, outputs) = (conv.inputs_of_one(), conv.out_channels / conv.groups());
    let kernel_len = inputs * conv.window.kernel[0] * conv.window.kernel[1];
    let unfold = Unfold { window: conv.window, input: x.size(), output: size };
    let mut y = vec![0.0; x.values.len() / x.example() * conv.out_channels * p_out];
    let examples = y.par_chunks_exact_mut(conv.out_channels * p_out).zip(x.values.par_chunks_exact(x.example()));
    examples.for_each(|(y, x)| {
        let groups = y.chunks_exact_mut(outputs * p_out).zip(x.chunks_exact(inputs * p_in));
        for ((y, x), kernels) in groups.zip(tensors[0].chunks_exact(outputs * kernel_len)) {
            unfold.convolve(x, Matrix::new(kernels, outputs, kernel_len), y);
        }
    });
    add_bias(&mut y, tensors.get(1), p_out);
    y
}

/// Adds a value per channel to all of its positions.
pub(super) fn add_bias(y: &mut [f32], bias: Option<&Cow<'_, [f32]>>, positions: usize) {
    let Some(bias) = bias else { return };
    for example in y.chunks_exact_mut(bias.len() * positions) {
        for (channel, bias) in example.chunks_exact_mut(positions).zip(&**bias) {
            for value in channel {
                *value += bias;
            }
        }
    }
}

/// How windows over an image become columns of a matrix.
struct Unfold {
    window: Window,
    input: [usize; 2],
    output: [usize; 2],
}

impl Unfold {
    /// One group of one image: `y` = `kernels` times the windows, some lines of the output at a time.
    fn convolve(&self, x: &[f32], kernels: Matrix<'_, f32>, y: &mut [f32]) {
        if self.window == Window::square(1, 1, 0) {
            let positions = self.input[0] * self.input[1];
            return matmul(ONE, kernels, Matrix::new(x, x.len() / positions, positions), y, false);
        }
        let [height, width] = self.output;
        let taps = self.window.kernel[0] * self.window.kernel[1];
        let rows = x.len() / (self.input[0] * self.input[1]) * taps;
        let outputs = y.len() / (height * width);
        let lines = (TILE / (rows * width)).clamp(1, height);
        let (mut columns, mut product) = (vec![0.0; rows * lines * width], vec![0.0; outputs * lines * width]);
        for first in (0..height).step_by(lines) {
            let lines = first..height.min(first + lines);
            let tile = lines.len() * width;
            self.unfold(x, lines, &mut columns[..rows * tile]);
            let product = &mut product[..outputs * tile];
            matmul(ONE, kernels, Matrix::new(&columns[..rows * tile], rows, tile), product, false);
            for (plane, part) in y.chunks_exact_mut(height * width).zip(product.chunks_exact(tile)) {
                plane[first * width..][..tile].copy_from_slice(part);
            }
        }
    }

    /// For every channel and element of the kernel a row: what it meets as the window moves along `lines` of the output.
    fn unfold(&self, x: &[f32], lines: Range<usize>, columns: &mut [f32]) {
        let [kernel_h, kernel_w] = self.window.kernel;
        let tile = lines.len() * self.output[1];
        let planes = x.chunks_exact(self.input[0] * self.input[1]);
        for (plane, rows) in planes.zip(columns.chunks_exact_mut(kernel_h * kernel_w * tile)) {
            for (tap, row) in rows.chunks_exact_mut(tile).enumerate() {
                for (oy, target) in lines.clone().zip(row.chunks_exact_mut(self.output[1])) {
                    match self.source(0, oy, tap / kernel_w) {
                        Some(iy) => self.line(&plane[iy * self.input[1]..][..self.input[1]], tap % kernel_w, target),
                        None => target.fill(0.0),
                    }
                }
            }
        }
    }

    /// What column `kx` of the kernel meets along one line of the input.
    fn line(&self, line: &[f32], kx: usize, target: &mut [f32]) {
        for (ox, value) in target.iter_mut().enumerate() {
            *value = self.source(1, ox, kx).map_or(0.0, |ix| line[ix]);
        }
    }

    /// The input coordinate under element `k` of window `o`; `None` in the padding.
    fn source(&self, axis: usize, o: usize, k: usize) -> Option<usize> {
        let at = o * self.window.stride[axis] + k * self.window.dilation[axis];
        at.checked_sub(self.window.padding[axis]).filter(|&at| at < self.input[axis])
    }
}
