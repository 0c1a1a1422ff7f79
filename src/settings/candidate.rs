//! What a report compares.

use serde::{Deserialize, Serialize};

/// Networks that the report compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportCandidate {
    /// Each member.
    Members,
    /// The member with the highest validation accuracy.
    BestMember,
    /// The mean of the members' logits.
    Ensemble,
    /// The class that most members name.
    Vote,
    /// The plain mean of the members' weights.
    Average,
    /// The mean after each member was carried over to the first, BatchNorm measured anew.
    OptimalTransport,
    /// The mean after the members' units were matched, BatchNorm measured anew.
    PermutationAlignment,
    /// Units that each compute the mean of a group of the members' units, fitted level after level.
    NeuronInterpolation,
    /// The best member, trained on for as long as the fused network, on the labels: what fusion has to beat.
    TrainedOn,
    /// The best member, trained for as long towards the ensemble's outputs.
    Distilled,
    /// The fused network, before and after recovery.
    Fused,
}

impl ReportCandidate {
    /// Whether it is a member trained beside the fused network, to show what fusion adds.
    #[must_use]
    pub fn is_control(self) -> bool {
        matches!(self, Self::TrainedOn | Self::Distilled)
    }
}
