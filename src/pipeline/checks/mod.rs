//! A first look at the members, before anything else runs: how well they do, and whether what is said of the data fits what they were
//! trained on. What is probably wrong is a warning with a code, never a refusal.

mod accuracies;
mod normalizations;
mod statistics;
mod validation;

use super::batch_norm::has_statistics;
use super::context::Context;
use super::load::{Data, Subset};
use super::measure::Bench;
use super::metrics;
use super::phases::Halt;
use crate::cost::checks::first_examples;
use crate::domain::score::Score;
use crate::fusion::Ensemble;
use crate::report::{CheckCode, CheckFinding, CheckedMember, CheckedSplit, MemberChecks};
use crate::settings::PredictionTask;
use crate::train::{self, Examples};

use validation::may_be_seen;
pub(super) use validation::{SplitAccuracy, seen};

/// Standard errors by which members must be better than guessing.
const CLEAR: f64 = 4.0;
/// What an accuracy above guessing, or R², hardly is.
const LITTLE: f64 = 0.05;

/// Runs the members on some examples of the validation split (of the test split where there is no other), asks in the log whether that is
/// what the client has measured, and warns of what the other rooms of this folder find.
pub(super) fn check(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<Option<MemberChecks>, Halt> {
    let Some(bench) = context.bench else { return Ok(None) };
    let Some((split, part)) = judged(bench.data()) else { return Ok(None) };
    let macs = context.planned.plan.macs.members.iter().copied().max().unwrap_or(1);
    let count = first_examples(macs);
    let first = part.spread(count);
    let task = context.network().task;
    let scores = scores(context, bench, ensemble, &first)?;
    let names = context.task.job.members.iter().cloned().zip(scores.iter().copied());
    let mut checks = MemberChecks {
        split,
        examples: first.len(),
        available: part.len(),
        members: names.map(|(name, score)| CheckedMember { name, score }).collect(),
        findings: Vec::new(),
    };
    context.phases.info(checks.to_string());
    checks.findings.extend(normalization(context, bench, ensemble)?);
    if checks.findings.is_empty()
        && is_near_chance(&scores, metrics::classes(task, ensemble.graph().classes()), first.len())
    {
        checks.findings.push(near_chance(context));
    }
    if let (CheckedSplit::Validation, Some(test), true) = (split, bench.data().test.as_ref(), may_be_seen(context)) {
        let test = test.spread(count);
        let pairs: Option<Vec<_>> = scores
            .iter()
            .zip(&self::scores(context, bench, ensemble, &test)?)
            .map(|(own, other)| Some([SplitAccuracy::of(own, first.len())?, SplitAccuracy::of(other, test.len())?]))
            .collect();
        checks.findings.extend(pairs.and_then(|pairs| seen(context, &pairs)));
    }
    for finding in &checks.findings {
        context.phases.warn(finding.to_string());
    }
    Ok(Some(checks))
}

/// What the members are judged by at first.
fn judged(data: &Data) -> Option<(CheckedSplit, &Subset)> {
    let validation = data.validation.as_ref().map(|part| (CheckedSplit::Validation, part));
    validation.or(data.test.as_ref().map(|part| (CheckedSplit::Test, part)))
}

/// How well each member does on `part`.
fn scores(context: &Context<'_>, bench: Bench<'_>, ensemble: &Ensemble<'_>, part: &Subset) -> Result<Vec<Score>, Halt> {
    let mut scores = Vec::with_capacity(ensemble.members().len());
    for member in ensemble.members() {
        context.phases.check_stop()?;
        scores.push(train::score(&bench.logits_on(part, member.graph, member.weights)?, part)?);
    }
    Ok(scores)
}

/// A normalisation with which the members were certainly not trained, and the likely one: by BatchNorm's statistics where there are any,
/// else by what the members get right.
fn normalization(
    context: &Context<'_>,
    bench: Bench<'_>,
    ensemble: &Ensemble<'_>,
) -> Result<Option<CheckFinding>, Halt> {
    let candidates = normalizations::candidates(&bench.data().train);
    if candidates.is_empty() {
        return Ok(None);
    }
    let task = context.network().task;
    if has_statistics(ensemble.graph()) {
        statistics::check(context, bench, ensemble, &candidates)
    } else if task.decides() && task != PredictionTask::MultiLabel {
        accuracies::check(context, bench, ensemble, &candidates)
    } else {
        Ok(None)
    }
}

/// Whether the best member is hardly better than guessing among `classes` classes (not above that by [`CLEAR`] standard errors on `examples`
/// examples, or by less than half of it and [`LITTLE`]), or than the mean of the numbers (R² below [`LITTLE`]).
pub(super) fn is_near_chance(scores: &[Score], classes: usize, examples: usize) -> bool {
    let chance = 1.0 / classes.max(1) as f64;
    let error = (chance * (1.0 - chance) / examples.max(1) as f64).sqrt();
    let least = (CLEAR * error).max(LITTLE.min(chance / 2.0));
    let best = scores.iter().filter_map(Score::accuracy).reduce(f64::max);
    let explained = scores.iter().filter_map(Score::r2).reduce(f64::max);
    best.is_some_and(|best| classes > 1 && best < chance + least) || explained.is_some_and(|r2| r2 < LITTLE)
}

/// What to look at where the members do no better than chance.
pub(super) fn near_chance(context: &Context<'_>) -> CheckFinding {
    let last = if context.network().task == PredictionTask::Regression {
        "then the order, the unit and the scale of the numbers"
    } else {
        "then the order of the classes"
    };
    let assumptions = &context.network().detected.assumptions;
    let detail = format!(
        "the members score near chance on this data. What was assumed of the network comes first: {}. Each can be given, as in \
         {{\"architecture\": {{\"activation\": \"relu\"}}}}, and `reference` proves them all (docs/reference.md). Then check \
         `normalize` against what the members were trained with, {last}",
        if assumptions.is_empty() { "nothing".to_owned() } else { assumptions.join("; ") }
    );
    CheckFinding { code: CheckCode::MembersNearChance, detail, normalize: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::score::Measures;

    #[test]
    fn chance_depends_on_classes_and_examples() {
        let near =
            |accuracy: f64, classes, examples| is_near_chance(&[Score::of_classes(accuracy, 1.0)], classes, examples);
        assert!(near(0.12, 10, 1000) && near(0.14, 10, 100_000) && !near(0.2, 10, 1000));
        assert!(near(0.54, 2, 1000) && !near(0.7, 2, 1000), "7 of 10 right is no chance");
        assert!(near(0.7, 2, 20), "of 20 examples it may be");
        assert!(!is_near_chance(&[0.1, 0.9].map(|accuracy| Score::of_classes(accuracy, 1.0)), 10, 1000));
        let numbers = |r2| Score { measures: Measures::Numbers { rmse: 1.0, r2: Some(r2) }, loss: 1.0 };
        assert!(is_near_chance(&[numbers(0.01)], 1, 1000) && !is_near_chance(&[numbers(0.3)], 1, 1000));
        assert!(!is_near_chance(&[], 10, 1000));
    }
}
