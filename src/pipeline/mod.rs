//! What a job computes, from open files to written artifacts: the code behind `engraft fuse` and behind every worker's
//! child process. Knows no database and no network.

mod average;
mod candidates;
pub mod child;
mod choice;
pub mod ensemble;
mod gradients;
mod join;
mod load;
mod marks;
mod measure;
mod phases;
mod publish;
mod recover;
mod sensitivity;
mod teacher;
mod transplant;

use std::sync::atomic::AtomicBool;

use candidates::FusedNetworks;
use join::FusedFile;
use load::Loaded;
use measure::Bench;
use phases::{Halt, Phases};
use publish::Results;
use rayon::ThreadPoolBuilder;

use crate::domain::problem::{Code, Problem};
use crate::domain::progress::Phase;
use crate::fusion::{Ensemble, Provenance, compensate};
use crate::model::allocate::Curve;
use crate::model::groups::GroupId;
use crate::model::refit::Compensation;
use crate::plan::network::Network;
use crate::plan::resolve::Planned;
use crate::process::protocol::{Message, OutputFile, Task};
use crate::report::{CandidateReport, Choice, Examples, Kind, LayerReport, Report, Verification, gain_kept};
use crate::settings::{Allocation, Budget, Method, Size};
use crate::train::{self, Trained};

/// How a job ended.
#[derive(Debug)]
pub enum Outcome {
    /// With these artifacts, all below the task's scratch folder.
    Finished(Vec<OutputFile>),
    /// As asked; the last checkpoint stands.
    Stopped,
}

/// Computes `task`. `emit` hears of phases, progress, metrics and checkpoints while it runs; `stop` is read between batches.
///
/// # Errors
/// What keeps the job from ever succeeding, in words for its owner.
pub fn run(task: &Task, emit: &mut (dyn FnMut(Message) + Send), stop: &AtomicBool) -> Result<Outcome, Problem> {
    let pool = ThreadPoolBuilder::new().num_threads(task.threads.max(1)).build();
    let pool = pool.map_err(|error| Problem::new(Code::ResourcesExhausted, format!("no threads: {error}")))?;
    match pool.install(|| compute(task, &mut Phases::new(emit, stop))) {
        Ok(artifacts) => Ok(Outcome::Finished(artifacts)),
        Err(Halt::Stopped) => Ok(Outcome::Stopped),
        Err(Halt::Failed(problem)) => Err(problem),
    }
}

fn compute(task: &Task, phases: &mut Phases<'_>) -> Result<Vec<OutputFile>, Halt> {
    phases.begin(Phase::Load)?;
    let loaded = Loaded::open(task, phases)?;
    phases.begin(Phase::Plan)?;
    let mut planned = loaded.planned(task)?;
    if let Some(limit) = task.memory_limit.filter(|limit| planned.plan.memory_peak_bytes > *limit) {
        let expected = planned.plan.memory_peak_bytes;
        phases.warn(format!(
            "the plan estimates {expected} bytes of memory, and the job may use {limit}: it may not end well"
        ));
    }
    for warning in &planned.plan.warnings {
        phases.warn(warning.clone());
    }
    if let Size::Budget(Budget { allocation: Allocation::Sensitivity, .. }) = task.job.target.size {
        let curves = sensitivities(task, &loaded, &planned, phases)?;
        planned.allocate(&task.job.target, &curves)?;
    }
    let network = &planned.network;
    let padded = transplant::padded(&loaded, network);
    let ensemble = transplant::ensemble(&loaded, &padded, network)?;
    let bench = loaded.data.as_ref().map(|data| Bench::new(data, &planned, task, phases.stop_flag()));
    let ensemble = transplant::weighted(task, ensemble, bench.as_ref(), phases)?;
    let verification = transplant::verify(&ensemble, loaded.data.as_ref(), task.job.seed, phases)?;
    let FusedFile { fused, file, uncompensated, compensation, choice } =
        transplant::fuse(task, &ensemble, network, bench.as_ref(), phases)?;
    let trained = match (&task.job.finetune, &bench) {
        (Some(finetune), Some(bench)) => Some(recover::recover(task, finetune, bench, &ensemble, &fused, phases)?),
        _ => None,
    };
    let (recovered, model) = match &trained {
        Some(trained) => {
            // Where no epoch beat it, the network as it was has kept the precision of the members.
            let untrained = if trained.best_epoch == 0 { Some(compensate::copy(&fused)?) } else { None };
            let best = untrained.as_ref().unwrap_or(&trained.weights);
            let (weights, file) = publish::model(task, best, &network.precision)?;
            (Some(weights), file)
        }
        None => (None, file),
    };
    let candidates = match &bench {
        Some(bench) => {
            let networks = FusedNetworks {
                graph: &fused.graph,
                uncompensated: uncompensated.as_ref(),
                zero_shot: &fused.weights,
                recovered: recovered.as_ref(),
            };
            evaluate(task, bench, &ensemble, &networks, phases)?
        }
        None => Vec::new(),
    };
    phases.begin(Phase::Publish)?;
    let found = Found { network, verification, candidates, compensation, choice, trained: trained.as_ref() };
    let report = report(task, &loaded, found, &fused.provenance, phases);
    let results = Results { graph: &fused.graph, model, provenance: &fused.provenance, report: &report };
    Ok(publish::publish(task, results)?)
}

