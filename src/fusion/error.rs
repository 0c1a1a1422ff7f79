//! Why members cannot be fused.

use crate::cost::interpolation::LevelError;
use crate::domain::problem::{Code, Problem};
use crate::exec::{BatchError, DeviceFault, EngineError, LoadError};
use crate::model::graph::GraphError;
use crate::model::groups::CouplingError;
use crate::tensors::{CheckpointError, StateDictError};

/// Why members cannot be fused.
#[derive(Debug, thiserror::Error)]
pub enum FusionError {
    /// No member at all.
    #[error("an ensemble needs at least one member")]
    Empty,
    /// Members whose networks differ in more than their widths.
    #[error("member {member} is another network than member 0: {detail}")]
    Topology {
        /// Which member.
        member: usize,
        /// What differs.
        detail: String,
    },
    /// A network without a concatenation.
    #[error(transparent)]
    Coupling(#[from] CouplingError),
    /// A network that cannot be fitted level after level.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// A target that no selection can reach.
    #[error("group of `{layer}`: expected a target of 1 to {available} units, got {target}")]
    Target {
        /// The group's first producer.
        layer: String,
        /// Units of all members together.
        available: usize,
        /// What was requested.
        target: usize,
    },
    /// Unreadable weights.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    /// Weights that do not fit their network.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A device that did not do what it was asked for.
    #[error(transparent)]
    Device(#[from] DeviceFault),
    /// A batch that does not fit the network.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A fused network that does not fit together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An activation that was requested after its last reader had it.
    #[error("the output of node {0} is no longer there; this is a fault of engraft, please report it")]
    Lost(usize),
    /// A ranking by activations or gradients without any.
    #[error("this ranking needs what was not measured; this is a fault of engraft, please report it")]
    NoStatistics,
    /// Its end was requested.
    #[error("stopped on request")]
    Stopped,
    /// A tensor that cannot be made.
    #[error(transparent)]
    Tensor(#[from] StateDictError),
    /// Averaging members of different widths, or matching their units one by one.
    #[error(
        "averaging and matching one by one need members of one shape; tensor `{tensor}` differs in member {member}"
    )]
    WidthsDiffer {
        /// Which member.
        member: usize,
        /// The tensor.
        tensor: String,
    },
}

impl From<EngineError> for FusionError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Batch(error) => Self::Batch(error),
            EngineError::Load(error) => Self::Load(error),
            EngineError::Weights(error) => Self::Tensor(error),
            EngineError::Device(fault) => Self::Device(fault),
        }
    }
}

impl From<FusionError> for Problem {
    fn from(error: FusionError) -> Self {
        match error {
            FusionError::Weights(error) | FusionError::Load(LoadError::Tensor(error)) => error.into(),
            FusionError::Device(fault) => fault.into(),
            FusionError::Tensor(error) => error.into(),
            FusionError::Load(LoadError::Size { .. })
            | FusionError::Batch(_)
            | FusionError::Graph(_)
            | FusionError::Lost(_)
            | FusionError::NoStatistics
            | FusionError::Stopped => Self::new(Code::Internal, error.to_string()),
            FusionError::Target { .. } => Self::new(Code::InvalidRequest, error.to_string()),
            FusionError::Coupling(_) | FusionError::Level(_) => Self::new(Code::NotSupportedYet, error.to_string()),
            FusionError::Empty | FusionError::Topology { .. } | FusionError::WidthsDiffer { .. } => {
                Self::new(Code::MembersIncompatible, error.to_string())
            }
        }
    }
}
