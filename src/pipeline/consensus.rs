//! Decides by which rule the members' outputs become the ensemble's.

use super::context::Context;
use super::load::Subset;
use super::measure::Bench;
use super::metrics;
use super::phases::Halt;
use super::teacher;
use crate::cost::evaluation::RULE_INPUTS;
use crate::domain::problem::{Code, Problem};
use crate::fusion::{self, Consensus, Ensemble, Member, Mixture, Shares};
use crate::plan::held_out::Validation;
use crate::report::{EnsembleChoice, RuleDecider, TriedRule, discordant};
use crate::settings::{EnsembleRule, PredictionTask};
use crate::train::{self, Examples};

/// Fewest labels that factors of classes are fitted to: with a few hundred they do worse than equal ones.
const FEWEST_LABELS: usize = 2_000;
/// A spread above which members have seen different classes: 1.02 to 1.12 was seen for members of like data, 1.41 to 1.68 for
/// others.
const WIDE: f64 = 1.25;
/// By how many standard errors of the difference a rule must beat the mean of logits.
const CLEARLY: f64 = 2.0;

/// The members with the job's rule, and why with that.
pub(super) fn with_rule<'a>(
    context: &mut Context<'_>,
    ensemble: Ensemble<'a>,
) -> Result<(Ensemble<'a>, Option<EnsembleChoice>), Halt> {
    let Some(bench) = context.bench else { return Ok((ensemble, None)) };
    let task = context.network().task;
    let mut outputs = MemberOutputs { ensemble: &ensemble, task, logits: Vec::new(), labelled: None };
    let requested = context.method().ensemble;
    // Other rules weigh classes against each other.
    let decides = requested == EnsembleRule::Auto && ensemble.members().len() > 1 && task.is_classification();
    let fitted_to = |count: usize| count >= FEWEST_LABELS;
    if requested.weighs_classes() || decides {
        outputs.compute(bench, requested)?;
    }
    if let Some(validation) = &outputs.labelled {
        let score = |logits: &Vec<f32>| train::score(logits, validation);
        context.member_scores = Some(outputs.logits.iter().map(score).collect::<Result<_, _>>()?);
    }
    let labels = outputs.labelled.as_ref().map_or(0, Examples::len);
    if requested == EnsembleRule::FittedPerClass && !fitted_to(labels) {
        let detail = format!(
            "`fitted_per_class` needs a validation split of {FEWEST_LABELS} labels at least, there are {labels}"
        );
        return Err(Problem::new(Code::InvalidRequest, detail).into());
    }
    if requested.weighs_classes() && ensemble.output_layer().is_none() {
        let detail = format!("`{}` needs a network that ends in one linear layer", requested.as_str());
        return Err(Problem::new(Code::InvalidRequest, detail).into());
    }
    let choice = match requested {
        EnsembleRule::Auto if !decides => chosen(EnsembleRule::MeanLogits, RuleDecider::Default, 0),
        EnsembleRule::Auto => match &outputs.labelled {
            // Factors fitted to labels that the members know by heart show who has learned them, not who is right.
            Some(validation) => {
                let unseen = context.validation == Validation::Unseen;
                outputs.by_labels(validation, unseen && fitted_to(labels))?
            }
            None => outputs.by_spread(),
        },
        rule => chosen(rule, RuleDecider::Request, outputs.examples()),
    };
    let consensus = outputs.consensus(choice.rule);
    context.phases.info(choice.to_string());
    Ok((ensemble.with_consensus(consensus), Some(choice)))
}

fn chosen(rule: EnsembleRule, by: RuleDecider, examples: usize) -> EnsembleChoice {
    EnsembleChoice { rule, by, examples, tried: Vec::new(), spread: None }
}

/// What the members say about some inputs.
struct MemberOutputs<'a> {
    ensemble: &'a Ensemble<'a>,
    task: PredictionTask,
    /// Of each member, examples x classes.
    logits: Vec<Vec<f32>>,
    /// The same inputs, where they are the validation split.
    labelled: Option<Subset>,
}

