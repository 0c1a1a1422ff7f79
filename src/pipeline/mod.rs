//! What a job computes, from open files to written artifacts: the code behind `engraft fuse` and behind every worker's
//! child process. Knows no database and no network.

mod batch_norm;
mod candidates;
mod checks;
pub mod child;
mod choice;
mod consensus;
mod context;
mod course;
pub mod ensemble;
mod gradients;
mod identify;
mod join;
mod load;
mod measure;
mod member_base;
mod members;
pub mod methods;
mod metrics;
mod phases;
mod publish;
mod rank;
mod recover;
mod rivals;
mod sensitivity;
pub mod speed;
mod splits;
mod summary;
mod teacher;
#[cfg(test)]
mod tests;
mod verification;

use std::fmt::Write;
use std::sync::atomic::AtomicBool;

use rayon::ThreadPoolBuilder;

use candidates::{Evaluated, FusedNetworks};
use checks::SplitAccuracy;
use context::Context;
use identify::identify;
use join::FusedFile;
use load::Loaded;
use measure::Bench;
use phases::{Halt, Phases};
use publish::{Results, WriteMode};
use rivals::Successor;
use splits::Splits;
use summary::Found;

use crate::cost::Counts;
use crate::domain::problem::{Code, Problem};
use crate::domain::progress::Phase;
use crate::domain::score::Score;
use crate::fusion::{Ensemble, Fused, Provenance, compensate};
use crate::model::families::Degree;
use crate::plan::held_out::{self, KnownDataset, Validation};
use crate::plan::labels;
use crate::plan::resolve::Planned;
use crate::process::protocol::{Message, OutputFile, Task, TaskGpu};
use crate::report::{CandidateKind, CandidateReport, CheckCode};
use crate::settings::{Allocation, Budget, Size};
use crate::tensors::Checkpoint;
use crate::train::{Examples, Trained};

/// How a job ended.
#[derive(Debug)]
pub enum JobOutcome {
    /// With these artifacts, all below the task's scratch folder.
    Finished(Vec<OutputFile>),
    /// By request; the last checkpoint stands.
    Stopped,
}

/// Computes `task`. `emit` takes phases, progress, metrics and checkpoints while it runs; `stop` is read between batches.
///
/// # Errors
/// What keeps the job from ever succeeding, in words for its owner.
pub fn run(task: &Task, emit: &mut (dyn FnMut(Message) + Send), stop: &AtomicBool) -> Result<JobOutcome, Problem> {
    run_counted(task, emit, stop).map(|(outcome, _)| outcome)
}

/// As [`run`]; also returns how often a job that finished did what a plan counts.
///
/// # Errors
/// As [`run`].
pub fn run_counted(
    task: &Task,
    emit: &mut (dyn FnMut(Message) + Send),
    stop: &AtomicBool,
) -> Result<(JobOutcome, Counts), Problem> {
    let pool = ThreadPoolBuilder::new().num_threads(task.threads.max(1)).build();
    let pool = pool.map_err(|error| Problem::new(Code::ResourcesExhausted, format!("no threads: {error}")))?;
    let mut expected = None;
    match pool.install(|| compute(task, Phases::new(emit, stop), &mut expected)) {
        Ok((artifacts, counts)) => Ok((JobOutcome::Finished(artifacts), counts)),
        Err(Halt::Stopped) => Ok((JobOutcome::Stopped, Counts::default())),
        Err(Halt::Failed(problem)) => Err(beside_the_plan(problem, expected)),
    }
}

/// A lack of the GPU's memory beside what the plan estimates.
fn beside_the_plan(mut problem: Problem, expected: Option<u64>) -> Problem {
    if let Some(bytes) = expected.filter(|_| problem.code == Code::OutOfMemory) {
        let _infallible = write!(problem.detail, "; the plan estimates {bytes} bytes for the whole job");
    }
    problem
}

