//! The seam between networks and devices.
//!
//! Trainer, evaluation, checkpoints, rankings and pipeline know a compiled network only as an [`Engine`]. A training step is one call
//! that holds gradients, clipping and the optimizer: a device may run it as one captured graph, with weights and optimizer
//! in its own memory. What crosses the seam is a batch on the way in, logits or a loss on the way out, and whole state dicts.
//! A device may be late: results of steps are taken when they are there.

use std::any::Any;
use std::sync::Arc;

use crate::domain::problem::{Code, Problem};
use crate::kernels::dropout::Draw;
use crate::kernels::loss::Targets;
use crate::model::graph::Shape;
use crate::settings::{Device, Optimizer};
use crate::tensors::{CheckpointError, StateDict, StateDictError, Weights};

/// How the optimizer uses the gradients of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// What the schedule multiplies the learning rate with.
    pub lr_scale: f64,
    /// Largest Euclidean norm of the gradients of all parameters together; longer ones are scaled down.
    pub clip_norm: Option<f32>,
}

/// Images as they are stored, which a device may hold.
#[derive(Debug, Clone)]
pub struct StoredImages<'a> {
    /// One image after another, channels x height x width, row-major.
    pub bytes: &'a [u8],
    /// What the bytes belong to: as long as a device holds them, it stays.
    pub owner: Arc<dyn Any + Send + Sync>,
    /// Channels, height and width of a stored image. Where a network reads more channels, these are repeated.
    pub shape: [usize; 3],
    /// Mean and deviation of each channel that the network reads: it sees `(byte / 255 - mean) / deviation`.
    pub normalization: Vec<[f32; 2]>,
}

/// Images that a device holds.
#[derive(Debug, Clone)]
pub struct Held(pub(in crate::exec) Arc<dyn Any + Send + Sync>);

/// How an image is seen: how far below and to the right of it the piece begins that is seen, and 1 where that is mirrored, else 0.
pub type HeldView = [i32; 3];

/// The inputs of a batch.
#[derive(Debug, Clone, Copy)]
pub enum Inputs<'a> {
    /// Batch x channels x height x width, or batch x features, as the network sees them.
    Images(&'a [f32]),
    /// Some of the images that the device holds.
    Held {
        /// All of them.
        held: &'a Held,
        /// Which ones.
        indices: &'a [u32],
        /// How each is seen; as it is where there are none.
        views: Option<&'a [HeldView]>,
    },
}

impl<'a> From<&'a [f32]> for Inputs<'a> {
    fn from(images: &'a [f32]) -> Self {
        Self::Images(images)
    }
}

impl<'a> From<&'a Vec<f32>> for Inputs<'a> {
    fn from(images: &'a Vec<f32>) -> Self {
        Self::Images(images)
    }
}

impl Inputs<'_> {
    /// Examples of the batch, of `example` elements each.
    #[must_use]
    pub fn examples(&self, example: usize) -> usize {
        match self {
            Self::Images(images) => images.len() / example.max(1),
            Self::Held { indices, .. } => indices.len(),
        }
    }
}

/// Gradients of one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// The objective and what was right.
    pub step: Step,
    /// One for each of [`Engine::learned`], in PyTorch's order of elements.
    pub tensors: Vec<Vec<f32>>,
}

/// Why a graph cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A classifier's output is a vector of logits.
    #[error(
        "node `{node}`: expected an output of shape [K], one logit per class, got {shape:?}; add a flatten and a linear layer"
    )]
    Output {
        /// The last node.
        node: String,
        /// Its shape.
        shape: Shape,
    },
    /// The system refused threads.
    #[error("starting {threads} threads: {source}")]
    Threads {
        /// How many.
        threads: usize,
        /// What it said.
        source: rayon::ThreadPoolBuildError,
    },
    /// Nothing here computes on such a device.
    #[error("networks cannot be computed on {0} yet")]
    Device(Device),
    /// The device did not do what it was asked for.
    #[error(transparent)]
    Fault(#[from] DeviceFault),
}

/// A batch that does not fit the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {most} examples of {example} elements (and a label for each), got {got} elements")]
pub struct BatchError {
    /// Largest batch.
    pub most: usize,
    /// Elements of one example.
    pub example: usize,
    /// Elements that came.
    pub got: usize,
}

/// One training step's result; the gradients are in the parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Mean objective over the batch.
    pub loss: f64,
    /// Examples whose outputs decided as their truths do; see [`crate::kernels::loss::is_right`].
    pub correct: usize,
}

/// Why weights do not fit a network.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A tensor is missing or not readable.
    #[error(transparent)]
    Tensor(#[from] CheckpointError),
    /// A tensor has another size.
    #[error("tensor `{name}`: expected {expected} elements, got {got}")]
    Size {
        /// The tensor.
        name: String,
        /// Elements that the network has.
        expected: usize,
        /// Elements that the tensor has.
        got: usize,
    },
}

/// Why a device did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceFault {
    /// There is not enough memory on the device.
    #[error("the network needs {needed} bytes of the GPU's memory, of which it may take {free}; take smaller batches")]
    OutOfMemory {
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes that are free, or that the job may take.
        free: u64,
    },
    /// The device no longer answers, or answers with errors that nothing asked for.
    #[error("the GPU was lost: {0}")]
    Lost(String),
    /// A library is missing, or refuses what it is asked for.
    #[error("the GPU cannot compute this: {0}")]
    Refused(String),
}

impl From<DeviceFault> for Problem {
    fn from(fault: DeviceFault) -> Self {
        let code = match fault {
            DeviceFault::OutOfMemory { .. } => Code::OutOfMemory,
            DeviceFault::Lost(_) => Code::DeviceLost,
            DeviceFault::Refused(_) => Code::NotSupportedYet,
        };
        Self::new(code, fault.to_string())
    }
}

