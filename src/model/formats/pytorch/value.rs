//! What pickles hold, as plain data: nothing in here can run. Values are small and refer to the heap of their pickle, so that
//! one that is named a thousand times is there once.

use crate::model::header::Dtype;

/// A value of a pickle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PickleValue {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A part of the pickle's bytes.
    Text(Text),
    /// The name of a class or a function.
    Global(u32),
    /// A list or a set.
    List(u32),
    Tuple(u32),
    Dict(u32),
    /// An instance of a class.
    PickledObject(u32),
    Storage(u32),
    StorageView(u32),
    /// A tensor that is no array of numbers in a storage, by the function that would make it.
    OddTensor(Text),
    /// A part of the pickle's bytes that is no text.
    Bytes(Text),
    /// Anything that weights do not need, as long integers.
    Opaque,
}

/// Where a text stands in the pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) begin: u32,
    pub(super) end: u32,
}

/// The name of a class or a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Global {
    pub(super) module: Text,
    pub(super) name: Text,
}

/// An instance of a class.
#[derive(Debug, Clone, Copy)]
pub(super) struct PickledObject {
    pub(super) class: PickleValue,
    /// What it was given to be set up with.
    pub(super) state: PickleValue,
    /// Its items, where it is a mapping; the number of a dict.
    pub(super) items: Option<u32>,
}

/// What elements of a storage are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StorageElement {
    Known(Dtype),
    /// Bytes; the tensor says what they are.
    Untyped,
    /// A type that is not read, by its name.
    Unknown(Text),
}

impl StorageElement {
    /// Bytes of one, where that is known.
    pub(super) fn size(self) -> Option<u64> {
        match self {
            Self::Known(dtype) => Some(dtype.size() as u64),
            Self::Untyped => Some(1),
            Self::Unknown(_) => None,
        }
    }
}

/// A run of elements outside the pickle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage {
    pub(super) element: StorageElement,
    /// Its name in the container.
    pub(super) key: Text,
    /// Number of elements.
    pub(super) elements: u64,
    /// The first of them in the storage `key`, counted in elements; 0 but for views of other storages.
    pub(super) first: u64,
}

/// A view of a storage.
#[derive(Debug, Clone)]
pub(super) struct StorageView {
    pub(super) storage: u32,
    pub(super) element: StorageElement,
    /// Elements before the first.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    /// Elements between neighbours along each axis.
    pub(super) strides: Vec<u64>,
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) heap: Heap,
    pub(super) root: PickleValue,
    /// Its length.
    pub(super) len: usize,
}

/// Everything that values refer to.
#[derive(Debug, Default)]
pub(super) struct Heap {
    pub(super) lists: Vec<Vec<PickleValue>>,
    pub(super) dicts: Vec<Vec<(PickleValue, PickleValue)>>,
    pub(super) globals: Vec<Global>,
    pub(super) objects: Vec<PickledObject>,
    pub(super) storages: Vec<Storage>,
    pub(super) tensors: Vec<StorageView>,
}

impl<'a> Pickle<'a> {
    /// The text, if it is one.
    pub(super) fn text(&self, value: PickleValue) -> Option<&'a str> {
        if let PickleValue::Text(text) = value { Some(self.str(text)) } else { None }
    }

    /// The byte string, or the bytes of the text, if it is one: Python 2 wrote both alike.
    pub(super) fn bytes(&self, value: PickleValue) -> Option<&'a [u8]> {
        let (PickleValue::Text(run) | PickleValue::Bytes(run)) = value else { return None };
        self.bytes.get(run.begin as usize..run.end as usize)
    }

    /// The text at `text`; it was checked when it was read.
    pub(super) fn str(&self, text: Text) -> &'a str {
        text.of(self.bytes)
    }

    /// Module and name of a class or a function.
    pub(super) fn global(&self, value: PickleValue) -> Option<(&'a str, &'a str)> {
        let PickleValue::Global(id) = value else { return None };
        let global = self.heap.globals[id as usize];
        Some((self.str(global.module), self.str(global.name)))
    }

    /// The entries of a dict, or of an object that is one.
    pub(super) fn entries(&self, value: PickleValue) -> Option<&[(PickleValue, PickleValue)]> {
        let id = match value {
            PickleValue::Dict(id) => id,
            PickleValue::PickledObject(id) => self.heap.objects[id as usize].items?,
            _ => return None,
        };
        Some(&self.heap.dicts[id as usize])
    }

    /// The entry `key` of a dict; the last one where there are several.
    pub(super) fn get(&self, value: PickleValue, key: &str) -> Option<PickleValue> {
        let entries = self.entries(value)?.iter().rev();
        entries.into_iter().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }

    /// The items of a list, a set or a tuple.
    pub(super) fn items(&self, value: PickleValue) -> Option<&[PickleValue]> {
        match value {
            PickleValue::List(id) | PickleValue::Tuple(id) => Some(&self.heap.lists[id as usize]),
            _ => None,
        }
    }

    /// The attribute `name` of an object.
    pub(super) fn attribute(&self, object: u32, name: &str) -> Option<PickleValue> {
        let state = self.heap.objects[object as usize].state;
        match self.items(state) {
            // Attributes, and those of classes with slots.
            Some(parts) => parts.iter().find_map(|part| self.get(*part, name)),
            None => self.get(state, name),
        }
    }
}

impl Text {
    /// The text in the pickle `bytes` that it belongs to.
    pub(super) fn of(self, bytes: &[u8]) -> &str {
        bytes
            .get(self.begin as usize..self.end as usize)
            .and_then(|text| std::str::from_utf8(text).ok())
            .unwrap_or_default()
    }
}
