//! Why an ONNX file is not read.

use crate::domain::problem::{Code, Problem};
use crate::model::formats::protobuf::WireError;
use crate::model::graph::GraphError;

/// Why an ONNX file is not a network that can be read here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    /// Not the protocol buffers of an ONNX model.
    #[error("the file is no ONNX model, or is truncated: {0}")]
    Wire(#[from] WireError),
    /// Readable as a message, but without what every model has.
    #[error("the file is no usable ONNX model: {0}")]
    Model(String),
    /// More of something than is read.
    #[error("the ONNX model has {what}; at most {most} are read")]
    Limit {
        /// Of what there are too many.
        what: String,
        /// How many are read.
        most: usize,
    },
    /// A tensor that cannot be used.
    #[error("tensor `{name}`: {detail}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it, and what to do.
        detail: String,
    },
    /// An operator that is not one of a network's operations.
    #[error("node `{node}` (operator {operator}, output `{output}`): {detail}")]
    Node {
        /// The node's name.
        node: String,
        /// Its operator.
        operator: String,
        /// Its first output.
        output: String,
        /// Why it cannot be read.
        detail: String,
    },
    /// Operations that do not make a network.
    #[error("the network of the ONNX file: {0}")]
    Graph(#[from] GraphError),
}

impl From<OnnxError> for Problem {
    fn from(error: OnnxError) -> Self {
        Self::new(Code::InvalidCheckpoint, error.to_string())
    }
}
