//! Trains the fused network.

use std::ops::Range;

use super::context::Context;
use super::measure::Bench;
use super::phases::{Halt, Phases};
use super::teacher::TeacherOutputs;
use crate::domain::progress::Phase;
use crate::fusion::{Ensemble, Fused, Member};
use crate::plan::recovery::Recovery;
use crate::process::protocol::OutputFile;
use crate::settings::{Finetune, PredictionTask};
use crate::tensors::Checkpoint;
use crate::train::{self, Examples, Setup, Trained, TrainingEvent};

/// Recovers what pruning lost.
pub(super) fn recover(
    context: &mut Context<'_>,
    mut recovery: Recovery,
    bench: Bench<'_>,
    ensemble: &Ensemble<'_>,
    fused: &Fused<Checkpoint>,
) -> Result<Trained, Halt> {
    context.phases.begin(Phase::Finetune)?;
    context.phases.info(recovery.decision.to_string());
    let (task, stop, data) = (context.task, context.phases.stop_flag(), bench.data());
    let teacher = TeacherOutputs::new(context, &recovery.finetune, bench, ensemble)?;
    let batch = recovery.finetune.batch_size.min(data.train.len());
    let mut network = bench.compiled(&fused.graph, &fused.weights, batch)?;
    let planned = recovery.finetune.clone();
    let setup = Setup {
        finetune: &planned,
        seed: task.job.seed,
        train: &data.train,
        validation: data.validation.as_ref().map(|part| part as &dyn Examples),
        choice: context.epoch_choice(),
        test: data.test.as_ref().map(|part| part as &dyn Examples),
        teacher: teacher.logits(),
        checkpoints: Some(&task.scratch),
    };
    if recovery.may_lower_rate {
        let rate = train::steady_rate(&mut *network, &setup, stop)?;
        if f64::from(rate) < recovery.finetune.optimizer.rate(1.0) {
            context.phases.warn(format!(
                "at a learning rate of {} the loss grows in the first steps: it was lowered to {rate}",
                recovery.decision.lr
            ));
            recovery = recovery.with_rate(rate);
            context.lowered = Some(recovery.clone());
        }
    }
    let setup = Setup { finetune: &recovery.finetune, ..setup };
    let epochs = recovery.finetune.epochs;
    let resume = task.resume.as_deref();
    let trained =
        train::train(&mut *network, &setup, resume, stop, &mut |event| report(event, epochs, &mut context.phases))?;
    if let Some(remark) = network.remark() {
        context.phases.warn(remark);
    }
    Ok(trained)
}

/// Trains `student` as the fused network is, beside the job's own training: without checkpoints, reported by log lines that
/// begin with `name`. It is `part` of its phase, from 0 to 1.
pub(super) fn train_beside(
    context: &mut Context<'_>,
    finetune: &Finetune,
    bench: Bench<'_>,
    ensemble: &Ensemble<'_>,
    student: Member<'_>,
    name: &str,
    part: Range<f64>,
) -> Result<Trained, Halt> {
    let (task, stop, data) = (context.task, context.phases.stop_flag(), bench.data());
    let teacher = TeacherOutputs::new(context, finetune, bench, ensemble)?;
    let batch = finetune.batch_size.min(data.train.len());
    let mut network = bench.compiled(student.graph, student.weights, batch)?;
    let choice = context.epoch_choice();
    // How steep squared errors are depends on how large they are, and each network has its own.
    let own_rate = context.network().task == PredictionTask::Regression
        && context.recovery().is_some_and(|recovery| recovery.may_lower_rate);
    let phases = &mut context.phases;
    let setup = Setup {
        finetune,
        seed: task.job.seed,
        train: &data.train,
        validation: data.validation.as_ref().map(|part| part as &dyn Examples),
        choice,
        test: None,
        teacher: teacher.logits(),
        checkpoints: None,
    };
    let mut lowered = finetune.clone();
    if own_rate {
        let rate = train::steady_rate(&mut *network, &setup, stop)?;
        lowered.optimizer = lowered.optimizer.with_rate(rate);
    }
    let setup = Setup { finetune: &lowered, ..setup };
    let mut log = |event: TrainingEvent<'_>| match event {
        TrainingEvent::Step { epoch, step, steps, .. } => {
            let done = ((epoch - 1) * steps + step) as f64 / (finetune.epochs * steps) as f64;
            phases.goes_on(part.start + (part.end - part.start) * done);
        }
        TrainingEvent::Epoch(metrics) => {
            let score = metrics.validation.map(|score| format!(", validation {score}"));
            phases.info(format!("{name}: epoch {}{}", metrics.epoch, score.unwrap_or_default()));
        }
        TrainingEvent::Checkpoint { .. } => {}
    };
    Ok(train::train(&mut *network, &setup, None, stop, &mut log)?)
}

/// Hands the trainer's events on.
pub(super) fn report(event: TrainingEvent<'_>, epochs: usize, phases: &mut Phases<'_>) {
    match event {
        TrainingEvent::Step { epoch, step, steps, images_per_s } => {
            let done = ((epoch - 1) * steps + step) as f64 / (epochs * steps) as f64;
            phases.progress(done, Some(epoch - 1), Some(step), Some(images_per_s));
        }
        TrainingEvent::Epoch(metrics) => phases.metric(metrics.clone()),
        TrainingEvent::Checkpoint { epoch, path, written } => {
            let file = OutputFile {
                name: "checkpoint".to_owned(),
                path,
                sha256: written.sha256,
                bytes: written.bytes,
                media_type: "application/octet-stream".to_owned(),
            };
            phases.checkpoint(epoch, file);
        }
    }
}
