//! Whether the members were trained on the examples that networks are chosen by.

use crate::domain::score::Score;
use crate::pipeline::context::Context;
use crate::plan::held_out::Validation;
use crate::report::{CheckCode, CheckFinding};
use crate::settings::ValidationSource;

/// Standard errors by which every member must do better on the validation split.
const CLEAR: f64 = 3.0;
/// And at least this much of the accuracy: less changes no choice.
const LEAST: f64 = 0.005;

/// An accuracy on some examples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::pipeline) struct SplitAccuracy {
    accuracy: f64,
    examples: usize,
}

impl SplitAccuracy {
    /// Of a score on `examples` examples; none of tasks without an accuracy.
    pub(in crate::pipeline) fn of(score: &Score, examples: usize) -> Option<Self> {
        Some(Self { accuracy: score.accuracy()?, examples })
    }

    /// Square of its standard error; half an example is added on both sides, so that an accuracy of 1 is not exact.
    fn variance(self) -> f64 {
        let count = self.examples as f64;
        let share = (self.accuracy * count + 0.5) / (count + 1.0);
        share * (1.0 - share) / count.max(1.0)
    }
}

/// Whether every member does clearly better on the validation split than on the test split: by [`CLEAR`] standard errors of the
/// difference between two independent samples, and by [`LEAST`]. `pairs` holds both accuracies of each.
fn is_far_above(pairs: &[[SplitAccuracy; 2]]) -> bool {
    let is_clear = |[validation, test]: &[SplitAccuracy; 2]| {
        let difference = validation.accuracy - test.accuracy;
        difference > LEAST && difference > CLEAR * (validation.variance() + test.variance()).sqrt()
    };
    !pairs.is_empty() && pairs.iter().all(is_clear)
}

/// Whether nothing is known that says that the members have not been trained on the validation split.
pub(super) fn may_be_seen(context: &Context<'_>) -> bool {
    let is_drawn = matches!(context.validation_source(), Some(ValidationSource::Drawn(_)));
    !is_drawn || context.validation != Validation::Unseen
}

/// That the members were probably trained on the validation split; none where the record of their training says that they were not.
/// `pairs` holds each member's accuracy there and on the test split.
pub(in crate::pipeline) fn seen(context: &Context<'_>, pairs: &[[SplitAccuracy; 2]]) -> Option<CheckFinding> {
    let dataset = context.task.job.dataset.as_ref()?;
    let source = context.validation_source()?;
    if !is_far_above(pairs) || !may_be_seen(context) {
        return None;
    }
    let shown: Vec<String> = context
        .task
        .job
        .members
        .iter()
        .zip(pairs)
        .map(|(name, [validation, test])| {
            format!("{name} {:.2} % and {:.2} %", validation.accuracy * 100.0, test.accuracy * 100.0)
        })
        .collect();
    let (what, advice) = match source {
        ValidationSource::Named => (
            format!("`{}`", dataset.validation.as_deref().unwrap_or_default()),
            "name another one as `dataset.validation`",
        ),
        ValidationSource::Own => {
            ("the dataset's validation split".to_owned(), "name another one as `dataset.validation`")
        }
        _ => (
            "the part of the train split that is validated on".to_owned(),
            "name a dataset that they have not seen as `dataset.validation`",
        ),
    };
    let detail = format!(
        "every member does far better on {what} than on the test split ({}): most likely they were trained on these examples, and what is \
         chosen by them may be chosen wrong; {advice}",
        shown.join(", ")
    );
    Some(CheckFinding { code: CheckCode::ValidationSeenInTraining, detail, normalize: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(validation: f64, test: f64, examples: usize) -> [SplitAccuracy; 2] {
        [validation, test].map(|accuracy| SplitAccuracy { accuracy, examples })
    }

    #[test]
    fn only_a_clear_gap_of_every_member_counts() {
        assert!(is_far_above(&[pair(0.992, 0.977, 6000), pair(0.991, 0.976, 6000)]));
        assert!(!is_far_above(&[pair(0.992, 0.977, 6000), pair(0.978, 0.976, 6000)]), "one of them is level");
        assert!(!is_far_above(&[pair(0.992, 0.977, 200)]), "too few examples to tell");
        assert!(!is_far_above(&[pair(0.999, 0.996, 100_000)]), "too little to matter");
        assert!(!is_far_above(&[pair(0.90, 0.95, 6000)]) && !is_far_above(&[]));
        assert!(is_far_above(&[pair(1.0, 0.9, 1000)]) && !is_far_above(&[pair(1.0, 0.97, 30)]));
    }
}
