//! Checkpoints as they are shown.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::time;
use crate::model::costs::Costs;
use crate::model::families::{GroupSummary, Inspection, Open, Outline, inspect};
use crate::model::header::{CheckpointHeader, Dtype, TensorInfo};
use crate::settings::Settings;
use crate::store::checkpoints::StoredCheckpoint;

/// A checkpoint in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckpointSummary {
    /// Its id.
    #[schema(example = "ckpt_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    pub id: String,
    /// Its name, unique among the tenant's checkpoints.
    #[schema(example = "m0.safetensors")]
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub sha256: String,
    /// Its length.
    #[schema(example = 4_194_304)]
    pub bytes: u64,
    /// Number of weights, integer counters included.
    #[schema(example = 1_048_576)]
    pub parameters: u64,
    /// The client's own marks.
    pub labels: BTreeMap<String, String>,
    /// When it was uploaded.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    pub created_at: String,
}

/// A checkpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckpointView {
    #[serde(flatten)]
    summary: CheckpointSummary,
    #[serde(flatten)]
    content: ContentView,
}

/// What is in a checkpoint file.
#[derive(Debug, Serialize, ToSchema)]
pub struct ContentView {
    /// Its tensors, in natural order of their names.
    tensors: Vec<TensorView>,
    /// What the tensors' names and shapes tell of the network.
    architecture: ArchitectureView,
    /// Of an index of shards: the files that it names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shards: Vec<ShardView>,
}

/// A file that an index names.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShardView {
    /// Its name.
    #[schema(example = "model-00001-of-00002.safetensors")]
    name: String,
    /// Number of tensors in it.
    #[schema(example = 148)]
    tensors: usize,
}

/// What a checkpoint was recognised as.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ArchitectureView {
    /// How sure it is: `certain` where one network fits names and shapes, `ambiguous` where several do.
    #[schema(example = "ambiguous")]
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<String>,
    /// Why, in words.
    #[schema(example = "12 networks fit names and shapes")]
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// What names and shapes leave open, where several networks fit. A labelled dataset, a reference or the settings
    /// themselves decide in a job.
    open: Vec<OpenView>,
    /// The family of the most usual network that fits.
    #[schema(example = "mlp")]
    family: Option<String>,
    /// Shape of one input example.
    #[schema(example = json!([784]))]
    input_shape: Option<Vec<usize>>,
    /// What names and shapes do not say of that network and is assumed.
    #[schema(example = json!(["activation: relu", "no activation after the last layer"]))]
    assumptions: Vec<String>,
    /// What the network costs.
    costs: Option<CostsView>,
    /// Units that are kept or dropped together, in pruning order.
    groups: Vec<GroupView>,
    /// Why there are no groups, and so no fusion by pruning.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_groups: Option<String>,
    /// The networks that fit, where there are several, the most usual first; at most 100.
    candidates: Vec<CandidateView>,
    /// Why no network fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    unrecognised: Option<String>,
}

/// One of several networks that fit.
#[derive(Debug, Serialize, ToSchema)]
pub struct CandidateView {
    /// The family.
    #[schema(example = "vgg")]
    family: String,
    /// Shape of one input example.
    #[schema(example = json!([3, 32, 32]))]
    input_shape: Vec<usize>,
    /// The settings that distinguish it from the others, as `architecture` of a job takes them.
    #[schema(value_type = Object, example = json!({"activation": "relu", "pool": "max"}))]
    settings: Settings,
}

/// Something that names and shapes leave open.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenView {
    /// Name of the setting in `architecture` of a job; `family` and `input_shape` for these.
    #[schema(example = "activation")]
    setting: String,
    /// Its values, the most usual first.
    #[schema(example = json!(["relu", "gelu", "tanh"]))]
    values: Vec<String>,
}

/// What a network costs.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostsView {
    /// Trainable weights; running statistics are not counted.
    #[schema(example = 668_672)]
    parameters: u64,
    /// Multiply-accumulate operations of matrices, convolutions and attentions for one example.
    #[schema(example = 668_672)]
    macs: u64,
    /// Bytes of all float tensors, in their own element types.
    #[schema(example = 2_674_688)]
    bytes: u64,
}