/// How much each layer matters to the ensemble's outputs.
fn sensitivities(task: &Task, loaded: &Loaded, planned: &Planned, phases: &mut Phases<'_>) -> Result<Vec<Curve>, Halt> {
    let padded = transplant::padded(loaded, &planned.network);
    let ensemble = transplant::ensemble(loaded, &padded, &planned.network)?;
    let bench = loaded.data.as_ref().map(|data| Bench::new(data, planned, task, phases.stop_flag()));
    sensitivity::curves(&ensemble, bench.as_ref(), phases)
}

fn evaluate(
    task: &Task,
    bench: &Bench<'_>,
    ensemble: &Ensemble<'_>,
    networks: &FusedNetworks<'_>,
    phases: &mut Phases<'_>,
) -> Result<Vec<CandidateReport>, Halt> {
    let candidates = candidates::candidates(bench, task, ensemble, networks, phases)?;
    if near_chance(&candidates, ensemble.graph().classes()) {
        phases.warn(
            "the members score near chance on this data: check `normalize` and the order of the classes against what \
             they were trained with",
        );
    }
    Ok(candidates)
}

/// Whether the best member is hardly better than guessing.
fn near_chance(candidates: &[CandidateReport], classes: usize) -> bool {
    let members = candidates.iter().filter(|candidate| candidate.kind == Kind::Member);
    let accuracies = members.filter_map(|member| Some(member.test.or(member.validation)?.accuracy));
    accuracies.reduce(f64::max).is_some_and(|best| classes > 1 && best < 1.5 / classes as f64)
}

/// What the report tells of.
struct Found<'a> {
    network: &'a Network,
    verification: Verification,
    candidates: Vec<CandidateReport>,
    compensation: Option<Compensation>,
    choice: Option<Choice>,
    trained: Option<&'a Trained>,
}

fn report(task: &Task, loaded: &Loaded, found: Found<'_>, provenance: &Provenance, phases: &Phases<'_>) -> Report {
    let data = loaded.data.as_ref();
    let count = |part: Option<&load::Part>| part.map_or(0, train::Examples::len);
    let examples = Examples {
        train: count(data.map(|data| &data.train)),
        validation: count(data.and_then(|data| data.validation.as_ref())),
        test: count(data.and_then(|data| data.test.as_ref())),
    };
    Report {
        engraft_version: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: found.network.detected.family.clone(),
        assumptions: found.network.detected.assumptions.clone(),
        ensemble_gain_kept: gain_kept(&found.candidates, examples.test),
        members: task.job.members.clone(),
        member_weights: provenance.shares.clone(),
        candidates: found.candidates,
        compensation: found.compensation,
        choice: found.choice,
        best_epoch: found.trained.map(|trained| trained.best_epoch),
        epochs: found.trained.map(|trained| trained.history.clone()).unwrap_or_default(),
        layers: layers(found.network, provenance, task.members.len()),
        method: Method {
            importance: found.network.importance,
            compensate: found.network.compensate,
            batch_norm: found.network.batch_norm,
            ..task.job.method.clone()
        },
        verification: found.verification,
        warnings: phases.warnings(),
        examples,
        normalize: data.and_then(|data| data.train.normalize.clone()),
        seed: task.job.seed,
        seconds: phases.seconds(),
        memory_peak_bytes: phases.memory(),
    }
}

/// Each layer with the number of units that it took from each member; none where units were averaged.
fn layers(network: &Network, provenance: &Provenance, members: usize) -> Vec<LayerReport> {
    let kept = |groups: &[GroupId]| {
        let mut kept = if provenance.groups.is_empty() { Vec::new() } else { vec![0; members] };
        let origins = groups.iter().filter_map(|group| provenance.groups.get(group.0));
        origins.flat_map(|origin| &origin.units).for_each(|unit| kept[unit.0] += 1);
        kept
    };
    let layers = network.fusion.layers.iter().zip(&network.fusion.groups);
    layers.map(|(plan, groups)| LayerReport { kept_per_member: kept(groups), plan: plan.clone() }).collect()
}
