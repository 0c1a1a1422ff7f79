//! Whether the data reaches the first BatchNorm as it did when the members were trained: what is measured there beside the running
//! statistics.

use super::normalizations::Candidate;
use crate::cost::checks::{STATISTICS_BATCHES, statistics_batch};
use crate::exec::Inputs;
use crate::fusion::{Ensemble, Member};
use crate::model::graph::{Graph, Node, NodeId, Op};
use crate::pipeline::context::Context;
use crate::pipeline::load::Subset;
use crate::pipeline::measure::Bench;
use crate::pipeline::phases::Halt;
use crate::report::{CheckCode, CheckFinding};
use crate::tensors::Weights;
use crate::train::{Examples, TrainError};

/// From which divergence on the data is not that of the training: pixels whose deviation is off by 1.6, or whose mean by half of it.
/// Augmentation and small samples stay below a fifth of it.
const FAR: f64 = 0.25;
/// How many times nearer the likely normalisation must be.
const NEARER: f64 = 4.0;
/// What a channel counts at most: one that hardly varies does not decide.
const MOST: f64 = 4.0;

/// A part of a network that ends in its first BatchNorm.
#[derive(Debug)]
pub(super) struct Probe {
    /// The network up to the BatchNorm, and behind it a mean over its positions.
    graph: Graph,
    /// Name of the BatchNorm.
    name: String,
    /// What it adds to the variance.
    eps: f64,
    /// Elements of the largest activation of one example.
    elements: usize,
}

impl Probe {
    /// Of `graph`; none where it has no BatchNorm that reads what no other one has changed.
    pub(super) fn of(graph: &Graph) -> Option<Self> {
        let (id, node, eps) = graph.iter().find_map(|(id, node)| match node.op {
            Op::BatchNorm { eps, .. } => Some((id, node, eps)),
            _ => None,
        })?;
        let needed = needed(graph, id);
        let mut places = vec![None; id.0 + 1];
        let mut nodes: Vec<Node> = Vec::new();
        for (index, node) in graph.nodes()[..=id.0].iter().enumerate().filter(|(index, _)| needed[*index]) {
            places[index] = Some(NodeId(nodes.len()));
            let inputs = node.inputs.iter().map(|input| places[input.0]).collect::<Option<Vec<_>>>()?;
            nodes.push(Node { inputs, ..node.clone() });
        }
        let shape = graph.shape(id);
        match shape.len() {
            1 => {}
            3 => {
                for (name, op) in [("mean over positions", Op::GlobalAvgPool2d), ("as a vector", Op::Flatten)] {
                    let inputs = vec![NodeId(nodes.len() - 1)];
                    nodes.push(Node { name: name.to_owned(), op, inputs });
                }
            }
            _ => return None,
        }
        let graph = Graph::new(nodes).ok()?;
        let elements = graph.iter().map(|(id, _)| graph.shape(id).iter().product()).max().unwrap_or(1);
        Some(Self { graph, name: node.name.clone(), eps, elements })
    }

    /// The divergence of what reaches the BatchNorm of `member` from its running statistics, batch by batch.
    fn divergences(&self, bench: Bench<'_>, member: &Member<'_>, part: &Subset) -> Result<Option<Vec<f64>>, Halt> {
        let Some(known) = self.statistics(member.weights) else { return Ok(None) };
        let batch = statistics_batch(self.elements).min(part.len().div_ceil(STATISTICS_BATCHES)).max(2);
        let mut network = bench.compiled(&self.graph, member.weights, batch)?;
        let mut divergences = Vec::new();
        for index in 0..STATISTICS_BATCHES {
            // Examples that stand beside each other are often alike.
            let indices: Vec<usize> = (index..part.len()).step_by(STATISTICS_BATCHES).take(batch).collect();
            if indices.len() < 2 {
                break;
            }
            let mut inputs = vec![0.0; indices.len() * part.example_len()];
            Examples::fill(part, &indices, &mut inputs);
            network.reset_statistics().map_err(TrainError::from)?;
            network.reestimate(Inputs::Images(&inputs)).map_err(TrainError::from)?;
            let measured = network.state_dict().map_err(TrainError::from)?;
            let Some(measured) = self.statistics(&measured) else { return Ok(None) };
            divergences.push(divergence(&measured, &known));
        }
        Ok((!divergences.is_empty()).then_some(divergences))
    }

    /// The running statistics of the BatchNorm in a state dict; none where a tensor is missing.
    fn statistics(&self, weights: &dyn Weights) -> Option<Vec<Moment>> {
        let tensor = |suffix: &str| weights.f32(&format!("{}.{suffix}", self.name)).ok();
        let (means, variances) = (tensor("running_mean")?, tensor("running_var")?);
        let moment = |(mean, variance): (&f32, &f32)| Moment {
            mean: f64::from(*mean),
            variance: f64::from(*variance) + self.eps,
        };
        Some(means.iter().zip(variances.iter()).map(moment).collect())
    }
}

/// Which of the nodes up to `id` it is computed from, itself among them.
fn needed(graph: &Graph, id: NodeId) -> Vec<bool> {
    let mut needed = vec![false; id.0 + 1];
    needed[id.0] = true;
    // Operands come before their users.
    for index in (0..=id.0).rev() {
        if needed[index] {
            graph.node(NodeId(index)).inputs.iter().for_each(|input| needed[input.0] = true);
        }
    }
    needed
}

