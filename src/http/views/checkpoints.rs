//! Checkpoints as they are shown.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::time;
use crate::model::header::{Dtype, TensorInfo};
use crate::store::checkpoints::Checkpoint;

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
    /// Its tensors, in natural order of their names.
    tensors: Vec<TensorView>,
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

impl From<&Checkpoint> for CheckpointSummary {
    fn from(checkpoint: &Checkpoint) -> Self {
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

impl From<Checkpoint> for CheckpointView {
    fn from(checkpoint: Checkpoint) -> Self {
        let summary = CheckpointSummary::from(&checkpoint);
        Self { summary, tensors: checkpoint.header.tensors.into_iter().map(TensorView::from).collect() }
    }
}
