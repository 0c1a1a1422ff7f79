//! Which networks a report measures.

use crate::settings::Candidate;

/// Examples per batch of an evaluation.
pub const BATCH: usize = 256;

/// What decides which candidates there are.
#[derive(Debug, Clone, Copy)]
pub struct Fusion {
    /// Whether the members have one shape.
    pub has_one_shape: bool,
    /// Whether layers are refitted behind a selection.
    pub compensates: bool,
    /// Whether the fused network is trained.
    pub trains: bool,
}

/// Whether the members themselves are measured: for their own rows, or for those that follow from their logits.
#[must_use]
pub fn measures_members(evaluate: &[Candidate]) -> bool {
    evaluate.iter().any(|candidate| match candidate {
        Candidate::Members | Candidate::BestMember | Candidate::Ensemble | Candidate::Vote => true,
        Candidate::Average
        | Candidate::OptimalTransport
        | Candidate::PermutationAlignment
        | Candidate::Distilled
        | Candidate::Fused => false,
    })
}

/// Networks that are measured for `candidate` beside the members.
#[must_use]
pub fn networks(candidate: Candidate, fusion: Fusion) -> usize {
    match candidate {
        Candidate::Members | Candidate::BestMember | Candidate::Ensemble | Candidate::Vote => 0,
        Candidate::Average | Candidate::OptimalTransport | Candidate::PermutationAlignment => {
            usize::from(fusion.has_one_shape)
        }
        Candidate::Distilled => usize::from(fusion.trains),
        Candidate::Fused => 1 + usize::from(fusion.compensates) + usize::from(fusion.trains),
    }
}
