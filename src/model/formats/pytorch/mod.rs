//! Files that `torch.save` writes: `state_dict`s, dicts of training code with one in them, and whole models. No code of a file is
//! ever run.

pub mod dictionary;
pub mod error;
mod legacy;
mod model;
mod pickle;
mod rebuild;
mod storages;
mod value;
mod weights;
mod zipped;

use std::collections::BTreeMap;

pub(super) use legacy::read as read_legacy;
pub(super) use zipped::{folder, read as read_zip};

use self::error::PyTorchError;
use self::storages::Storages;
use self::value::{Pickle, PickleValue};
use crate::model::formats::error::FormatError;
use crate::model::formats::layout::Layout;
use crate::model::formats::limits::{MAX_NAME_BYTES, MAX_TENSORS};
use crate::model::header::ModuleInfo;

/// Weights by their names.
#[derive(Debug, Default)]
struct Found {
    /// Tensors, or what stands in place of one.
    tensors: Vec<(String, PickleValue)>,
    /// What was chosen or left out, in words.
    notes: Vec<String>,
    /// The modules, where it is a whole model.
    modules: Vec<ModuleInfo>,
}

/// The weights of a pickle whose tensors lie in `storages`.
fn lay_out(pickle: &Pickle<'_>, storages: &impl Storages) -> Result<Layout, FormatError> {
    let Found { tensors, notes, modules } = weights::find(pickle)?;
    if tensors.len() > MAX_TENSORS {
        return Err(FormatError::TooManyTensors);
    }
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, value) in tensors {
        // Before a message repeats it.
        if name.len() > MAX_NAME_BYTES {
            return Err(FormatError::BadName { start: name.chars().take(32).collect(), len: name.len() });
        }
        match value {
            PickleValue::StorageView(id) => {
                entries.push(storages::entry(pickle, storages, name, &pickle.heap.tensors[id as usize])?);
            }
            PickleValue::OddTensor(function) => {
                let kind = match pickle.str(function) {
                    "_rebuild_qtensor" => "quantised".to_owned(),
                    "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => "sparse".to_owned(),
                    function => {
                        format!("made by `{}`, which is not read", function.chars().take(64).collect::<String>())
                    }
                };
                return Err(PyTorchError::OddTensor { name, kind }.into());
            }
            _ => {}
        }
    }
    let mut layout = Layout::of(entries, BTreeMap::new())?;
    layout.header.notes = notes;
    layout.header.modules = modules;
    Ok(layout)
}
