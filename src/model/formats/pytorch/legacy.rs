//! The container before PyTorch 1.6: pickles of a magic number, a version, the machine that wrote it, the object and the names
//! of its storages, then each storage, an element count before it.

use std::collections::BTreeMap;

use super::error::PyTorchError;
use super::storages::Storages;
use super::value::{Pickle, PickleValue};
use super::{lay_out, pickle};
use crate::model::formats::archive::EntryContent;
use crate::model::formats::error::FormatError;
use crate::model::formats::layout::Layout;

/// Bytes before a storage: the number of its elements.
const COUNT_BYTES: usize = 8;

/// Reads the file `bytes`, which begins with the magic number.
pub(in crate::model::formats) fn read(bytes: &[u8]) -> Result<Layout, FormatError> {
    let mut at = 0;
    let mut next = || {
        let pickle = pickle::read(&bytes[at..])?;
        at += pickle.len;
        Ok::<_, PyTorchError>(pickle)
    };
    let (_magic, _version, system) = (next()?, next()?, next()?);
    if system.get(system.root, "little_endian") == Some(PickleValue::Bool(false)) {
        return Err(PyTorchError::BigEndian.into());
    }
    let (object, keys) = (next()?, next()?);
    let storages = Behind { places: places(bytes, at, &object, &keys)? };
    lay_out(&object, &storages)
}

/// Storages that stand one behind the other.
struct Behind<'a> {
    places: BTreeMap<&'a str, EntryContent>,
}

impl Storages for Behind<'_> {
    fn content(&self, key: &str) -> Result<EntryContent, &'static str> {
        self.places.get(key).copied().ok_or("which the file does not hold")
    }
}

/// Where each storage lies in the file, from byte `at` on.
fn places<'a>(
    bytes: &[u8],
    mut at: usize,
    object: &Pickle<'_>,
    keys: &Pickle<'a>,
) -> Result<BTreeMap<&'a str, EntryContent>, PyTorchError> {
    let sizes = object.heap.storages.iter().map(|storage| (object.str(storage.key), storage.element.size()));
    let sizes: BTreeMap<&str, Option<u64>> = sizes.collect();
    let mut places = BTreeMap::new();
    for key in keys.items(keys.root).unwrap_or_default() {
        let key = keys.text(*key).unwrap_or_default();
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<COUNT_BYTES>());
        let begin = at + COUNT_BYTES;
        // The size of elements of an unknown type is unknown, and so where the next storage begins.
        let size = sizes.get(key).copied().flatten();
        let len = count.zip(size).and_then(|(count, size)| u64::from_le_bytes(*count).checked_mul(size));
        let end = len.and_then(|len| usize::try_from(len).ok()?.checked_add(begin)).filter(|end| *end <= bytes.len());
        let Some(end) = end else {
            let fault = "where the file ends, or which holds elements of an unknown type";
            return Err(PyTorchError::Storage { name: "(all)".to_owned(), key: key.chars().take(32).collect(), fault });
        };
        places.insert(key, EntryContent::Stored { begin: begin as u64, end: end as u64 });
        at = end;
    }
    Ok(places)
}
