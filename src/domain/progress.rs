//! How far a job is, and what is measured on the way.

use serde::{Deserialize, Serialize};

use crate::domain::score::Score;

/// The steps of a job, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Open and check the input files.
    Load,
    /// Recognise the architecture, lay out the fused network.
    Plan,
    /// Show that the concatenation equals the ensemble.
    Verify,
    /// Rank the units.
    Score,
    /// Keep the best and gather them.
    Prune,
    /// Refit the consumers of what was kept.
    Compensate,
    /// Train the fused network.
    Finetune,
    /// Measure the candidates.
    Evaluate,
    /// Write the artifacts.
    Publish,
}

impl Phase {
    /// The phase as it stands in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Plan => "plan",
            Self::Verify => "verify",
            Self::Score => "score",
            Self::Prune => "prune",
            Self::Compensate => "compensate",
            Self::Finetune => "finetune",
            Self::Evaluate => "evaluate",
            Self::Publish => "publish",
        }
    }
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The running phase.
    pub phase: Phase,
    /// Of the phase, in [0, 1].
    pub fraction: f64,
    /// Finished epochs.
    pub epoch: Option<usize>,
    /// Steps (batches) done in this epoch.
    pub step: Option<usize>,
    /// Training speed.
    pub images_per_s: Option<f64>,
    /// Seconds to the end of the phase.
    pub eta_s: Option<f64>,
    /// Of the whole job, in [0, 1], by the times that its plan expects; none before there is a plan.
    #[serde(default)]
    pub job_fraction: Option<f64>,
    /// Seconds to the end of the job.
    #[serde(default)]
    pub job_eta_s: Option<f64>,
}

impl Progress {
    /// The beginning of a phase.
    #[must_use]
    pub fn at(phase: Phase) -> Self {
        Self {
            phase,
            fraction: 0.0,
            epoch: None,
            step: None,
            images_per_s: None,
            eta_s: None,
            job_fraction: None,
            job_eta_s: None,
        }
    }

    /// The same at the end of the job.
    #[must_use]
    pub fn done(self) -> Self {
        Self { fraction: 1.0, eta_s: None, job_fraction: Some(1.0), job_eta_s: None, ..self }
    }
}

/// One epoch of training; epoch 0 is the network before its first step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EpochMetrics {
    /// Finished epochs.
    pub epoch: usize,
    /// Mean objective over the epoch's steps; none for epoch 0.
    pub train_loss: Option<f64>,
    /// Share of the epoch's training examples that were right when they were seen; none where several labels or numbers are predicted.
    pub train_accuracy: Option<f64>,
    /// On the validation split, if there is one.
    pub validation: Option<Score>,
    /// On the test split, if there is one.
    pub test: Option<Score>,
    /// Learning rate of the epoch's last step.
    pub lr: Option<f64>,
    /// Training speed.
    pub images_per_s: Option<f64>,
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For the curious.
    Info,
    /// Something a user should look at.
    Warning,
}
