//! Trains the fused network.

use super::measure::Bench;
use super::phases::{Halt, Phases};
use super::teacher::Lessons;
use crate::domain::progress::Phase;
use crate::exec;
use crate::fusion::{Ensemble, Fused, Member};
use crate::process::protocol::{OutputFile, Task};
use crate::settings::Finetune;
use crate::tensors::Checkpoint;
use crate::train::{self, Event, Examples, Setup, TrainError, Trained};

/// Recovers what pruning lost.
pub(super) fn recover(
    task: &Task,
    finetune: &Finetune,
    bench: &Bench<'_>,
    ensemble: &Ensemble<'_>,
    fused: &Fused<Checkpoint>,
    phases: &mut Phases<'_>,
) -> Result<Trained, Halt> {
    phases.begin(Phase::Finetune)?;
    let (stop, data) = (phases.stop_flag(), bench.data());
    let lessons = Lessons::new(finetune, bench, ensemble, phases)?;
    let batch = finetune.batch_size.min(data.train.len());
    let mut network = exec::compile(task.device, &fused.graph, batch, task.threads)?;
    network.load(&fused.weights).map_err(TrainError::from)?;
    let setup = Setup {
        finetune,
        seed: task.job.seed,
        train: &data.train,
        validation: data.validation.as_ref().map(|part| part as &dyn Examples),
        test: data.test.as_ref().map(|part| part as &dyn Examples),
        teacher: lessons.logits(),
        checkpoints: Some(&task.scratch),
    };
    let resume = task.resume.as_deref();
    Ok(train::train(&mut *network, &setup, resume, stop, &mut |event| tell(event, finetune.epochs, phases))?)
}

/// Trains `student` as the fused network is, beside the job's own training: without checkpoints, told by log lines that
/// begin with `name`.
pub(super) fn train_beside(
    task: &Task,
    finetune: &Finetune,
    bench: &Bench<'_>,
    ensemble: &Ensemble<'_>,
    student: Member<'_>,
    name: &str,
    phases: &mut Phases<'_>,
) -> Result<Trained, Halt> {
    let (stop, data) = (phases.stop_flag(), bench.data());
    let lessons = Lessons::new(finetune, bench, ensemble, phases)?;
    let batch = finetune.batch_size.min(data.train.len());
    let mut network = exec::compile(task.device, student.graph, batch, task.threads)?;
    network.load(student.weights).map_err(TrainError::from)?;
    let setup = Setup {
        finetune,
        seed: task.job.seed,
        train: &data.train,
        validation: data.validation.as_ref().map(|part| part as &dyn Examples),
        test: None,
        teacher: lessons.logits(),
        checkpoints: None,
    };
    let mut tell = |event: Event<'_>| match event {
        Event::Step { epoch, step, steps, .. } => phases.done((epoch - 1) * steps + step, finetune.epochs * steps),
        Event::Epoch(metrics) => {
            let accuracy = metrics.validation.map(|score| format!(", validation {:.2} %", score.accuracy * 100.0));
            phases.info(format!("{name}: epoch {}{}", metrics.epoch, accuracy.unwrap_or_default()));
        }
        Event::Checkpoint { .. } => {}
    };
    Ok(train::train(&mut *network, &setup, None, stop, &mut tell)?)
}

/// Hands the trainer's events on.
pub(super) fn tell(event: Event<'_>, epochs: usize, phases: &mut Phases<'_>) {
    match event {
        Event::Step { epoch, step, steps, images_per_s } => {
            let done = ((epoch - 1) * steps + step) as f64 / (epochs * steps) as f64;
            phases.progress(done, Some(epoch - 1), Some(step), Some(images_per_s));
        }
        Event::Epoch(metrics) => phases.metric(metrics.clone()),
        Event::Checkpoint { epoch, path, written } => {
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
