//! Measures every candidate on the validation and the test split.

use std::sync::atomic::AtomicBool;

use super::load::{Data, Part};
use super::phases::{Halt, Phases};
use crate::fusion::{self, Ensemble, FusionError, Recipe};
use crate::job::plan::Comparison;
use crate::job::protocol::{Phase, Score, Task};
use crate::job::request::{Candidate, Teacher};
use crate::job::resolve;
use crate::kernels::loss;
use crate::model::costs::Costs;
use crate::model::graph::Graph;
use crate::report::{CandidateReport, Kind};
use crate::tensors::{Checkpoint, Weights};
use crate::train::{self, Network, TrainError};

/// Examples per batch of an evaluation.
const BATCH: usize = 256;

/// Runs per latency; the median counts.
const RUNS: usize = 30;

/// A job's data, its threads and its wish to stop.
pub(super) struct Bench<'a> {
    data: &'a Data,
    network: &'a resolve::Network,
    threads: usize,
    stop: &'a AtomicBool,
}

/// Logits of one network on both splits, and how long one example takes.
struct Measured {
    logits: [Option<Vec<f32>>; 2],
    latency_ms: f64,
}

impl<'a> Bench<'a> {
    pub(super) fn new(data: &'a Data, network: &'a resolve::Network, task: &Task, stop: &'a AtomicBool) -> Self {
        Self { data, network, threads: task.threads, stop }
    }

    pub(super) fn data(&self) -> &'a Data {
        self.data
    }

    fn splits(&self) -> [Option<&'a Part>; 2] {
        self.data.measured()
    }

    /// A network ready to run.
    pub(super) fn network(&self, graph: &Graph, weights: &dyn Weights) -> Result<Network, Halt> {
        let mut network = Network::compile(graph, BATCH, self.threads)?;
        network.load(weights).map_err(TrainError::from)?;
        Ok(network)
    }

    /// The members' mean, weighted by their shares, as logits for each training example.
    pub(super) fn teacher(
        &self,
        ensemble: &Ensemble<'_>,
        teacher: Teacher,
        temperature: f32,
        phases: &mut Phases<'_>,
    ) -> Result<Vec<f32>, Halt> {
        let mut mean = Vec::new();
        let temperature = f64::from(temperature);
        for (index, (member, share)) in ensemble.members().iter().zip(ensemble.shares()).enumerate() {
            let mut network = self.network(member.graph, member.weights)?;
            let logits = train::logits(&mut network, &self.data.train, self.stop)?;
            match teacher {
                Teacher::MeanLogits => add(&mut mean, &logits, *share),
                Teacher::MeanProbabilities => {
                    mean.resize(logits.len(), 0.0);
                    let share = f64::from(*share);
                    loss::add_probabilities(&mut mean, &logits, network.classes(), temperature, share);
                }
            }
            phases.info(format!("computed the logits of member {} on the training split", index + 1));
        }
        if teacher == Teacher::MeanProbabilities {
            loss::logits_of(&mut mean, temperature);
        }
        Ok(mean)
    }

    fn measure(&self, graph: &Graph, weights: &dyn Weights) -> Result<Measured, Halt> {
        let mut network = self.network(graph, weights)?;
        let mut logits = [None, None];
        for (logits, split) in logits.iter_mut().zip(self.splits()) {
            *logits = split.map(|split| train::logits(&mut network, split, self.stop)).transpose()?;
        }
        let one = self.data.train.first(1);
        let latency = train::latency(&mut network, &one, RUNS).map_err(TrainError::from)?;
        Ok(Measured { logits, latency_ms: latency.as_secs_f64() * 1e3 })
    }

    /// Accuracy on the validation split, where there is one.
    pub(super) fn validation_accuracy(&self, graph: &Graph, weights: &dyn Weights) -> Result<Option<f64>, Halt> {
        let Some(split) = &self.data.validation else { return Ok(None) };
        let mut network = self.network(graph, weights)?;
        Ok(Some(train::evaluate(&mut network, split, self.stop)?.accuracy))
    }

    fn scores(&self, logits: &[Option<Vec<f32>>; 2]) -> Result<[Option<Score>; 2], Halt> {
        let mut scores = [None, None];
        for ((score, logits), split) in scores.iter_mut().zip(logits).zip(self.splits()) {
            if let (Some(logits), Some(split)) = (logits, split) {
                *score = Some(train::score(logits, split)?);
            }
        }
        Ok(scores)
    }

    fn candidate(&self, name: &str, kind: Kind, graph: &Graph, weights: &dyn Weights) -> Result<CandidateReport, Halt> {
        let measured = self.measure(graph, weights)?;
        let [validation, test] = self.scores(&measured.logits)?;
        let Costs { parameters, macs, bytes } = Costs::of(graph, &self.network.precision);
        let latency_ms = Some(measured.latency_ms);
        Ok(CandidateReport { name: name.to_owned(), kind, validation, test, parameters, macs, bytes, latency_ms })
    }
}

