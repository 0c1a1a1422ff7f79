//! ONNX models as checkpoints that state their network: operators become the operations of a graph, initializers its tensors,
//! where they lie in the file.
//!
//! What comes here is what exporters of PyTorch write, by operators of version 13 and later. An operator or a group of them is
//! only taken for an operation that computes the same for every input; everything else is refused with its name.

mod adaptive;
mod arrange;
mod beside;
mod budget;
mod cast;
mod channels;
mod combine;
mod constant;
mod counting;
mod error;
mod file;
mod file_tensor;
mod folding;
mod functions;
mod layers;
mod names;
mod network;
mod nodes;
mod normalise;
mod numbers;
mod operands;
mod operation;
mod pixels;
mod pools;
mod products;
mod reader;
mod recognise;
mod responses;
mod rims;
mod shapes;
mod size;
mod splits;
mod sums;
mod tokens;
mod value;
mod view;

pub use beside::{Beside, files};
pub use error::OnnxError;

use crate::model::formats::layout::TensorEntry;
use crate::model::formats::protobuf::Piece;
use crate::model::graph::Graph;

/// The first version of the operators that is read: the first whose shapes are operands throughout.
const FIRST_OPSET: i64 = 13;

/// A network with its tensors.
#[derive(Debug)]
pub struct OnnxModel {
    /// The network.
    pub graph: Graph,
    /// Its tensors by their names in the `state_dict`, each with the place of its elements.
    pub tensors: Vec<TensorEntry>,
}

/// Reads the network of the ONNX file `bytes`, all of whose data lie in it.
///
/// # Errors
/// See [`read_with`].
pub fn read(bytes: &[u8]) -> Result<OnnxModel, OnnxError> {
    read_with(Piece { bytes, begin: 0 }, &Beside::new())
}

/// Reads the network of an ONNX file, and of the files beside it, each with the place of its first byte.
///
/// # Errors
/// Names the node, its operator and output, or the tensor, that cannot be read.
pub fn read_with<'a>(model: Piece<'a>, beside: &Beside<'a>) -> Result<OnnxModel, OnnxError> {
    let file = file::read(model, beside)?;
    if file.opset < FIRST_OPSET {
        let version = file.opset;
        let advice = format!("export with opset_version={FIRST_OPSET} or later");
        return Err(OnnxError::Model(format!("its operators are of version {version}; {advice}")));
    }
    let (reader, output) = reader::Reader::run(&file)?;
    network::build(&reader, output.node)
}
