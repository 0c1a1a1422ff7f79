//! What a network predicts.

use serde::{Deserialize, Serialize};

/// What a network predicts: it decides the loss, the metrics, and how members' outputs become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PredictionTask {
    /// One of several classes: a logit each, softmax, cross-entropy.
    #[default]
    Classification,
    /// Yes or no: one logit, sigmoid, binary cross-entropy.
    Binary,
    /// Any number of several labels: a logit each, sigmoid, the mean binary cross-entropy.
    MultiLabel,
    /// Numbers: an output each, the mean squared error.
    Regression,
}

impl PredictionTask {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Classification, Self::Binary, Self::MultiLabel, Self::Regression];

    /// The task as it stands in requests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::Binary => "binary",
            Self::MultiLabel => "multi_label",
            Self::Regression => "regression",
        }
    }

    /// Whether one of several classes is predicted.
    #[must_use]
    pub fn is_classification(&self) -> bool {
        *self == Self::Classification
    }

    /// Whether each example is either right or wrong.
    #[must_use]
    pub fn decides(self) -> bool {
        matches!(self, Self::Classification | Self::Binary)
    }
}
