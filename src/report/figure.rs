//! The figure that networks are compared by, by what they predict.

use super::CandidateReport;
use crate::domain::score::{Measures, Score, significant};
use crate::settings::PredictionTask;

/// The figure that networks are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// Share of examples that are right.
    Accuracy,
    /// Share of labels that are right.
    LabelAccuracy,
    /// Root of the mean squared error.
    Rmse,
}

impl Figure {
    /// Of networks of this task.
    pub(super) fn of(task: PredictionTask) -> Self {
        match task {
            PredictionTask::Classification | PredictionTask::Binary => Self::Accuracy,
            PredictionTask::MultiLabel => Self::LabelAccuracy,
            PredictionTask::Regression => Self::Rmse,
        }
    }

    /// At the beginning of a sentence.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Accuracy => "Accuracy",
            Self::LabelAccuracy => "Share of right labels",
            Self::Rmse => "RMSE",
        }
    }

    /// In a sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::LabelAccuracy => "share of right labels",
            Self::Rmse => "RMSE",
        }
    }

    /// Whether it is a share, shown in percent.
    pub(super) fn is_share(self) -> bool {
        self != Self::Rmse
    }

    /// Whether more of it is better.
    pub(super) fn is_gain(self) -> bool {
        self != Self::Rmse
    }

    /// The figure of a score; none of one of another task.
    pub(super) fn value(self, score: &Score) -> Option<f64> {
        match (self, score.measures) {
            (Self::Accuracy, Measures::Classes { accuracy }) => Some(accuracy),
            (Self::LabelAccuracy, Measures::Labels { label_accuracy, .. }) => Some(label_accuracy),
            (Self::Rmse, Measures::Numbers { rmse, .. }) => Some(rmse),
            _ => None,
        }
    }

    /// It in words, with its unit.
    pub(super) fn shown(self, value: f64) -> String {
        if self.is_share() { format!("{:.2} %", value * 100.0) } else { significant(value) }
    }

    /// How far a candidate's figure on `examples` examples may be off, below and above: one standard error, or the 95 % interval.
    pub(super) fn range(self, candidate: &CandidateReport, value: f64, examples: usize) -> [f64; 2] {
        match (self, candidate.interval) {
            (Self::Accuracy, _) => {
                let error = (value * (1.0 - value) / examples.max(1) as f64).sqrt();
                [value - error, value + error]
            }
            (_, Some(interval)) => interval,
            (_, None) => [value, value],
        }
    }

    /// What [`Self::range`] is.
    pub(super) fn range_name(self) -> &'static str {
        if self == Self::Accuracy { "one standard error" } else { "the 95 % interval" }
    }

    /// The figure of one of `examples` examples, with how far it may be off where that is known of every split.
    pub(super) fn estimate(self, score: &Score, examples: usize) -> String {
        match (self, score.measures) {
            (Self::Accuracy, Measures::Classes { accuracy }) => {
                let error = (accuracy * (1.0 - accuracy) / examples.max(1) as f64).sqrt();
                format!("{:.2} ± {:.2} %", accuracy * 100.0, error * 100.0)
            }
            _ => score.to_string(),
        }
    }
}
