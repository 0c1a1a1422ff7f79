//! Judges the networks that the ranking `auto` tries.

use super::context::Context;
use super::load::Subset;
use super::measure::Bench;
use super::phases::Halt;
use crate::fusion::Ensemble;
use crate::kernels::loss;
use crate::model::graph::Graph;
use crate::report::{Choice, MemberBase, Tried, Yardstick};
use crate::settings::Importance;
use crate::tensors::Weights;
use crate::train::Examples;

/// Most examples of the train split that are left out of every fit, where there is no validation split to judge by.
const MOST_JUDGED: usize = 1_000;
/// One example in so many at most.
const JUDGED: usize = 10;

/// The train split as calibration reads it and, where there is no validation split, the part of it that it must not read.
pub(super) struct Inputs {
    pub(super) fitted: Subset,
    judged: Option<Subset>,
}

impl Inputs {
    pub(super) fn of(bench: Bench<'_>, importance: Importance) -> Self {
        let train = &bench.data().train;
        if importance != Importance::Auto || bench.data().validation.is_some() {
            return Self { fitted: train.clone(), judged: None };
        }
        let [fitted, judged] = train.split_off(train.len().div_ceil(MOST_JUDGED).max(JUDGED));
        Self { fitted, judged: Some(judged).filter(|judged| !Examples::is_empty(judged)) }
    }
}

/// A network that was tried.
pub(super) struct TriedNetwork<'a> {
    pub(super) importance: Importance,
    pub(super) compensated: bool,
    pub(super) base: Option<MemberBase>,
    pub(super) graph: &'a Graph,
    pub(super) weights: &'a dyn Weights,
}

/// Judges `networks`, the preferred one first; `None` where there is nothing to judge by.
pub(super) fn choose(
    context: &mut Context<'_>,
    bench: Bench<'_>,
    parts: &Ensemble<'_>,
    inputs: &Inputs,
    networks: &[TriedNetwork<'_>],
    same_units: bool,
) -> Result<Option<Choice>, Halt> {
    let tried = |network: &TriedNetwork<'_>| Tried {
        importance: network.importance,
        compensated: network.compensated,
        base: network.base.clone(),
        validation: None,
        distance: None,
    };
    let mut all: Vec<Tried> = networks.iter().map(tried).collect();
    let (by, examples) = match (&bench.data().validation, &inputs.judged) {
        (Some(validation), _) => {
            for (tried, network) in all.iter_mut().zip(networks) {
                tried.validation = bench.validation_score(network.graph, network.weights)?;
            }
            (Yardstick::Validation, Examples::len(validation))
        }
        (None, Some(judged)) => {
            let mut expected = Vec::new();
            for (index, member) in parts.members().iter().enumerate() {
                let own = bench.logits_on(judged, member.graph, member.weights)?;
                parts.consensus().add(&mut expected, index, &own, 1.0);
            }
            parts.consensus().finish(&mut expected, 1.0);
            // Where outputs are no classes, or the only one, there are no probabilities.
            let classes = parts.graph().classes();
            let diverges = classes > 1 && context.network().task.is_classification();
            let by = if diverges { Yardstick::Divergence } else { Yardstick::Distance };
            for (tried, network) in all.iter_mut().zip(networks) {
                let got = bench.logits_on(judged, network.graph, network.weights)?;
                let off = if diverges { divergence(&expected, &got, classes) } else { distance(&expected, &got) };
                tried.distance = Some(off);
            }
            (by, Examples::len(judged))
        }
        (None, None) => return Ok(None),
    };
    let choice = Choice::new(by, examples, all, same_units);
    context.phases.info(choice.to_string());
    Ok(Some(choice))
}

/// Mean Kullback-Leibler divergence of the probabilities that are got from those expected, in nats.
fn divergence(expected: &[f32], got: &[f32], classes: usize) -> f64 {
    let rows = expected.chunks_exact(classes).zip(got.chunks_exact(classes));
    let of_row = |(expected, got): (&[f32], &[f32])| {
        let mut divergence = 0.0;
        let mut log_q = vec![0.0; classes];
        loss::log_probabilities(got, |class, log_p| log_q[class] = log_p);
        loss::log_probabilities(expected, |class, log_p| divergence += log_p.exp() * (log_p - log_q[class]));
        divergence
    };
    let examples = (expected.len() / classes).max(1);
    rows.map(of_row).sum::<f64>() / examples as f64
}

/// Mean squared difference over mean square.
fn distance(expected: &[f32], got: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let missed: f64 = expected.iter().zip(got).map(|(a, b)| square(a - b)).sum();
    let all: f64 = expected.iter().copied().map(square).sum();
    if all > 0.0 { missed / all } else { missed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probabilities_count_for_the_divergence() {
        let logits = [0.5_f32, -1.0, 2.0, 0.0, 0.0, 3.0];
        let moved: Vec<f32> =
            logits.iter().enumerate().map(|(index, logit)| logit + if index < 3 { 5.0 } else { -2.0 }).collect();
        assert!(divergence(&logits, &moved, 3).abs() < 1e-6 && distance(&logits, &moved) > 1.0);
        // KL((1/2, 1/2) || (3/4, 1/4)) = ln(4/3) / 2.
        let got = [3.0_f32.ln(), 0.0];
        assert!((divergence(&[0.0, 0.0], &got, 2) - (4.0_f64 / 3.0).ln() / 2.0).abs() < 1e-6);
    }
}
