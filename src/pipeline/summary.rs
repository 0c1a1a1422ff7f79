//! A job's report.

use super::context::Context;
use super::load::Subset;
use crate::fusion::Provenance;
use crate::model::groups::GroupId;
use crate::model::refit::Compensation;
use crate::plan::network::Network;
use crate::process::protocol::{InputFile, OutputFile, Task, TaskGpu};
use crate::report::{
    CandidateReport, Choice, Computation, EnsembleChoice, LayerReport, PairedTest, PublishedControl, Report,
    ReportFile, ReportIdentity, SplitSizes, Verification, gain_kept,
};
use crate::settings::{ComputeOptions, Device, Method};
use crate::train::{self, Trained};

/// What the report is made of.
pub(super) struct Found<'a> {
    pub(super) identity: ReportIdentity,
    pub(super) verification: Verification,
    pub(super) candidates: Vec<CandidateReport>,
    pub(super) paired: Vec<PairedTest>,
    pub(super) compensation: Option<Compensation>,
    pub(super) choice: Option<Choice>,
    pub(super) ensemble: Option<EnsembleChoice>,
    pub(super) trained: Option<&'a Trained>,
    pub(super) published: Option<PublishedControl>,
    /// The epoch that is published.
    pub(super) best_epoch: Option<usize>,
}

/// The report.
pub(super) fn report(context: &Context<'_>, found: Found<'_>, provenance: &Provenance) -> Report {
    let (task, network, phases) = (context.task, context.network(), &context.phases);
    let data = context.bench.map(|bench| bench.data());
    let count = |part: Option<&Subset>| part.map_or(0, train::Examples::len);
    let examples = SplitSizes {
        train: count(data.map(|data| &data.train)),
        validation: count(data.and_then(|data| data.validation.as_ref())),
        test: count(data.and_then(|data| data.test.as_ref())),
    };
    Report {
        identity: found.identity,
        engraft_version: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: network.detected.family.clone(),
        task: network.task,
        evidence: Some(network.evidence.clone()),
        assumptions: network.detected.assumptions.clone(),
        checks: context.checks.clone(),
        ensemble_gain_kept: gain_kept(&found.candidates, examples.test),
        members: task.job.members.clone(),
        member_weights: provenance.shares.clone(),
        candidates: found.candidates,
        paired: found.paired,
        compensation: found.compensation,
        choice: found.choice,
        ensemble: found.ensemble,
        recovery: context.recovery().map(|recovery| recovery.decision.clone()),
        published: found.published,
        best_epoch: found.best_epoch,
        epoch_choice: found.trained.map(|_| context.epoch_choice()),
        epochs: found.trained.map(|trained| trained.history.clone()).unwrap_or_default(),
        layers: layers(network, provenance, task.members.len()),
        method: Method {
            importance: network.importance,
            compensate: network.compensate,
            batch_norm: network.batch_norm,
            ..task.job.method.clone()
        },
        verification: found.verification,
        input_shape: Some(network.detected.graphs[0].input_shape().clone()),
        warnings: phases.warnings(),
        examples,
        normalize: data.and_then(|data| data.train.normalize.clone()),
        computation: Some(computation(&task.compute_options(), task.gpu.as_ref())),
        seed: task.job.seed,
        seconds: phases.seconds(),
        memory_peak_bytes: phases.memory(),
    }
}

/// Which job the report is of, whose model is the file `model`.
pub(super) fn identity(task: &Task, model: &OutputFile, has_source: bool) -> ReportIdentity {
    let file = |file: &InputFile| ReportFile { name: file.name.clone(), sha256: file.sha256.clone() };
    ReportIdentity {
        job: task.origin.job.clone(),
        name: task.job.name.clone(),
        date: task.origin.date.clone(),
        model: task.origin.model.clone().map(|name| ReportFile { name, sha256: model.sha256.clone() }),
        members: task.members.iter().map(file).collect(),
        dataset: task.dataset.as_ref().map(file),
        validation: task.validation.as_ref().map(file),
        test: task.test.as_ref().map(file),
        has_source,
        source: task.origin.source.clone().filter(|_| has_source),
    }
}

/// What networks are computed with.
pub(super) fn computation(options: &ComputeOptions, gpu: Option<&TaskGpu>) -> Computation {
    Computation {
        device: gpu.map_or_else(|| Device::Cpu.to_string(), |gpu| gpu.facts.name.clone()),
        precision: options.precision,
        deterministic: options.deterministic,
        versions: gpu.map(|gpu| gpu.versions.clone()),
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