/// Mean and variance of a channel.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Moment {
    mean: f64,
    /// With what the BatchNorm adds to it.
    variance: f64,
}

/// How far two lists of channels are from each other: the mean over channels of the symmetric Kullback-Leibler divergence (Jeffreys 1946) of
/// normal distributions with these moments, each at most [`MOST`].
fn divergence(one: &[Moment], other: &[Moment]) -> f64 {
    let of_channel = |(a, b): (&Moment, &Moment)| {
        let squared = (a.mean - b.mean).powi(2);
        let ratios = a.variance / b.variance + b.variance / a.variance;
        (0.5 * (ratios - 2.0 + squared * (1.0 / a.variance + 1.0 / b.variance))).min(MOST)
    };
    one.iter().zip(other).map(of_channel).sum::<f64>() / one.len().max(1) as f64
}

/// What both normalisations come to at the first BatchNorm of one member.
#[derive(Debug, Clone, PartialEq)]
struct Compared {
    /// Batch by batch, as the job says.
    given: Vec<f64>,
    /// The same with a candidate.
    other: Vec<f64>,
}

impl Compared {
    /// Whether the data is not that of the training as the job normalises it and is with the candidate, in every batch: the smallest
    /// divergence as given is above [`FAR`], and [`NEARER`] times the largest one with the candidate.
    fn is_certain(&self) -> bool {
        let least = self.given.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.other.iter().copied().fold(0.0, f64::max);
        least.is_finite() && !self.other.is_empty() && least > FAR && least > NEARER * most
    }
}

/// The candidate with which the data reaches the first BatchNorm of every member as in the training, where it does not as the job
/// normalises it (see [`Compared::is_certain`]).
pub(super) fn check(
    context: &Context<'_>,
    bench: Bench<'_>,
    ensemble: &Ensemble<'_>,
    candidates: &[Candidate],
) -> Result<Option<CheckFinding>, Halt> {
    let mut left: Vec<&Candidate> = candidates.iter().collect();
    let mut nearest = f64::INFINITY;
    let (mut likely, mut given, mut name) = (None, 0.0, String::new());
    for member in ensemble.members() {
        context.phases.check_stop()?;
        let Some(probe) = Probe::of(member.graph) else { return Ok(None) };
        let part = bench.data().train.spread(STATISTICS_BATCHES * statistics_batch(probe.elements));
        let Some(own) = probe.divergences(bench, member, &part)? else { return Ok(None) };
        if own.iter().any(|divergence| *divergence <= FAR) {
            return Ok(None);
        }
        let mut stay = Vec::new();
        nearest = f64::INFINITY;
        for candidate in left {
            let Some(other) = probe.divergences(bench, member, &candidate.of(&part))? else { return Ok(None) };
            let mean = other.iter().sum::<f64>() / other.len() as f64;
            let compared = Compared { given: own.clone(), other };
            if compared.is_certain() {
                stay.push(candidate);
                if mean < nearest {
                    (nearest, likely) = (mean, Some(candidate));
                }
            }
        }
        given = own.iter().sum::<f64>() / own.len() as f64;
        (left, name) = (stay, probe.name);
        if left.is_empty() {
            return Ok(None);
        }
    }
    let Some(Candidate { name: inputs, advice, normalize }) = likely else { return Ok(None) };
    let detail = format!(
        "the members were most likely trained on inputs with {inputs}: what reaches `{name}` differs from the running statistics by {given:.2} as \
         the job normalises its inputs, and by {nearest:.2} with these (symmetric Kullback-Leibler divergence, mean over channels). Say \
         {advice}"
    );
    Ok(Some(CheckFinding { code: CheckCode::NormalizeUnlikeTraining, detail, normalize: normalize.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mean: f64, variance: f64) -> Vec<Moment> {
        vec![Moment { mean, variance }; 3]
    }

    #[test]
    fn a_divergence_is_that_of_normal_distributions() {
        let unit = moments(0.0, 1.0);
        assert!(divergence(&unit, &unit).abs() < 1e-12);
        // 1/2 (4 + 1/4 - 2), and 1/2 · 0.25 · (1 + 1).
        assert!((divergence(&moments(0.0, 4.0), &unit) - 1.125).abs() < 1e-12);
        assert!((divergence(&moments(0.5, 1.0), &unit) - 0.25).abs() < 1e-12);
        assert!((divergence(&moments(9.0, 1.0), &unit) - MOST).abs() < 1e-12);
    }

    #[test]
    fn every_batch_must_say_the_same() {
        let certain =
            |given: &[f64], other: &[f64]| Compared { given: given.to_vec(), other: other.to_vec() }.is_certain();
        assert!(certain(&[1.1, 1.2], &[0.02, 0.05]));
        assert!(!certain(&[1.1, 0.2], &[0.02, 0.05]), "one batch is near");
        assert!(!certain(&[1.1, 1.2], &[0.02, 0.5]), "the other is not near in one");
        assert!(!certain(&[0.2, 0.2], &[0.0, 0.0]), "what augmentation explains");
        assert!(!certain(&[], &[0.0]) && !certain(&[1.0], &[]));
    }
}
