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
    /// The first member, trained as the fused network is.
    Distilled,
    /// The fused network, before and after recovery.
    Fused,
}
