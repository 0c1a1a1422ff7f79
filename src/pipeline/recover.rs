//! Trains the fused network.

use super::measure::Bench;
use super::phases::{Halt, Phases};
use crate::fusion::{Ensemble, Fused};
use crate::job::protocol::{OutputFile, Phase, Task};
use crate::job::request::{Finetune, Objective};
use crate::tensors::Checkpoint;
use crate::train::{self, Event, Examples, Network, Setup, TrainError, Trained};

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
    let teacher = match finetune.objective {
        Objective::Distill { temperature, teacher, .. } => {
            Some(bench.teacher(ensemble, teacher, temperature, phases)?)
        }
        Objective::CrossEntropy => None,
    };
    let batch = finetune.batch_size.min(data.train.len());
    let mut network = Network::compile(&fused.graph, batch, task.threads)?;
    network.load(&fused.weights).map_err(TrainError::from)?;
    let setup = Setup {
        finetune,
        seed: task.job.seed,
        train: &data.train,
        validation: data.validation.as_ref().map(|part| part as &dyn Examples),
        test: data.test.as_ref().map(|part| part as &dyn Examples),
        teacher: teacher.as_deref(),
        checkpoints: Some(&task.scratch),
    };
    let resume = task.resume.as_deref();
    Ok(train::train(&mut network, &setup, resume, stop, &mut |event| tell(event, finetune.epochs, phases))?)
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
