//! Which networks a report measures.

use crate::settings::ReportCandidate;

/// Examples per batch of an evaluation.
pub const BATCH: usize = 256;

/// Most inputs without labels by which the rule is chosen that makes members an ensemble.
pub const RULE_INPUTS: usize = 5_000;

/// What decides which candidates there are.
#[derive(Debug, Clone, Copy)]
pub struct Fusion {
    /// What other methods can do with the members.
    pub others: OtherMethods,
    /// Whether layers are refitted behind a selection.
    pub compensates: bool,
    /// Whether the fused network is trained.
    pub trains: bool,
}

/// Which other methods can fuse the members.
#[derive(Debug, Clone, Copy)]
pub struct OtherMethods {
    /// Those that average, in any order of units: the members have one shape.
    pub average: bool,
    /// Neuron interpolation: the fused network can be fitted level after level.
    pub interpolate: bool,
}

/// Whether the members themselves are measured: for their own rows, or for those that follow from their logits.
#[must_use]
pub fn measures_members(evaluate: &[ReportCandidate]) -> bool {
    evaluate.iter().any(|candidate| match candidate {
        // Controls start from the best of them.
        ReportCandidate::Members
        | ReportCandidate::BestMember
        | ReportCandidate::Ensemble
        | ReportCandidate::Vote
        | ReportCandidate::TrainedOn
        | ReportCandidate::Distilled => true,
        ReportCandidate::Average
        | ReportCandidate::OptimalTransport
        | ReportCandidate::PermutationAlignment
        | ReportCandidate::NeuronInterpolation
        | ReportCandidate::Fused => false,
    })
}

/// Networks that are measured for `candidate` beside the members.
#[must_use]
pub fn networks(candidate: ReportCandidate, fusion: Fusion) -> usize {
    match candidate {
        ReportCandidate::Members | ReportCandidate::BestMember | ReportCandidate::Ensemble | ReportCandidate::Vote => 0,
        ReportCandidate::Average | ReportCandidate::OptimalTransport | ReportCandidate::PermutationAlignment => {
            usize::from(fusion.others.average)
        }
        ReportCandidate::NeuronInterpolation => usize::from(fusion.others.interpolate),
        ReportCandidate::TrainedOn | ReportCandidate::Distilled => usize::from(fusion.trains),
        ReportCandidate::Fused => 1 + usize::from(fusion.compensates) + usize::from(fusion.trains),
    }
}
