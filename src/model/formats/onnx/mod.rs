//! ONNX models as checkpoints that state their network: operators become the operations of a graph, initializers its tensors,
//! where they lie in the file.
//!
//! What comes here is what exporters of PyTorch write, by operators of version 13 and later. An operator or a group of them is
//! only taken for an operation that computes the same for every input; everything else is refused with its name.

mod adaptive;
mod arrange;
mod budget;
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
mod pools;
mod products;
mod reader;
mod recognise;
mod rims;
mod shapes;
mod size;
mod splits;
mod tokens;
mod value;
mod view;

use std::collections::BTreeMap;

pub use error::OnnxError;

use crate::model::formats::error::FormatError;
use crate::model::formats::layout::{Entry, Layout};
use crate::model::graph::Graph;
use crate::model::header::STATED_KEY;

/// The first version of the operators that is read: the first whose shapes are operands throughout.
const FIRST_OPSET: i64 = 13;

/// A network with its tensors.
#[derive(Debug)]
pub struct OnnxModel {
    /// The network.
    pub graph: Graph,
    /// Its tensors by their names in the `state_dict`, each with the place of its elements in the file.
    pub tensors: Vec<Entry>,
}

/// Reads the network of the ONNX file `bytes`.
///
/// # Errors
/// Names the node, its operator and output, or the tensor, that cannot be read.
pub fn read(bytes: &[u8]) -> Result<OnnxModel, OnnxError> {
    let file = file::read(bytes)?;
    if file.opset < FIRST_OPSET {
        let version = file.opset;
        let advice = format!("export with opset_version={FIRST_OPSET} or later");
        return Err(OnnxError::Model(format!("its operators are of version {version}; {advice}")));
    }
    let (reader, output) = reader::Reader::run(&file)?;
    network::build(&reader, output.node)
}

/// Reads what the ONNX file `bytes` holds: the network is stated in the layout's metadata.
///
/// # Errors
/// See [`read`]; and the checks of [`Layout`].
pub fn read_layout(bytes: &[u8]) -> Result<Layout, FormatError> {
    let OnnxModel { graph, tensors } = read(bytes)?;
    let stated = serde_json::json!(graph).to_string();
    Layout::of(tensors, BTreeMap::from([(STATED_KEY.to_owned(), stated)]))?.check_within(bytes.len() as u64)
}