/// Phase after phase. `expected` is what the plan estimates of the GPU's memory, once there is one.
fn compute(task: &Task, mut phases: Phases<'_>, expected: &mut Option<u64>) -> Result<(Vec<OutputFile>, Counts), Halt> {
    let mut loaded = load(task, &mut phases)?;
    phases.begin(Phase::Plan)?;
    let mut narrowed = task.clone();
    labels::narrow(&mut narrowed.job, loaded.main());
    let task = &narrowed;
    let planned = loaded.planned(task)?;
    let graph = &planned.network.detected.graphs[0];
    loaded.fit_channels(graph.input_shape());
    loaded.fit_task(planned.network.task, graph.classes());
    let identified = identify(task, &loaded, &planned, &mut phases)?;
    let (task, planned) = identified.map_or_else(|| (task.clone(), planned), |found| (found.task, found.planned));
    let task = &task;
    phases.expect(&planned);
    *expected = task.gpu.as_ref().map(|_| planned.plan.gpu_memory_bytes);
    warn(task, &planned, &mut phases);
    let mut context = Context::new(task, &planned, &loaded, phases);
    if context.validation == Validation::Unknown
        && held_out::validation(&task.job, &loaded.headers(), KnownDataset { sha256: None, ..loaded.known(task) })
            == Validation::Unseen
    {
        context.phases.warn("the members were trained on another file than this dataset, so what their training held out is not known here");
    }
    let padded = members::padded(&loaded, &planned.network);
    let ensemble = members::ensemble(&loaded, &padded, &planned.network)?;
    context.checks = checks::check(&mut context, &ensemble)?;
    let allocated = allocate(&mut context, &ensemble)?;
    let mut context = context.replanned(allocated.as_ref().unwrap_or(&planned));
    context.phases.expect(context.planned);
    let ensemble = members::weighted(&mut context, ensemble)?;
    let (ensemble, rule) = consensus::with_rule(&mut context, ensemble)?;
    let verification = verification::verify(&mut context, &ensemble)?;
    let made = methods::fuse(&mut context, &ensemble)?;
    let trained = recover(&mut context, &ensemble, made.start())?;
    let Settled { recovered, mut model, epoch } = settle(&mut context, &made, trained.as_ref())?;
    let Evaluated { rows, paired, successor } = evaluate(&mut context, &ensemble, &made, recovered.as_ref())?;
    context.phases.begin(Phase::Publish)?;
    // Training starts from another network only where that one may be published.
    let mut provenance = if epoch.is_some() { made.start().provenance.clone() } else { made.fused.provenance.clone() };
    let published = successor.map(|Successor { published, member, weights }| {
        // What it takes the place of is still mapped.
        let (graph, precision) = (&made.fused.graph, &context.network().precision);
        (_, model) = publish::model(&context, graph, &weights, precision, WriteMode::Replaced)?;
        provenance = Provenance::of_member(&ensemble, member);
        Ok::<_, Problem>(published)
    });
    let published = published.transpose()?;
    let (compensation, choice) = (made.compensation.clone(), made.choice.clone());
    let known = planned.network.evidence.degree != Degree::Ambiguous;
    let graph = known.then_some(&made.fused.graph);
    let normalize = loaded.data.as_ref().and_then(|data| data.train.normalize.as_ref());
    let source = graph.and_then(|graph| publish::source(graph, normalize));
    let found = Found {
        identity: summary::identity(task, &model, source.is_some()),
        verification,
        candidates: rows,
        paired,
        compensation,
        choice,
        ensemble: rule,
        trained: trained.as_ref(),
        best_epoch: trained.as_ref().filter(|_| published.is_none()).map(|_| epoch.unwrap_or(0)),
        published,
    };
    let report = summary::report(&context, found, &provenance);
    let results = Results { graph, source, model, provenance: &provenance, report: &report };
    Ok((publish::publish(task, results)?, context.counts))
}

/// Opens the files.
fn load(task: &Task, phases: &mut Phases<'_>) -> Result<Loaded, Halt> {
    phases.begin(Phase::Load)?;
    Loaded::open(task, phases)
}

/// Warns of what the plan warns of.
fn warn(task: &Task, planned: &Planned, phases: &mut Phases<'_>) {
    let expected = planned.plan.memory_peak_bytes;
    if let Some(limit) = task.memory_limit.filter(|limit| expected > *limit) {
        phases.warn(format!(
            "the plan estimates {expected} bytes of memory, and the job may use {limit}: it may not end well"
        ));
    }
    let expected = planned.plan.gpu_memory_bytes;
    if let Some(limit) = task.gpu.as_ref().and_then(TaskGpu::available).filter(|limit| expected > *limit) {
        phases.warn(format!(
            "the plan estimates {expected} bytes of the GPU's memory, and the job may use {limit}: it may not end well"
        ));
    }
    for warning in &planned.plan.warnings {
        phases.warn(warning.clone());
    }
}

