//! Why a checkpoint cannot be used.

use std::path::PathBuf;

use crate::domain::problem::{Code, Problem};
use crate::model::formats::FormatError;

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The gate refused.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A folder, or what a file names beside it and is no file there.
    #[error("{path} {reason}")]
    Beside {
        /// The file.
        path: PathBuf,
        /// What it is.
        reason: &'static str,
    },
    /// There is no such tensor.
    #[error("there is no tensor `{0}`")]
    Missing(String),
    /// Weights must be floats.
    #[error("tensor `{0}` holds integers where weights are expected")]
    NotFloat(String),
    /// NaN or infinity.
    #[error("tensor `{name}` holds {value} at index {index}; weights must be finite")]
    NonFinite {
        /// The tensor.
        name: String,
        /// Position of the first such element, row-major.
        index: usize,
        /// What stands there, after conversion to f32.
        value: f32,
    },
}

impl From<CheckpointError> for Problem {
    fn from(error: CheckpointError) -> Self {
        let code = match &error {
            CheckpointError::NonFinite { .. } => Code::NonFiniteWeights,
            CheckpointError::Io { source, .. } => Code::of_system(source),
            CheckpointError::Format(FormatError::Io { code, .. }) => *code,
            _ => Code::InvalidCheckpoint,
        };
        Self::new(code, error.to_string())
    }
}
