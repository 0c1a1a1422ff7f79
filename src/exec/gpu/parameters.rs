//! Where learned tensors are on the device: all in one flat buffer, so that one kernel takes a step with all of them.

use crate::exec::compile::Compiled;
use crate::exec::gpu::tape::{Storage, Values};
use crate::exec::layer::Operation;
use crate::exec::lowering::Weighted;
use crate::exec::parameters::LearnedParameter;

/// Tensors begin at whole pieces of so many numbers: 256 bytes even where a number has two.
const ALIGNMENT: usize = 128;

/// How the numbers of a tensor lie on the device: rows of `parts` times `inner` numbers, each `inner` ones filled up with zeros to
/// `stride`, and rows of zeros behind the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TensorLayout {
    /// Position of the first number in the flat buffer.
    pub(super) first: usize,
    /// Rows with those of zeros.
    pub(super) rows: usize,
    parts: usize,
    inner: usize,
    stride: usize,
}

impl TensorLayout {
    /// Numbers with all zeros between and behind them.
    pub(super) fn numbers(&self) -> usize {
        self.rows * self.row()
    }

    /// Numbers of a row.
    pub(super) fn row(&self) -> usize {
        self.parts * self.stride
    }

    /// Puts dense numbers where they belong in the flat buffer.
    pub(super) fn scatter(&self, dense: &[f32], flat: &mut [f32]) {
        let places = flat[self.first..][..self.numbers()].chunks_exact_mut(self.stride);
        for (place, numbers) in places.zip(dense.chunks_exact(self.inner)) {
            place[..self.inner].copy_from_slice(numbers);
        }
    }

    /// Dense numbers as they lie on the device, from the tensor's first one on.
    pub(super) fn padded(&self, dense: &[f32]) -> Vec<f32> {
        let mut numbers = vec![0.0; self.numbers()];
        Self { first: 0, ..*self }.scatter(dense, &mut numbers);
        numbers
    }

    /// The inverse of [`Self::scatter`], of `len` dense numbers.
    pub(super) fn gather(&self, flat: &[f32], len: usize) -> Vec<f32> {
        let places = flat[self.first..][..self.numbers()].chunks_exact(self.stride).take(len / self.inner);
        places.flat_map(|place| &place[..self.inner]).copied().collect()
    }
}

/// Which tensors lie where. Those that lose weight in every step come first, and before all others the weights of
/// convolutions, whose gradients a library stores like activations.
#[derive(Debug)]
pub(super) struct FlatParameters {
    /// For each learned tensor.
    pub(super) layouts: Vec<TensorLayout>,
    /// Numbers of the weights of convolutions.
    pub(super) convolutions: usize,
    /// Numbers of the tensors with several axes, those of convolutions among them.
    pub(super) matrices: usize,
    /// All numbers.
    pub(super) numbers: usize,
}

impl FlatParameters {
    /// For a network whose values on the device are `values`.
    pub(super) fn new(compiled: &Compiled<f32>, values: &[Values], storage: Storage) -> Self {
        let count = compiled.parameters.len();
        let mut layouts: Vec<TensorLayout> = compiled.parameters.iter().map(|p| dense(p, storage)).collect();
        let mut is_convolution = vec![false; count];
        for layer in &compiled.layers {
            let Operation::Weighted { operation, weight: Some(weight), .. } = &layer.operation else { continue };
            let (x, y) = (values[layer.inputs[0]], values[layer.output]);
            let shape = &compiled.parameters[*weight].shape;
            match operation {
                Weighted::Conv(conv) if conv.groups == 1 => {
                    let parts = conv.geometry.taps();
                    layouts[*weight] =
                        TensorLayout { first: 0, rows: y.stride, parts, inner: x.channels, stride: x.stride };
                    is_convolution[*weight] = !conv.geometry.is_pointwise();
                }
                Weighted::Linear(_) => {
                    // A matrix behind a flatten has a part for each position.
                    let parts = shape[1..].iter().product::<usize>() / x.channels;
                    layouts[*weight] =
                        TensorLayout { first: 0, rows: y.stride, parts, inner: x.channels, stride: x.stride };
                }
                Weighted::Conv(_)
                | Weighted::Depthwise(_)
                | Weighted::BatchNorm(_)
                | Weighted::GroupNorm { .. }
                | Weighted::ResponseNorm { .. }
                | Weighted::LayerScale
                | Weighted::ClassToken { .. }
                | Weighted::PositionalEmbedding => {}
            }
        }
        let rank = |index: &usize| match (is_convolution[*index], compiled.parameters[*index].shape.len()) {
            (true, _) => 0,
            (false, 2..) => 1,
            (false, _) => 2,
        };
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|index| (rank(index), *index));
        let [mut convolutions, mut matrices, mut numbers] = [0; 3];
        for index in order {
            layouts[index].first = numbers;
            numbers += layouts[index].numbers().next_multiple_of(ALIGNMENT);
            if rank(&index) == 0 {
                convolutions = numbers;
            }
            if rank(&index) < 2 {
                matrices = numbers;
            }
        }
        Self { layouts, convolutions, matrices, numbers }
    }
}

/// Numbers one after another, with zeros behind them up to a whole piece.
fn dense(parameter: &LearnedParameter<f32>, storage: Storage) -> TensorLayout {
    let len: usize = parameter.shape.iter().product();
    TensorLayout { first: 0, rows: 1, parts: 1, inner: len, stride: storage.stride(len) }
}
