//! What the file of a fused model's origin holds, for the API's description; the tests of the pipeline hold every file to it.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::model::refit::Compensation;
use crate::report::{Choice, Computation};

/// Where the units of a fused network come from, and everything that it was made with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProvenanceView {
    /// Version of engraft that computed it.
    #[schema(example = "0.1.0")]
    pub engraft_version: String,
    /// The request with every default filled in.
    #[schema(schema_with = super::requested)]
    pub job: Value,
    /// The members, in the order of the job.
    pub members: Vec<SourceView>,
    /// The dataset that it was trained and measured with.
    pub dataset: Option<SourceView>,
    /// The dataset that networks were chosen on, where it is another.
    pub validation: Option<SourceView>,
    /// The dataset that was tested on, where it is another.
    pub test: Option<SourceView>,
    /// How layers were refitted behind the selection.
    pub compensation: Option<Compensation>,
    /// What the ranking `auto` chose from.
    pub choice: Option<Choice>,
    /// What it was computed with.
    pub computation: Option<Computation>,
    /// Each member's weight in the mean of the outputs.
    #[schema(example = json!([0.5, 0.5]))]
    pub shares: Vec<f32>,
    /// Every group of layers that share their units, in pruning order.
    pub groups: Vec<OriginView>,
}

/// A file by what it is, not by where it lay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceView {
    /// Its name.
    #[schema(example = "m0.safetensors")]
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub sha256: String,
}

/// Where the units of one group come from.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OriginView {
    /// The layers whose outputs these units are.
    #[schema(example = json!(["fc1"]))]
    pub layers: Vec<String>,
    /// For each unit of the fused network, in its order, `[member, unit]`: the unit of the member, both counted from 0.
    #[schema(example = json!([[0, 17], [1, 4]]))]
    pub units: Vec<[usize; 2]>,
}
