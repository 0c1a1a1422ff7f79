//! What the layers of a network have in common when they are put on a tape.

use crate::exec::compile::Compiled;
use crate::exec::gpu::arena::{Arena, Kept};
use crate::exec::gpu::kernels::batch_norm::BatchNorm;
use crate::exec::gpu::parameters::{FlatParameters, TensorLayout};
use crate::exec::gpu::residual::Role;
use crate::exec::gpu::tape::{Factor, Place, Storage, Tape, Values};
use crate::exec::layer::Layer;
use crate::exec::lowering::{Mode, Norm};
use crate::kernels::conv::Conv;

/// Where the inputs of a batch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// As they are, beside the network's other values.
    Images,
    /// From images that the device holds.
    Held {
        /// Bytes of all of them.
        bytes: usize,
        /// Channels, height and width of one.
        shape: [usize; 3],
        /// Whether each is seen in a way of its own.
        seen: bool,
    },
}

/// A network on its way to a tape, for batches of a size.
#[derive(Debug)]
pub(super) struct Emitter<'a> {
    pub(super) tape: &'a mut Tape,
    pub(super) compiled: &'a Compiled<f32>,
    pub(super) arena: &'a Arena,
    pub(super) parameters: &'a FlatParameters,
    pub(super) roles: &'a [Role],
    pub(super) examples: usize,
    pub(super) mode: Mode,
    pub(super) source: Source,
}

/// A learned tensor on the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensor {
    /// As the optimizer has it.
    pub(super) exact: Place,
    /// As products read it.
    pub(super) read: Place,
    /// Its gradient; nowhere without training.
    pub(super) gradient: Option<Place>,
    /// Its gradient as activations are stored, where that is not f32; of convolutions only.
    pub(super) low_gradient: Option<Place>,
    pub(super) layout: TensorLayout,
}

impl Emitter<'_> {
    pub(super) fn storage(&self) -> Storage {
        self.tape.storage
    }

    /// A value of this batch.
    pub(super) fn value(&self, value: usize) -> Values {
        Values { examples: self.examples, ..self.arena.activations[value] }
    }

    /// The gradient of a value of this batch, if it leads anywhere.
    pub(super) fn gradient(&self, value: usize) -> Option<Values> {
        let wanted = self.compiled.values[value].needs_gradient && self.arena.training.is_some();
        wanted.then(|| Values { examples: self.examples, ..self.arena.gradients[value] })
    }

    /// The learned tensor `index`.
    pub(super) fn tensor(&self, index: usize) -> Tensor {
        let layout = self.parameters.layouts[index];
        let part = |place: Place, bytes: usize| place.part(layout.first * bytes, layout.numbers() * bytes);
        let low = self.storage().bytes();
        let exact = part(self.arena.weights, 4);
        let training = self.arena.training;
        let is_convolution = layout.first < self.parameters.convolutions;
        let low_gradients = training.and_then(|training| training.low_gradients).filter(|_| is_convolution);
        Tensor {
            exact,
            read: self.arena.low.map_or(exact, |place| part(place, low)),
            gradient: training.map(|training| part(training.gradients, 4)),
            low_gradient: low_gradients.map(|place| part(place, low)),
            layout,
        }
    }

    /// What `layer` keeps where these are numbers.
    pub(super) fn numbers(&self, layer: usize) -> Place {
        match self.arena.kept_by[layer] {
            Kept::Numbers(place) => place,
            Kept::Nothing | Kept::Statistics(_) | Kept::Attention(_) => self.arena.flag,
        }
    }
}

/// A BatchNorm as its kernels want it.
pub(super) fn batch_norm(norm: &Norm<f32>, channels: usize, tensors: &[Option<Tensor>; 2]) -> BatchNorm {
    let [weight, bias] = tensors.each_ref().map(|tensor| tensor.as_ref().map(|tensor| tensor.exact));
    BatchNorm { channels, eps: norm.eps, weight, bias }
}

/// The only operand and the output of a layer.
pub(super) fn ends(layer: &Layer<f32>) -> [usize; 2] {
    [layer.inputs[0], layer.output]
}

/// Whether a convolution is a matrix at every position.
pub(super) fn is_matrix(conv: &Conv) -> bool {
    conv.groups == 1 && conv.geometry.is_pointwise()
}

/// Values as a matrix of a product. A matrix behind a flatten takes all positions of an example as one row.
pub(super) fn rows(values: Values, storage: Storage, per_example: bool) -> (Factor, [usize; 2]) {
    let (rows, row) =
        if per_example { (values.examples, values.positions * values.stride) } else { (values.rows(), values.stride) };
    (Factor { place: values.place, storage, stride: row, transposed: false, step: 0 }, [rows, row])
}
