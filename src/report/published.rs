//! A control that is published in the place of the transplanted network.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::CandidateKind;
use crate::domain::score::Score;

/// What is published where transplanting brought less than training the best member for as long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PublishedControl {
    /// How that member was trained: `trained_on` or `distilled`.
    pub kind: CandidateKind,
    /// That member.
    pub member: String,
    /// The epoch that it comes from.
    pub epoch: usize,
    /// How it does on the validation split, which no member has been trained on and which decides.
    pub validation: Score,
    /// How the transplanted network does there.
    pub transplanted: Score,
}

impl PublishedControl {
    /// What was done to the member.
    #[must_use]
    pub fn how(&self) -> &'static str {
        if self.kind == CandidateKind::Distilled { "distilled from the ensemble" } else { "trained on" }
    }
}

impl fmt::Display for PublishedControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { member, validation, transplanted, .. } = self;
        write!(
            f,
            "published is {member}, {}, and no unit of another member: on the validation split it has {validation}, and the \
             transplanted network after as much training {transplanted} (\"publish\": \"fused\" in `finetune` publishes that all the same)",
            self.how()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_was_done_and_by_what_it_was_chosen() {
        let published = PublishedControl {
            kind: CandidateKind::Distilled,
            member: "m1".to_owned(),
            epoch: 3,
            validation: Score::of_classes(0.727, 0.9),
            transplanted: Score::of_classes(0.713, 0.9),
        };
        let text = published.to_string();
        assert!(text.starts_with("published is m1, distilled from the ensemble, and no unit"), "{text}");
        assert!(text.contains("72.70 %, and the transplanted network after as much training 71.30 %"), "{text}");
        let trained_on = PublishedControl { kind: CandidateKind::TrainedOn, ..published };
        assert!(trained_on.to_string().starts_with("published is m1, trained on, and"), "{trained_on}");
    }
}
