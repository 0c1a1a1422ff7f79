//! The seam between training and devices.
//!
//! Trainer, evaluation, checkpoints and pipeline know a compiled network only as an [`Engine`]. A training step is one call
//! that holds gradients, clipping and the optimizer: a device may run it as one captured graph, with weights and optimizer
//! in its own memory. What crosses the seam is a batch on the way in, logits or a loss on the way out, and whole state dicts.

use crate::kernels::dropout::Draw;
use crate::kernels::loss::Targets;
use crate::model::graph::Graph;
use crate::settings::{Device, Optimizer};
use crate::tensors::{StateDict, StateDictError, Weights};
use crate::train::network::{BatchError, CompileError, LoadError, Network, Step};
use crate::train::optimizer::Stride;

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
    /// Names the first tensor that is missing or has another size.
    fn load(&mut self, weights: &dyn Weights) -> Result<(), LoadError>;

    /// All weights in PyTorch's names and layouts.
    ///
    /// # Errors
    /// When the tensor library refuses.
    fn state_dict(&self) -> Result<StateDict, StateDictError>;

    /// Whether all weights and running statistics are finite.
    fn is_finite(&self) -> bool;

    /// The logits (batch x classes) of `images` (batch x channels x height x width), with running statistics.
    ///
    /// # Errors
    /// When `images` is not 1 to [`Self::max_batch`] examples.
    fn forward(&mut self, images: &[f32]) -> Result<&[f32], BatchError>;

    /// Names and shapes of the tensors that learn, in order of computation.
    fn learned(&self) -> Vec<(&str, &[usize])>;

    /// Begins a training with the constants of `rule` and nothing remembered.
    fn begin(&mut self, rule: &Optimizer);

    /// A step along the gradients of the objective, BatchNorm and dropout in training mode; see [`crate::kernels::loss::objective`].
    /// Dropout draws from `draw`. Without [`Self::begin`] nothing is learned.
    ///
    /// # Errors
    /// When `images` is not 1 to [`Self::max_batch`] examples with a label (and teacher logits) for each.
    fn step(
        &mut self,
        images: &[f32],
        targets: Targets<'_, f32>,
        stride: Stride,
        draw: Draw,
    ) -> Result<Step, BatchError>;

    /// What the optimizer remembers: its steps, and tensors called `buffer.parameter` in PyTorch's layouts.
    ///
    /// # Errors
    /// When the tensor library refuses.
    fn memories(&self) -> Result<(u64, StateDict), StateDictError>;

    /// Goes on from such memories of the same rule, after [`Self::begin`].
    ///
    /// # Errors
    /// Names the first tensor that is missing or has another size.
    fn remember(&mut self, steps: u64, buffers: &dyn Weights) -> Result<(), LoadError>;

    /// Whether there is a BatchNorm.
    fn has_statistics(&self) -> bool;

    /// Forgets BatchNorm's running statistics; [`Self::reestimate`] measures them anew.
    fn reset_statistics(&mut self);

    /// Lets BatchNorm's running statistics become the mean over all batches since they were reset, this one included.
    ///
    /// # Errors
    /// When `images` is not 1 to [`Self::max_batch`] examples.
    fn reestimate(&mut self, images: &[f32]) -> Result<(), BatchError>;

    /// Runs `task` on the threads that prepare the device's batches.
    fn on_threads(&self, task: &mut (dyn FnMut() + Send));
}

/// Compiles `graph` for `device`, for batches of up to `max_batch` examples and `threads` threads; all weights are 0.
///
/// # Errors
/// When the output is no vector, no threads can be had, or there is no engine for the device.
pub fn compile(
    device: Device,
    graph: &Graph,
    max_batch: usize,
    threads: usize,
) -> Result<Box<dyn Engine>, CompileError> {
    match device {
        Device::Auto | Device::Cpu => Ok(Box::new(Network::<f32>::compile(graph, max_batch, threads)?)),
        Device::Cuda(_) => Err(CompileError::Device(device)),
    }
}
