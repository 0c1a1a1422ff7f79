//! What a network in JSON holds, for the API's description; `docs/graph.schema.json` says all of it, and the tests of the pipeline hold
//! every file to it.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A network, as `architecture.graph` of a job takes it: operations in order of computation, the last one the output.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkView {
    /// Its operations.
    pub nodes: Vec<NodeView>,
}

/// An operation.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NodeView {
    /// Its name, unique; for operations with tensors the module's name in the `state_dict`.
    #[schema(example = "conv1")]
    pub name: String,
    /// What it computes.
    #[schema(example = "conv2d")]
    pub op: String,
    /// Names of the operations that it reads; the one before it where this is missing.
    #[schema(example = json!(["input"]))]
    pub inputs: Option<Vec<String>>,
    /// Its settings, such as `in_channels` and `kernel`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub settings: Map<String, Value>,
}
