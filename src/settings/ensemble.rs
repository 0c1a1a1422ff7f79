//! How the members' outputs become the ensemble's.

use serde::{Deserialize, Serialize};

/// How the members' logits become the outputs of the ensemble: of its row in the report, of the teacher, and of what the
/// fused network's output layer is refitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnsembleRule {
    /// The best of the others on the validation split (factors fitted to labels only where the members have not seen these); without
    /// one, by how differently the members spread their probabilities over the classes.
    #[default]
    Auto,
    /// The mean of the logits.
    MeanLogits,
    /// The mean of the probabilities.
    MeanProbabilities,
    /// The mean of the probabilities, for each input more of the members that are sure of it.
    Entropy,
    /// The sum of the logits, in each class by the members' shares of the probability that all give it.
    ClassShare,
    /// The sum of the logits, in each class by weights that are fitted to the labels of the validation split.
    FittedPerClass,
}

impl EnsembleRule {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Auto, Self::MeanLogits, Self::MeanProbabilities, Self::Entropy, Self::ClassShare, Self::FittedPerClass];

    /// All but [`Self::Auto`], in the order in which `auto` prefers them among equals.
    pub const FIXED: [Self; 5] =
        [Self::MeanLogits, Self::MeanProbabilities, Self::Entropy, Self::ClassShare, Self::FittedPerClass];

    /// The name in requests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::MeanLogits => "mean_logits",
            Self::MeanProbabilities => "mean_probabilities",
            Self::Entropy => "entropy",
            Self::ClassShare => "class_share",
            Self::FittedPerClass => "fitted_per_class",
        }
    }

    /// Whether each class has weights of its own, which the output layer takes.
    #[must_use]
    pub fn weighs_classes(self) -> bool {
        matches!(self, Self::ClassShare | Self::FittedPerClass)
    }
}