/// The fused network in all its states.
pub(super) struct FusedNetworks<'a> {
    pub(super) graph: &'a Graph,
    /// Before compensation; none where there was none.
    pub(super) uncompensated: Option<&'a Checkpoint>,
    /// Before recovery.
    pub(super) zero_shot: &'a Checkpoint,
    /// None where nothing was trained.
    pub(super) recovered: Option<&'a Checkpoint>,
}

/// Every candidate that the job asks for, in the order of the report.
pub(super) fn candidates(
    bench: &Bench<'_>,
    task: &Task,
    ensemble: &Ensemble<'_>,
    fused: &FusedNetworks<'_>,
    phases: &mut Phases<'_>,
) -> Result<Vec<CandidateReport>, Halt> {
    phases.begin(Phase::Evaluate)?;
    let wants = |candidate| task.job.evaluate.contains(&candidate);
    let total = ensemble.members().len() + 3;
    let mut rows = Vec::new();
    if wants(Candidate::Members) || wants(Candidate::Ensemble) {
        rows.extend(members(bench, task, ensemble, phases, total)?);
    }
    if wants(Candidate::Average) {
        match fusion::average(ensemble).and_then(Recipe::build) {
            Ok(average) => rows.push(bench.candidate("average", Kind::Average, &average.graph, &average.weights)?),
            Err(error @ FusionError::WidthsDiffer { .. }) => phases.warn(format!("no plain average: {error}")),
            Err(error) => return Err(error.into()),
        }
    }
    phases.done(total - 2, total);
    if wants(Candidate::Fused) {
        if let Some(plain) = fused.uncompensated {
            rows.push(bench.candidate("fused, uncompensated", Kind::FusedUncompensated, fused.graph, plain)?);
        }
        if fused.recovered.is_some() {
            rows.push(bench.candidate("fused, zero-shot", Kind::FusedZeroShot, fused.graph, fused.zero_shot)?);
            phases.done(total - 1, total);
        }
        let published = fused.recovered.unwrap_or(fused.zero_shot);
        rows.push(bench.candidate("fused", Kind::Fused, fused.graph, published)?);
    }
    Ok(rows)
}

/// Each member, and from their logits the ensemble.
fn members(
    bench: &Bench<'_>,
    task: &Task,
    ensemble: &Ensemble<'_>,
    phases: &mut Phases<'_>,
    total: usize,
) -> Result<Vec<CandidateReport>, Halt> {
    let mut rows = Vec::new();
    let mut mean = [None, None];
    let mut whole = (Costs::default(), 0.0);
    for (index, (member, share)) in ensemble.members().iter().zip(ensemble.shares()).enumerate() {
        let measured = bench.measure(member.graph, member.weights)?;
        let [validation, test] = bench.scores(&measured.logits)?;
        let of = |figure: &Comparison| figure.members[index];
        let plan = &bench.network.plan;
        let costs = Costs { parameters: of(&plan.parameters), macs: of(&plan.macs), bytes: of(&plan.bytes) };
        whole.0 = whole.0 + costs;
        whole.1 += measured.latency_ms;
        for (mean, logits) in mean.iter_mut().zip(&measured.logits) {
            if let Some(logits) = logits {
                add(mean.get_or_insert_with(Vec::new), logits, *share);
            }
        }
        if task.job.evaluate.contains(&Candidate::Members) {
            let Costs { parameters, macs, bytes } = costs;
            let (name, latency_ms) = (task.job.members[index].clone(), Some(measured.latency_ms));
            rows.push(CandidateReport {
                name,
                kind: Kind::Member,
                validation,
                test,
                parameters,
                macs,
                bytes,
                latency_ms,
            });
        }
        phases.done(index + 1, total);
        phases.go_on()?;
    }
    if task.job.evaluate.contains(&Candidate::Ensemble) {
        let [validation, test] = bench.scores(&mean)?;
        let (Costs { parameters, macs, bytes }, latency_ms) = (whole.0, Some(whole.1));
        let name = "ensemble".to_owned();
        rows.push(CandidateReport {
            name,
            kind: Kind::Ensemble,
            validation,
            test,
            parameters,
            macs,
            bytes,
            latency_ms,
        });
    }
    Ok(rows)
}

/// `sum += share * logits`, from zeros when the sum is empty.
pub(super) fn add(sum: &mut Vec<f32>, logits: &[f32], share: f32) {
    sum.resize(logits.len(), 0.0);
    sum.iter_mut().zip(logits).for_each(|(sum, logit)| *sum += share * logit);
}