impl MemberOutputs<'_> {
    /// Asks about the validation split, or about inputs of the train split where there is none or labels decide nothing.
    fn compute(&mut self, bench: Bench<'_>, rule: EnsembleRule) -> Result<(), Halt> {
        let data = bench.data();
        let part = match &data.validation {
            Some(validation) if rule != EnsembleRule::ClassShare => {
                self.labelled = Some(validation.clone());
                validation.clone()
            }
            _ => data.train.spread(RULE_INPUTS),
        };
        let of = |member: &Member<'_>| bench.logits_on(&part, member.graph, member.weights);
        self.logits = self.ensemble.members().iter().map(of).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn classes(&self) -> usize {
        self.ensemble.graph().classes()
    }

    fn examples(&self) -> usize {
        self.logits.first().map_or(0, |logits| logits.len() / self.classes().max(1))
    }

    /// The members by `rule`, whose factors come from these outputs.
    fn consensus(&self, rule: EnsembleRule) -> Consensus {
        let logits: Vec<&[f32]> = self.logits.iter().map(Vec::as_slice).collect();
        self.fitted(rule, &logits, &self.labels())
    }

    /// The right classes, where they are known.
    fn labels(&self) -> Vec<u32> {
        self.labelled.as_ref().and_then(Subset::labels).unwrap_or_default()
    }

    fn fitted(&self, rule: EnsembleRule, logits: &[&[f32]], labels: &[u32]) -> Consensus {
        let classes = self.classes();
        let own = self.ensemble.shares();
        let (mixture, shares) = match rule {
            EnsembleRule::Auto | EnsembleRule::MeanLogits => (Mixture::Logits, own.clone()),
            EnsembleRule::MeanProbabilities => (teacher::probabilities(self.task), own.clone()),
            EnsembleRule::Entropy => (Mixture::Entropy, own.clone()),
            EnsembleRule::ClassShare => {
                let means = fusion::mean_probabilities(&self.logits, classes);
                (Mixture::Logits, Shares::of_classes(fusion::class_shares(&means, own.members())))
            }
            EnsembleRule::FittedPerClass => {
                (Mixture::Logits, Shares::of_classes(fusion::fit_by_class(logits, labels, classes)))
            }
        };
        Consensus { mixture, shares, classes }
    }

    /// The ensemble's logits by `rule`. Factors that labels are needed for are fitted to every other
    /// input and judged on the rest, and the other way round.
    fn outputs(&self, rule: EnsembleRule) -> Vec<f32> {
        if rule != EnsembleRule::FittedPerClass {
            return self.consensus(rule).of(&self.logits);
        }
        let (classes, labels) = (self.classes().max(1), self.labels());
        let every_other = |first: usize| -> (Vec<Vec<f32>>, Vec<u32>) {
            let rows =
                |logits: &Vec<f32>| logits.chunks_exact(classes).skip(first).step_by(2).flatten().copied().collect();
            (self.logits.iter().map(rows).collect(), labels.iter().skip(first).step_by(2).copied().collect())
        };
        let halves = [every_other(0), every_other(1)];
        let mut outputs = vec![0.0; labels.len() * classes];
        for (first, (judged, _)) in halves.iter().enumerate() {
            let (logits, labels) = &halves[1 - first];
            let logits: Vec<&[f32]> = logits.iter().map(Vec::as_slice).collect();
            let half = self.fitted(rule, &logits, labels).of(judged);
            let places = outputs.chunks_exact_mut(classes).skip(first).step_by(2);
            places.zip(half.chunks_exact(classes)).for_each(|(place, row)| place.copy_from_slice(row));
        }
        outputs
    }

    /// The rule that names the right class most often, if it does so clearly more often than the mean of logits.
    fn by_labels(&self, validation: &Subset, fits: bool) -> Result<EnsembleChoice, Halt> {
        let has_output_layer = self.ensemble.output_layer().is_some();
        let possible = EnsembleRule::FIXED.into_iter().filter(|rule| has_output_layer || !rule.weighs_classes());
        let possible = possible.filter(|rule| fits || *rule != EnsembleRule::FittedPerClass);
        let mut tried = Vec::new();
        let mut right: Vec<Vec<bool>> = Vec::new();
        for rule in possible {
            let outputs = self.outputs(rule);
            tried.push(TriedRule { rule, validation: train::score(&outputs, validation)? });
            right.push(metrics::right(&outputs, validation));
        }
        let mut kept = 0;
        for (index, other) in tried.iter().enumerate().skip(1) {
            let ahead = other.validation.merit() > tried[kept].validation.merit();
            if ahead && clearly_better(&right[index], &right[0]) {
                kept = index;
            }
        }
        let rule = tried[kept].rule;
        Ok(EnsembleChoice { tried, ..chosen(rule, RuleDecider::Validation, Examples::len(validation)) })
    }

    /// By how differently the members spread their probabilities.
    fn by_spread(&self) -> EnsembleChoice {
        let spread = fusion::spread(&fusion::mean_probabilities(&self.logits, self.classes()));
        let rule = if spread > WIDE { EnsembleRule::Entropy } else { EnsembleRule::MeanLogits };
        EnsembleChoice { spread: Some(spread), ..chosen(rule, RuleDecider::Spread, self.examples()) }
    }
}

/// Whether the first is right more often than the second by two standard errors of the difference (`McNemar` 1947).
fn clearly_better(first: &[bool], second: &[bool]) -> bool {
    let [won, lost] = discordant(first, second).map(|count| count as f64);
    won > lost && won - lost > CLEARLY * (won + lost).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_examples_more_are_chance() {
        let right = |wins: usize, losses: usize| {
            let one = |won: bool, count: usize| std::iter::repeat_n((won, !won), count);
            let pairs: Vec<(bool, bool)> = one(true, wins).chain(one(false, losses)).collect();
            let (a, b): (Vec<bool>, Vec<bool>) = pairs.into_iter().unzip();
            clearly_better(&a, &b)
        };
        assert!(!right(10, 10) && !right(12, 8) && !right(0, 0) && !right(8, 30));
        assert!(right(30, 8) && right(60, 35) && !right(60, 40));
    }
}
