//! Why training or evaluation ends without a result.

use std::path::PathBuf;

use crate::domain::problem::{Code, Problem};
use crate::exec::{BatchError, DeviceFault, EngineError, LoadError};
use crate::tensors::{CheckpointError, StateDictError};

/// Why training or evaluation ends without a result.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Stopped on request; the last checkpoint stands.
    #[error("stopped on request")]
    Stopped,
    /// The loss or a weight is NaN or infinite.
    #[error("the {what} is no longer finite in epoch {epoch}, step {step}; try a smaller learning rate")]
    Diverged {
        /// What is not finite.
        what: &'static str,
        /// From 1.
        epoch: usize,
        /// From 1, in the epoch.
        step: usize,
    },
    /// Distillation without a teacher's logits for each training example.
    #[error("distillation needs {expected} teacher logits, one per training example and class; got {got}")]
    Teacher {
        /// Examples times classes.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// A label that the network has no output for.
    #[error("example {index} has label {label}, but the network distinguishes only {classes} classes")]
    Label {
        /// Position of the example.
        index: usize,
        /// Its label.
        label: u32,
        /// Outputs of the network.
        classes: usize,
    },
    /// Other numbers of labels or targets than outputs.
    #[error("the network has {expected} outputs, the data {got} labels or numbers for each example")]
    Outputs {
        /// Outputs of the network.
        expected: usize,
        /// What an example has.
        got: usize,
    },
    /// Inputs of the wrong size.
    #[error("the network expects inputs of {expected} elements, the data has {got}")]
    Shape {
        /// Elements of the network's input.
        expected: usize,
        /// Elements of an example.
        got: usize,
    },
    /// Nothing to train on or to measure with.
    #[error("there are no examples in the {0} split")]
    Empty(&'static str),
    /// Images cannot be varied as requested.
    #[error("the images cannot be varied: {0}")]
    Augment(String),
    /// The system refused the thread that makes batches.
    #[error("starting the thread that makes batches: {0}")]
    Thread(#[source] rayon::ThreadPoolBuildError),
    /// A checkpoint of another training, or a damaged one.
    #[error("checkpoint {path}: {detail}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Batches larger than the network was compiled for.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Weights that do not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Weights that cannot be read or written.
    #[error(transparent)]
    Weights(#[from] StateDictError),
    /// The device did not do what it was asked for.
    #[error(transparent)]
    Device(#[from] DeviceFault),
}

impl From<EngineError> for TrainError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Batch(error) => error.into(),
            EngineError::Load(error) => error.into(),
            EngineError::Weights(error) => error.into(),
            EngineError::Device(fault) => fault.into(),
        }
    }
}

impl From<CheckpointError> for TrainError {
    fn from(error: CheckpointError) -> Self {
        Self::Load(error.into())
    }
}

impl From<TrainError> for Problem {
    fn from(error: TrainError) -> Self {
        let code = match error {
            TrainError::Device(fault) => return fault.into(),
            TrainError::Weights(error) => return error.into(),
            TrainError::Load(LoadError::Tensor(error)) => return error.into(),
            TrainError::Diverged { .. } => Code::TrainingDiverged,
            TrainError::Thread(_) => Code::ResourcesExhausted,
            TrainError::Augment(_)
            | TrainError::Label { .. }
            | TrainError::Outputs { .. }
            | TrainError::Shape { .. }
            | TrainError::Empty(_) => Code::DatasetInvalid,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}
