//! What is known of the files that a job names, and the networks that follow from them.

use serde::{Deserialize, Serialize};

use crate::domain::dataset::DatasetFacts;
use crate::domain::speed::Speed;
use crate::model::depth::DepthPadding;
use crate::model::families::{Detected, Evidence};
use crate::model::graph::Graph;
use crate::model::header::CheckpointHeader;
use crate::model::plan::FusionPlan;
use crate::model::precision::Precision;
use crate::plan::held_out::{KnownDataset, own_validation};
use crate::plan::recovery::Recovery;
use crate::settings::{BatchNorm, Compensate, Importance, OwnValidation, PredictionTask};

/// A dataset that a job names.
#[derive(Debug, Clone, Copy)]
pub enum DatasetInput<'a> {
    /// Read through.
    Ready(&'a DatasetFacts),
    /// Still being read through: the job waits for the outcome.
    Validating,
}

impl<'a> DatasetInput<'a> {
    pub(super) fn facts(self) -> Option<&'a DatasetFacts> {
        match self {
            Self::Ready(facts) => Some(facts),
            Self::Validating => None,
        }
    }
}

impl JobFiles<'_> {
    /// What is known of the dataset.
    pub(super) fn known_dataset(&self) -> KnownDataset<'static> {
        KnownDataset { sha256: None, own: self.facts().map_or_else(OwnValidation::default, own_validation) }
    }

    /// What reading the dataset has shown; none while that goes on.
    pub(super) fn facts(&self) -> Option<&DatasetFacts> {
        self.dataset.and_then(DatasetInput::facts)
    }

    /// Whether the dataset, as far as it has been read, has labels.
    pub(super) fn has_labels(&self) -> bool {
        self.facts().is_none_or(DatasetFacts::has_labels)
    }
}

/// How fast a job will be computed, as far as that is known; by assumption where nobody has measured it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KnownSpeed {
    /// Of the device that the job gets.
    pub speed: Speed,
    /// Where it was measured.
    pub measured_on: Option<String>,
}

/// What is known of the files that a job names, and of the machine that gets it.
#[derive(Debug, Clone, Default)]
pub struct JobFiles<'a> {
    /// The members' headers, in the request's order.
    pub members: Vec<&'a CheckpointHeader>,
    /// The dataset, if the request names one.
    pub dataset: Option<DatasetInput<'a>>,
    /// The validation dataset, likewise.
    pub validation: Option<DatasetInput<'a>>,
    /// The test dataset, likewise.
    pub test: Option<DatasetInput<'a>>,
    /// How fast it will be computed.
    pub speed: KnownSpeed,
}

/// The networks of a job.
#[derive(Debug, Clone)]
pub struct Network {
    /// The members' graphs, all of one depth.
    pub detected: Detected,
    /// How sure it is that they are that network.
    pub evidence: Evidence,
    /// The members' graphs as their files have them.
    pub own: Vec<Graph>,
    /// How members of less depth are padded; none for the others.
    pub paddings: Vec<Option<DepthPadding>>,
    /// What they predict.
    pub task: PredictionTask,
    /// Element types of the fused network's tensors.
    pub precision: Precision,
    /// How units are ranked; [`Importance::Auto`] only where consumers are refitted on calibration data.
    pub importance: Importance,
    /// Whether and how consumers are refitted; never [`Compensate::Auto`].
    pub compensate: Compensate,
    /// What becomes of the statistics of BatchNorm; never [`BatchNorm::Auto`].
    pub batch_norm: BatchNorm,
    /// Widths, costs.
    pub fusion: FusionPlan,
    /// How the fused network is trained, if it is.
    pub recovery: Option<Recovery>,
}
