//! What a checkpoint file says of itself before any weight is read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::settings::HeldOut;

/// Element types that checkpoints may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 16-bit float.
    F16,
    /// bfloat16.
    Bf16,
    /// 64-bit integer (BatchNorm counters).
    I64,
    /// 32-bit integer.
    I32,
    /// 16-bit integer.
    I16,
    /// 8-bit integer.
    I8,
    /// 64-bit unsigned integer.
    U64,
    /// 32-bit unsigned integer.
    U32,
    /// 16-bit unsigned integer.
    U16,
    /// 8-bit unsigned integer.
    U8,
    /// A byte that is 0 or 1.
    Bool,
}

/// All element types, by their names in safetensors files.
pub const DTYPES: [(&str, Dtype); 13] = [
    ("F32", Dtype::F32),
    ("F64", Dtype::F64),
    ("F16", Dtype::F16),
    ("BF16", Dtype::Bf16),
    ("I64", Dtype::I64),
    ("I32", Dtype::I32),
    ("I16", Dtype::I16),
    ("I8", Dtype::I8),
    ("U64", Dtype::U64),
    ("U32", Dtype::U32),
    ("U16", Dtype::U16),
    ("U8", Dtype::U8),
    ("BOOL", Dtype::Bool),
];

impl Dtype {
    /// Bytes per element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether a weight may have this type.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::Bf16)
    }
}

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Name in the `state_dict`.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, PyTorch's order.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// All tensors of a checkpoint, in natural order of their names (`fc2` before `fc10`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointHeader {
    /// The tensors.
    pub tensors: Vec<TensorInfo>,
    /// The network that the file's metadata states, in the JSON form of a graph; not checked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stated: Option<serde_json::Value>,
    /// What the training that engraft gave the network never saw of its dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// Bytes of tensors that have to be copied to memory, for the file holds them in another order, or packed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub copied_bytes: u64,
    /// What the reader of the file chose or left out, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The modules of a pickled model, each before those that are parts of it, in the order in which they were added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<ModuleInfo>,
    /// Of an index of shards alone, which has no tensors: the tensors that each shard holds, by the shards' file names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shards: BTreeMap<String, BTreeSet<String>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// A module of a pickled model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// Its name in the model, empty for the model itself.
    pub name: String,
    /// The name of its class, `torch.nn.modules.linear.Linear`.
    pub class: String,
    /// Those of its settings that are numbers, texts, or lists of numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, serde_json::Value>,
}

/// The entry of a file's metadata that states what network its tensors are.
pub const STATED_KEY: &str = "engraft_graph";

/// The entry of a file's metadata that says what a training never saw.
pub const HELD_OUT_KEY: &str = "engraft_held_out";

/// The entry of a file's metadata that names the shards which it was put together from, as a list in JSON.
pub const SHARDS_KEY: &str = "engraft_shards";

impl CheckpointHeader {
    /// A header that states no network.
    #[must_use]
    pub fn new(tensors: Vec<TensorInfo>) -> Self {
        Self {
            tensors,
            stated: None,
            held_out: None,
            copied_bytes: 0,
            notes: Vec::new(),
            modules: Vec::new(),
            shards: BTreeMap::new(),
        }
    }

    /// Of an index of shards.
    #[must_use]
    pub fn of_index(shards: BTreeMap<String, BTreeSet<String>>) -> Self {
        Self { shards, ..Self::new(Vec::new()) }
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

#[cfg(test)]
impl CheckpointHeader {
    /// A header of float tensors with these names and shapes.
    pub(crate) fn of_floats(shapes: &[(&str, &[usize])]) -> Self {
        let tensor = |(name, shape): &(&str, &[usize])| TensorInfo {
            name: (*name).to_owned(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
        };
        Self::new(shapes.iter().map(tensor).collect())
    }
}
