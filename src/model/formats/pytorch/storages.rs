//! From tensors of a pickle to places in the file.

use super::error::PyTorchError;
use super::value::{Pickle, StorageElement, StorageView};
use crate::model::formats::archive::EntryContent;
use crate::model::formats::error::FormatError;
use crate::model::formats::layout::{ByteSource, Packed, TensorEntry, TensorPlace, extent, is_row_major};

/// Where the bytes of storages are: a container's answer to a storage's name.
pub(super) trait Storages {
    /// The bytes of the storage `key`; the fault where it has none.
    fn content(&self, key: &str) -> Result<EntryContent, &'static str>;
}

/// The tensor `name` of a `state_dict`, in its place in the file.
pub(super) fn entry(
    pickle: &Pickle<'_>,
    storages: &impl Storages,
    name: String,
    tensor: &StorageView,
) -> Result<TensorEntry, FormatError> {
    let StorageElement::Known(dtype) = tensor.element else {
        let dtype = match tensor.element {
            StorageElement::Unknown(name) => pickle.str(name).chars().take(64).collect(),
            _ => "bytes".to_owned(),
        };
        return Err(FormatError::UnknownDtype { name, dtype });
    };
    let storage = &pickle.heap.storages[tensor.storage as usize];
    let fault = |fault| {
        let key = pickle.str(storage.key).chars().take(32).collect();
        FormatError::from(PyTorchError::Storage { name: name.clone(), key, fault })
    };
    let content = storages.content(pickle.str(storage.key)).map_err(fault)?;
    let size = dtype.size() as u64;
    let bytes = |count: u64, size: Option<u64>| size.and_then(|size| count.checked_mul(size));
    let outside = || fault("which is shorter than the pickle says");
    let first = bytes(storage.first, storage.element.size()).ok_or_else(outside)?;
    let len = bytes(storage.elements, storage.element.size()).ok_or_else(outside)?;
    if first.checked_add(len).is_none_or(|end| end > content.size()) {
        return Err(outside());
    }
    let (shape, strides) = (&tensor.shape, &tensor.strides);
    let shorter = || fault("which is shorter than the tensor");
    let span = bytes(extent(shape, strides).ok_or_else(shorter)?, Some(size)).ok_or_else(shorter)?;
    let offset = bytes(tensor.offset, Some(size)).ok_or_else(shorter)?;
    if offset.checked_add(span).is_none_or(|end| end > len) {
        return Err(shorter());
    }
    let begin = first + offset;
    let strides = strides.clone();
    let place = match content {
        EntryContent::Stored { begin: front, .. } if is_row_major(shape, &strides) => {
            TensorPlace::Span { begin: front + begin, end: front + begin + span }
        }
        EntryContent::Stored { begin: front, .. } => TensorPlace::Strided { begin: front + begin, strides },
        EntryContent::Deflated(deflated) => {
            TensorPlace::Packed(Packed { source: ByteSource::Deflated(deflated), begin, strides, big_endian: false })
        }
    };
    Ok(TensorEntry { name, dtype, shape: shape.clone(), place })
}
