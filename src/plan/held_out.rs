//! Whether the members have seen the examples that a job validates on.

use crate::domain::dataset::DatasetFacts;
use crate::model::header::CheckpointHeader;
use crate::plan::request::JobRequest;
use crate::settings::{HeldOut, OwnValidation, ValidationSource};

/// What is known of the examples that networks are chosen by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validation {
    /// There are none.
    None,
    /// The members have not been trained on them: they are another dataset's, or the part that their training held out.
    Unseen,
    /// They are drawn from the train split, and nothing says whether the members have been trained on them.
    Unknown,
    /// They are drawn otherwise than the part that the training of these members held out, so these have seen most of them.
    Seen(Vec<String>),
}

/// What is known of a dataset before it is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct KnownDataset<'a> {
    /// The digest of its file, where that is at hand.
    pub sha256: Option<&'a str>,
    /// What it brings to choose networks by.
    pub own: OwnValidation,
}

/// What the dataset of `facts` brings to choose networks by.
#[must_use]
pub fn own_validation(facts: &DatasetFacts) -> OwnValidation {
    match (facts.has_labels(), facts.has_validation()) {
        (false, _) => OwnValidation::Unlabelled,
        (true, true) => OwnValidation::Split,
        (true, false) => OwnValidation::None,
    }
}

/// What is known of the validation split of `job`, whose members have these headers.
#[must_use]
pub fn validation(job: &JobRequest, members: &[&CheckpointHeader], dataset: KnownDataset<'_>) -> Validation {
    let Some(request) = &job.dataset else { return Validation::None };
    if let ValidationSource::Named | ValidationSource::Own = request.validates_on(dataset.own) {
        return Validation::Unseen;
    }
    let KnownDataset { sha256, own } = dataset;
    let Some(drawn) = HeldOut::of(request, sha256.unwrap_or_default(), own) else { return Validation::None };
    let same_file = |other: &HeldOut| sha256.is_none_or(|sha256| other.dataset == sha256);
    let mut seen = Vec::new();
    let mut unknown = false;
    for (name, member) in job.members.iter().zip(members) {
        match &member.held_out {
            Some(other) if !same_file(other) => unknown = true,
            Some(other) if !other.is_drawn_alike(&drawn) => seen.push(name.clone()),
            Some(_) => {}
            None => unknown = true,
        }
    }
    match (seen.is_empty(), unknown) {
        (false, _) => Validation::Seen(seen),
        (true, true) => Validation::Unknown,
        (true, false) => Validation::Unseen,
    }
}

impl Validation {
    /// What a user should know before relying on the validation split.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::None | Self::Unseen => None,
            Self::Unknown => Some(
                "the validation part is drawn from the train split: if the members were trained on it, they score higher there than \
                 on anything new, and what is chosen by it may be chosen wrong. Name examples that they have not seen as \
                 `dataset.validation`"
                    .to_owned(),
            ),
            Self::Seen(members) => Some(format!(
                "the training of {} held out another part than this job validates on, so they have seen most of its examples: leave \
                 `validation_fraction` and `split_seed` as they were there",
                members.join(", ")
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::parse::parse;

    fn known(dataset: &serde_json::Value, held_out: [Option<(f64, u64)>; 2], file: Option<&str>) -> Validation {
        known_of(dataset, held_out, file, OwnValidation::None)
    }

    fn known_of(
        dataset: &serde_json::Value,
        held_out: [Option<(f64, u64)>; 2],
        file: Option<&str>,
        own: OwnValidation,
    ) -> Validation {
        let job = parse(&json!({"members": ["a", "b"], "dataset": dataset})).expect("a job");
        let header = |held_out: Option<(f64, u64)>| CheckpointHeader {
            held_out: held_out.map(|(fraction, split_seed)| HeldOut { dataset: "d1".to_owned(), fraction, split_seed }),
            ..CheckpointHeader::new(Vec::new())
        };
        let headers = held_out.map(header);
        validation(&job, &headers.each_ref(), KnownDataset { sha256: file, own })
    }

    #[test]
    fn only_what_all_trainings_held_out_is_unseen() {
        let same = Some((0.1, 0));
        assert_eq!(known(&json!("d"), [same, same], Some("d1")), Validation::Unseen);
        assert_eq!(known(&json!("d"), [same, same], None), Validation::Unseen);
        assert_eq!(known(&json!("d"), [same, same], Some("d2")), Validation::Unknown);
        assert_eq!(known(&json!("d"), [same, None], Some("d1")), Validation::Unknown);
        let other = Some((0.1, 1));
        assert_eq!(known(&json!("d"), [None, other], Some("d1")), Validation::Seen(vec!["b".to_owned()]));
        assert_eq!(known(&json!({"name": "d", "split_seed": 1}), [other, other], Some("d1")), Validation::Unseen);
        assert_eq!(known(&json!({"name": "d", "validation": "v"}), [None, other], Some("d1")), Validation::Unseen);
        assert_eq!(known(&json!({"name": "d", "validation_fraction": 0}), [same, same], None), Validation::None);
        // A split that the dataset brings is nobody's to train on, unless a part of the other one is asked for.
        assert_eq!(known_of(&json!("d"), [None, None], None, OwnValidation::Split), Validation::Unseen);
        let drawn = json!({"name": "d", "validation_fraction": 0.1});
        assert_eq!(known_of(&drawn, [None, None], None, OwnValidation::Split), Validation::Unknown);
        assert_eq!(known_of(&json!("d"), [same, same], Some("d1"), OwnValidation::Unlabelled), Validation::None);
        assert!(
            known(&json!("d"), [None, other], None).warning().is_some_and(|warning| warning.contains("of b held out"))
        );
    }
}
