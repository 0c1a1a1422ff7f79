//! Whether members without BatchNorm do better on inputs that are normalised otherwise.

use super::normalizations::Candidate;
use crate::cost::checks::tried_examples;
use crate::fusion::{Ensemble, Member};
use crate::model::costs::Costs;
use crate::pipeline::context::Context;
use crate::pipeline::load::Subset;
use crate::pipeline::measure::Bench;
use crate::pipeline::metrics;
use crate::pipeline::phases::Halt;
use crate::report::{CandidateKind, CheckCode, CheckFinding, Outcomes, PairedTest};
use crate::train::Examples;

/// The level of the exact paired test of each member, before it is divided by the number of candidates (Bonferroni).
const LEVEL: f64 = 0.001;
/// By how much of the accuracy a candidate must be better.
const LEAST: f64 = 0.02;

/// The candidate with which every member gets clearly more examples right than with the normalisation of the job, by an exact paired test
/// (`McNemar` 1947) on the same examples: p below [`LEVEL`] by the number of candidates, and [`LEAST`] of accuracy more. The
/// first member is run with all candidates, and the others with the one that it does best with, where that is clear.
pub(super) fn check(
    context: &Context<'_>,
    bench: Bench<'_>,
    ensemble: &Ensemble<'_>,
    candidates: &[Candidate],
) -> Result<Option<CheckFinding>, Halt> {
    let Some((first, others)) = ensemble.members().split_first() else { return Ok(None) };
    let macs = Costs::of(first.graph, &context.network().precision).macs;
    let data = bench.data();
    let part = data.validation.as_ref().or(data.test.as_ref()).unwrap_or(&data.train);
    let part = part.spread(tried_examples(macs, candidates.len() + 1));
    let given = right(bench, first, &part)?;
    let mut best: Option<Trial<'_>> = None;
    for candidate in candidates {
        context.phases.check_stop()?;
        let trial = Trial::of(candidate, &given, &right(bench, first, &candidate.of(&part))?);
        if best.as_ref().is_none_or(|best| trial.better > best.better) {
            best = Some(trial);
        }
    }
    let Some(best) = best.filter(|best| best.is_clear(candidates.len())) else { return Ok(None) };
    let mut trials = vec![best];
    for member in others {
        context.phases.check_stop()?;
        let other = trials[0].candidate.of(&part);
        let trial = Trial::of(trials[0].candidate, &right(bench, member, &part)?, &right(bench, member, &other)?);
        if !trial.is_clear(candidates.len()) {
            return Ok(None);
        }
        trials.push(trial);
    }
    let shown: Vec<String> = context
        .task
        .job
        .members
        .iter()
        .zip(&trials)
        .map(|(name, trial)| format!("{name} {:.1} % instead of {:.1} %", trial.accuracy * 100.0, trial.given * 100.0))
        .collect();
    let Candidate { name, advice, normalize } = trials[0].candidate;
    let detail = format!(
        "the members do clearly better with {name} than as the job normalises their inputs: on {} examples {}. If they were trained so, \
         say {advice}",
        part.len(),
        shown.join(", ")
    );
    Ok(Some(CheckFinding { code: CheckCode::NormalizeUnlikeTraining, detail, normalize: normalize.clone() }))
}

/// On which examples of `part` a member is right.
fn right(bench: Bench<'_>, member: &Member<'_>, part: &Subset) -> Result<Vec<bool>, Halt> {
    Ok(metrics::right(&bench.logits_on(part, member.graph, member.weights)?, part))
}

/// One member with a candidate, beside the normalisation of the job.
#[derive(Debug)]
struct Trial<'a> {
    candidate: &'a Candidate,
    /// Shares of right examples, with the candidate and as the job says.
    accuracy: f64,
    given: f64,
    /// By how much the candidate is better.
    better: f64,
    /// Probability of such a difference where both are equally good.
    p: f64,
}

impl<'a> Trial<'a> {
    fn of(candidate: &'a Candidate, given: &[bool], own: &[bool]) -> Self {
        let share = |right: &[bool]| right.iter().filter(|right| **right).count() as f64 / right.len().max(1) as f64;
        let [tested, other] = [own, given].map(|right| Outcomes::Right(right.to_vec()));
        let p = PairedTest::of(CandidateKind::Member, candidate.name.to_owned(), &tested, &other).p;
        let (accuracy, given) = (share(own), share(given));
        Self { candidate, accuracy, given, better: accuracy - given, p }
    }

    fn is_clear(&self, candidates: usize) -> bool {
        self.better >= LEAST && self.p < LEVEL / candidates.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_said_only_where_it_is_certain() {
        let candidate = Candidate { name: "no normalisation", normalize: None, advice: String::new() };
        let outcomes = |right: usize| -> Vec<bool> { (0..500).map(|index| index < right).collect() };
        let clear = |given: usize, own: usize| Trial::of(&candidate, &outcomes(given), &outcomes(own)).is_clear(5);
        assert!(clear(100, 200));
        assert!(!clear(200, 205), "five of 500 are chance");
        assert!(!clear(200, 100), "worse");
        assert!(!clear(300, 300), "the same");
    }
}
