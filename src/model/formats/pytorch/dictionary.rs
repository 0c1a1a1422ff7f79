//! Dicts of plain values and NumPy arrays, as some datasets are pickled.

use super::error::PyTorchError;
use super::pickle;
use super::value::{Pickle, PickleValue};

/// A pickle that is a dict.
#[derive(Debug)]
pub struct PickledDictionary<'a>(Pickle<'a>);

/// A NumPy array as it was pickled.
#[derive(Debug, PartialEq, Eq)]
pub struct PickledArray<'a> {
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Its elements in row-major order, of whatever type.
    pub bytes: &'a [u8],
}

impl<'a> PickledDictionary<'a> {
    /// Reads the pickle at the front of `bytes`.
    ///
    /// # Errors
    /// When it is damaged, or holds more values than are read.
    pub fn read(bytes: &'a [u8]) -> Result<Self, PyTorchError> {
        pickle::read_whole(bytes).map(Self)
    }

    /// The numbers of the list `key`.
    #[must_use]
    pub fn integers(&self, key: &str) -> Option<Vec<i64>> {
        let items = self.0.items(self.get(key)?)?.iter();
        items.map(|item| if let PickleValue::Int(value) = item { Some(*value) } else { None }).collect()
    }

    /// The texts of the list `key`.
    #[must_use]
    pub fn texts(&self, key: &str) -> Option<Vec<&'a str>> {
        self.0.items(self.get(key)?)?.iter().map(|item| self.0.text(*item)).collect()
    }

    /// The array `key`, where it was pickled by what NumPy's arrays give to be set up with: version, shape, type, whether the
    /// first axis runs fastest (it must not), and the bytes.
    #[must_use]
    pub fn array(&self, key: &str) -> Option<PickledArray<'a>> {
        let PickleValue::PickledObject(object) = self.get(key)? else { return None };
        let object = self.0.heap.objects[object as usize];
        let (module, name) = self.0.global(object.class)?;
        if !module.starts_with("numpy") || name != "_reconstruct" {
            return None;
        }
        let [_, shape, _, PickleValue::Bool(false), bytes] = self.0.items(object.state)? else { return None };
        let axes = self.0.items(*shape)?.iter();
        let shape = axes.map(|axis| if let PickleValue::Int(axis) = axis { usize::try_from(*axis).ok() } else { None });
        Some(PickledArray { shape: shape.collect::<Option<_>>()?, bytes: self.0.bytes(*bytes)? })
    }

    fn get(&self, key: &str) -> Option<PickleValue> {
        let entries = self.0.entries(self.0.root)?.iter().rev();
        let is_key = |name: PickleValue| self.0.bytes(name) == Some(key.as_bytes());
        entries.into_iter().find(|(name, _)| is_key(*name)).map(|(_, value)| *value)
    }
}