/// Units that are kept or dropped together.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupView {
    /// Name of the first layer that makes its units and no others.
    #[schema(example = "fc1")]
    name: String,
    /// Number of units.
    #[schema(example = 512)]
    width: usize,
    /// The layers whose outputs they are.
    #[schema(example = json!(["fc1"]))]
    layers: Vec<String>,
}

/// Most networks that are listed.
const MOST_CANDIDATES: usize = 100;

impl From<Inspection> for ArchitectureView {
    fn from(found: Inspection) -> Self {
        let open = |open: Open| OpenView { setting: open.name, values: open.values };
        let rest = Self {
            evidence: found.evidence.as_ref().map(|evidence| evidence.degree.name().to_owned()),
            why: found.evidence.map(|evidence| evidence.why),
            open: found.open.into_iter().map(open).collect(),
            candidates: found.candidates.into_iter().take(MOST_CANDIDATES).map(CandidateView::from).collect(),
            unrecognised: found.unrecognised,
            ..Self::default()
        };
        match found.network {
            Some(network) => Self {
                family: Some(network.family),
                input_shape: Some(network.input_shape),
                assumptions: network.assumptions,
                costs: Some(network.costs.into()),
                groups: network.groups.into_iter().map(GroupView::from).collect(),
                no_groups: network.no_groups,
                ..rest
            },
            None => rest,
        }
    }
}

impl From<Outline> for CandidateView {
    fn from(Outline { family, input_shape, settings }: Outline) -> Self {
        Self { family, input_shape, settings }
    }
}

impl From<Costs> for CostsView {
    fn from(Costs { parameters, macs, bytes }: Costs) -> Self {
        Self { parameters, macs, bytes }
    }
}

impl From<GroupSummary> for GroupView {
    fn from(GroupSummary { name, width, layers }: GroupSummary) -> Self {
        Self { name, width, layers }
    }
}

impl From<CheckpointHeader> for ContentView {
    fn from(header: CheckpointHeader) -> Self {
        let architecture = match header.shards.len() {
            0 => inspect(&header).into(),
            files => ArchitectureView {
                unrecognised: Some(format!("an index of {files} shards: POST /v1/checkpoints puts them together")),
                ..ArchitectureView::default()
            },
        };
        let shards = header.shards.into_iter().map(|(name, held)| ShardView { name, tensors: held.len() });
        Self {
            architecture,
            shards: shards.collect(),
            tensors: header.tensors.into_iter().map(TensorView::from).collect(),
        }
    }
}

/// A tensor of a checkpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct TensorView {
    /// Name in the `state_dict`.
    #[schema(example = "fc1.weight")]
    name: String,
    /// Element type.
    #[schema(value_type = String, example = "f32")]
    dtype: Dtype,
    /// Shape, in PyTorch's order.
    #[schema(example = json!([512, 784]))]
    shape: Vec<usize>,
}

impl From<TensorInfo> for TensorView {
    fn from(tensor: TensorInfo) -> Self {
        Self { name: tensor.name, dtype: tensor.dtype, shape: tensor.shape }
    }
}

impl From<&StoredCheckpoint> for CheckpointSummary {
    fn from(checkpoint: &StoredCheckpoint) -> Self {
        let file = checkpoint.file.clone();
        let elements = checkpoint.header.tensors.iter().map(|tensor| tensor.elements() as u64);
        Self {
            id: file.id,
            name: file.name,
            sha256: file.sha256,
            bytes: file.bytes,
            parameters: elements.sum(),
            labels: file.labels,
            created_at: time(file.created_at),
        }
    }
}

impl From<StoredCheckpoint> for CheckpointView {
    fn from(checkpoint: StoredCheckpoint) -> Self {
        Self { summary: CheckpointSummary::from(&checkpoint), content: checkpoint.header.into() }
    }
}