/// What becomes of the networks where a budget is spent by how much each layer matters; none where the plan stands.
fn allocate(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<Option<Planned>, Halt> {
    let target = &context.task.job.target;
    let Size::Budget(Budget { allocation: Allocation::Sensitivity, .. }) = target.size else { return Ok(None) };
    let curves = sensitivity::curves(context, ensemble)?;
    Ok(Some(context.planned.allocated(target, &curves)?))
}

/// Trains the fused network, if the job has a `finetune`.
fn recover(
    context: &mut Context<'_>,
    ensemble: &Ensemble<'_>,
    fused: &Fused<Checkpoint>,
) -> Result<Option<Trained>, Halt> {
    match (context.recovery().cloned(), context.bench) {
        (Some(recovery), Some(bench)) => recover::recover(context, recovery, bench, ensemble, fused).map(Some),
        _ => Ok(None),
    }
}

/// What is published.
struct Settled {
    /// The network, mapped; none where nothing was trained.
    recovered: Option<Checkpoint>,
    model: OutputFile,
    /// The epoch that it comes from, if from the training.
    epoch: Option<usize>,
}

/// The best network on the validation split: of the training, or the one before it where that was started from another.
fn settle(context: &mut Context<'_>, made: &FusedFile, trained: Option<&Trained>) -> Result<Settled, Halt> {
    let Some(trained) = trained else { return Ok(Settled { recovered: None, model: made.file.clone(), epoch: None }) };
    let zero_shot = made.choice.as_ref().and_then(|choice| choice.tried.get(choice.kept)?.validation);
    let beaten = match (made.start.is_some(), zero_shot, trained.scores[0]) {
        (true, Some(zero_shot), Some(trained)) if zero_shot.merit() >= trained.merit() => {
            let side = if trained.accuracy().is_some() { "above" } else { "better than" };
            context.phases.warn(format!(
                "training ended at {trained} on the validation split, not {side} the network before any training, {zero_shot}: that is \
                 published"
            ));
            true
        }
        _ => false,
    };
    // Where no epoch beat it, the network as it was has kept the precision of the members.
    let untrained = if beaten {
        Some(compensate::copy(&made.fused)?)
    } else if trained.epoch == 0 {
        Some(compensate::copy(made.start())?)
    } else {
        None
    };
    let best = untrained.as_ref().unwrap_or(&trained.weights);
    let (graph, precision) = (&made.fused.graph, &context.network().precision);
    let (weights, model) = publish::model(context, graph, best, precision, WriteMode::Published)?;
    Ok(Settled { recovered: Some(weights), model, epoch: (!beaten).then_some(trained.epoch) })
}

/// Measures every candidate, where there is data.
fn evaluate(
    context: &mut Context<'_>,
    ensemble: &Ensemble<'_>,
    made: &FusedFile,
    recovered: Option<&Checkpoint>,
) -> Result<Evaluated, Halt> {
    let Some(bench) = context.bench else { return Ok(Evaluated::default()) };
    let networks = FusedNetworks {
        graph: &made.fused.graph,
        uncompensated: made.uncompensated.as_ref(),
        zero_shot: &made.fused.weights,
        recovered,
    };
    let evaluated = candidates::candidates(context, bench, ensemble, &networks)?;
    judge(context, bench, ensemble, &evaluated.rows);
    Ok(evaluated)
}

/// Says of all examples of the splits what the first look at the members did not show on some.
fn judge(context: &mut Context<'_>, bench: Bench<'_>, ensemble: &Ensemble<'_>, candidates: &[CandidateReport]) {
    let members: Vec<&CandidateReport> =
        candidates.iter().filter(|candidate| candidate.kind == CandidateKind::Member).collect();
    let scores: Vec<Score> = members.iter().filter_map(|member| member.test.or(member.validation)).collect();
    let Splits { validation, test } = bench.splits();
    let [validation, test] = [validation, test].map(|split| split.map(Examples::len));
    let accuracies = |member: &&CandidateReport| {
        let of = |score: Option<Score>, examples: Option<usize>| SplitAccuracy::of(&score?, examples?);
        Some([of(member.validation, validation)?, of(member.test, test)?])
    };
    let pairs: Option<Vec<_>> = members.iter().map(accuracies).collect();
    let is_known = |code: CheckCode| {
        let known = context.checks.iter().flat_map(|checks| &checks.findings);
        known.into_iter().any(|finding| finding.code == code)
    };
    let mut findings = Vec::new();
    let classes = metrics::classes(context.network().task, ensemble.graph().classes());
    let examples = test.or(validation).unwrap_or(0);
    let explained = is_known(CheckCode::MembersNearChance) || is_known(CheckCode::NormalizeUnlikeTraining);
    if !explained && checks::is_near_chance(&scores, classes, examples) {
        findings.push(checks::near_chance(context));
    }
    if !is_known(CheckCode::ValidationSeenInTraining) {
        findings.extend(pairs.and_then(|pairs| checks::seen(context, &pairs)));
    }
    for finding in findings {
        context.phases.warn(finding.to_string());
        if let Some(checks) = &mut context.checks {
            checks.findings.push(finding);
        }
    }
}