/// Why an engine did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The batch does not fit.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The weights do not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The tensor library refused.
    #[error(transparent)]
    Weights(#[from] StateDictError),
    /// The device did.
    #[error(transparent)]
    Device(#[from] DeviceFault),
}

/// A network compiled for a device, with its weights and, while it learns, its optimizer.
pub trait Engine: std::fmt::Debug + Send {
    /// Number of outputs.
    fn classes(&self) -> usize;

    /// Elements of one input example.
    fn example_len(&self) -> usize;

    /// Largest batch.
    fn max_batch(&self) -> usize;

    /// Takes all weights from `weights`; tensors of other names are ignored.
    ///
    /// # Errors
    /// Names the first tensor that is missing or has another size; or the device fails.
    fn load(&mut self, weights: &dyn Weights) -> Result<(), EngineError>;

    /// All weights in PyTorch's names and layouts.
    ///
    /// # Errors
    /// When the tensor library refuses, or the device fails.
    fn state_dict(&mut self) -> Result<StateDict, EngineError>;

    /// Whether all weights and running statistics are finite.
    ///
    /// # Errors
    /// When the device fails.
    fn is_finite(&mut self) -> Result<bool, EngineError>;

    /// Keeps images on the device, if it can and has room for them; `seen` says whether they will have views. The same images are kept
    /// once, whoever asks.
    ///
    /// # Errors
    /// When the device fails.
    fn hold(&mut self, images: &StoredImages<'_>, seen: bool) -> Result<Option<Held>, EngineError>;

    /// The logits (batch x classes) of `inputs`, with running statistics.
    ///
    /// # Errors
    /// When `inputs` are not 1 to [`Self::max_batch`] examples, or the device fails.
    fn forward(&mut self, inputs: Inputs<'_>) -> Result<&[f32], EngineError>;

    /// Names and shapes of the tensors that learn, in order of computation.
    fn learned(&self) -> Vec<(&str, &[usize])>;

    /// Sets the optimizer up with the constants of `rule` and an empty state.
    fn init_optimizer(&mut self, rule: &Optimizer);

    /// A step along the gradients of the objective, BatchNorm and dropout in training mode; see [`crate::kernels::loss::objective`].
    /// Dropout draws from `draw`. Without [`Self::init_optimizer`] nothing is learned. The device may still be at it when this
    /// returns: [`Self::take_steps`] has the result.
    ///
    /// # Errors
    /// When `inputs` are not 1 to [`Self::max_batch`] examples with a label (and teacher logits) for each, or the device fails.
    fn step(
        &mut self,
        inputs: Inputs<'_>,
        targets: Targets<'_, f32>,
        update: Update,
        draw: Draw,
    ) -> Result<(), EngineError>;

    /// The results of steps, in order, that have not been taken yet: all of them with `wait`, else those that are there.
    ///
    /// # Errors
    /// When the device fails.
    fn take_steps(&mut self, wait: bool) -> Result<Vec<Step>, EngineError>;

    /// Gradients of the same objective, and no step. Dropout draws from `draw`.
    ///
    /// # Errors
    /// As [`Self::step`].
    fn gradients(
        &mut self,
        inputs: Inputs<'_>,
        targets: Targets<'_, f32>,
        draw: Draw,
    ) -> Result<Gradients, EngineError>;

    /// Adds up over batches what each weight is worth by its gradient of the same objective, and takes no step: the product of both, or
    /// the square of it. Not while an optimizer is under way: a device may need its room for the sums.
    ///
    /// # Errors
    /// As [`Self::step`].
    fn add_saliency(
        &mut self,
        inputs: Inputs<'_>,
        targets: Targets<'_, f32>,
        draw: Draw,
        squared: bool,
    ) -> Result<(), EngineError>;

    /// The means over the batches of [`Self::add_saliency`] since they were taken last, one tensor for each of [`Self::learned`], in
    /// PyTorch's order of elements.
    ///
    /// # Errors
    /// When the device fails.
    fn take_saliency(&mut self) -> Result<Vec<Vec<f32>>, EngineError>;

    /// The optimizer's state: its number of steps, and tensors called `buffer.parameter` in PyTorch's layouts.
    ///
    /// # Errors
    /// When the tensor library refuses, or the device fails.
    fn save_optimizer(&mut self) -> Result<(u64, StateDict), EngineError>;

    /// Takes over such a state of the same rule, after [`Self::init_optimizer`].
    ///
    /// # Errors
    /// Names the first tensor that is missing or has another size.
    fn load_optimizer(&mut self, steps: u64, buffers: &dyn Weights) -> Result<(), EngineError>;

    /// Whether there is a BatchNorm.
    fn has_statistics(&self) -> bool;

    /// Forgets BatchNorm's running statistics; [`Self::reestimate`] measures them anew.
    ///
    /// # Errors
    /// When the device fails.
    fn reset_statistics(&mut self) -> Result<(), EngineError>;

    /// Lets BatchNorm's running statistics become the mean over all batches since they were reset, this one included.
    ///
    /// # Errors
    /// When `inputs` are not 1 to [`Self::max_batch`] examples.
    fn reestimate(&mut self, inputs: Inputs<'_>) -> Result<(), EngineError>;

    /// What else the bits of a training depend on: which kind of device computes, and how. None of the processor, whose bits are one.
    fn arithmetic(&self) -> Option<String>;

    /// What a user should know of how the device computes: that it is slower than it could be, for example.
    fn remark(&self) -> Option<String>;

    /// Runs `task` on the threads that prepare the device's batches.
    fn on_threads(&self, task: &mut (dyn FnMut() + Send));
}
