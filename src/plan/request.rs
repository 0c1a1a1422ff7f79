//! What a client requests (`POST /v1/jobs`, `engraft fuse --job`): a whole job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::graph::Shape;
use crate::settings::{
    Architecture, DatasetRequest, Device, Finetune, Method, Precision, Reference, ReportCandidate, Target,
};

/// A whole job, as requested, with the defaults that need no knowledge of the files filled in. Its JSON form is the body of
/// `POST /v1/jobs` with every default written out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "serde_json::Value", try_from = "serde_json::Value")]
pub struct JobRequest {
    /// What its owner calls it: a title for lists and reports.
    pub name: Option<String>,
    /// Names or ids of the checkpoints; at least one.
    pub members: Vec<String>,
    /// Which network the members are.
    pub architecture: Architecture,
    /// Inputs and a member's own logits, which prove what the network is.
    pub reference: Option<Reference>,
    /// Accuracy of each member on the test split, as the client knows it; in [0, 1].
    pub accuracy: Option<Vec<f64>>,
    /// Shape of one example, where neither dataset nor checkpoint have it.
    pub input_shape: Option<Shape>,
    /// How the members become one network.
    pub method: Method,
    /// How large the fused network becomes.
    pub target: Target,
    /// Data; without it nothing is trained and nothing measured.
    pub dataset: Option<DatasetRequest>,
    /// Training; `None` for none.
    pub finetune: Option<Finetune>,
    /// What the report compares.
    pub evaluate: Vec<ReportCandidate>,
    /// Where to compute.
    pub device: Device,
    /// How exactly a GPU multiplies.
    pub precision: Precision,
    /// Whether a GPU computes the same bits each time.
    pub deterministic: bool,
    /// Seed of every random choice.
    pub seed: u64,
    /// Seconds of running after which the job fails.
    pub max_runtime_s: u64,
    /// From -10 to 10: among the jobs of a tenant a higher one is run first.
    pub priority: i8,
    /// The client's own labels, for filtering.
    pub labels: BTreeMap<String, String>,
}
