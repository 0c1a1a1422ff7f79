//! The training loop.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::domain::epoch_choice::{EpochChoice, is_better};
use crate::domain::progress::EpochMetrics;
use crate::domain::score::Score;
use crate::exec::{Engine, Held, Update};
use crate::kernels::dropout::Draw;
use crate::kernels::loss::{Soft, Targets};
use crate::kernels::truth::Truth;
use crate::settings::{Finetune, Objective};
use crate::tensors::{StateDict, Written};
use crate::train::checkpoint::{self, TrainingState};
use crate::train::evaluate::{check, evaluate};
use crate::train::loader::{Batch, BatchSource, Loader};
use crate::train::schedule::{Span, factor};
use crate::train::{Examples, TeacherLogits, TrainError};

/// The epoch whose order examples have when statistics are measured: before the first one.
const MEASURING: usize = 0;

/// What is trained on, and how.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Epochs, objective, optimizer, schedule, batch size.
    pub finetune: &'a Finetune,
    /// Seed of the order of examples.
    pub seed: u64,
    /// What the weights learn from.
    pub train: &'a dyn Examples,
    /// Measured each epoch; what the epoch is chosen by.
    pub validation: Option<&'a dyn Examples>,
    /// Which epoch's weights count in the end.
    pub choice: EpochChoice,
    /// Measured each epoch, for the record only.
    pub test: Option<&'a dyn Examples>,
    /// For distillation.
    pub teacher: Option<TeacherLogits<'a>>,
    /// An existing folder for a checkpoint after each epoch.
    pub checkpoints: Option<&'a Path>,
}

/// What happens while training.
#[derive(Debug)]
pub enum TrainingEvent<'a> {
    /// A step is done.
    Step {
        /// The running epoch, from 1.
        epoch: usize,
        /// Steps done in this epoch.
        step: usize,
        /// Steps of an epoch.
        steps: usize,
        /// Training speed in this epoch so far.
        images_per_s: f64,
    },
    /// An epoch has ended; epoch 0 is the network before its first step.
    Epoch(&'a EpochMetrics),
    /// A checkpoint is on the disk.
    Checkpoint {
        /// Finished epochs.
        epoch: usize,
        /// The file.
        path: PathBuf,
        /// Its digest and length.
        written: Written,
    },
}

/// A finished training.
#[derive(Debug)]
pub struct Trained {
    /// Weights of the epoch that counts.
    pub weights: StateDict,
    /// How they do on the validation and the test examples, where there are some.
    pub scores: [Option<Score>; 2],
    /// The epoch that counts; 0 if no training helped.
    pub epoch: usize,
    /// Epoch 0 and all others.
    pub history: Vec<EpochMetrics>,
}

/// Trains `network` from the weights it holds, or from the checkpoint `resume` of the same training. With the same
/// weights and setup the result is the same bit for bit on the same kind of processor, whatever the number of threads and
/// however often it was interrupted. `stop` is read between batches.
///
/// # Errors
/// When data and network do not fit, the loss is no longer finite, a checkpoint cannot be written or does not belong to
/// this training, or `stop` is set.
pub fn train(
    network: &mut dyn Engine,
    setup: &Setup,
    resume: Option<&Path>,
    stop: &AtomicBool,
    report: &mut dyn FnMut(TrainingEvent),
) -> Result<Trained, TrainError> {
    let mut run = Run::new(network, setup, stop)?;
    let mut progress = match resume {
        Some(path) => checkpoint::resume(path, &run.settings, run.network)?,
        None => run.start(report)?,
    };
    for epoch in progress.epoch() + 1..=setup.finetune.epochs {
        if setup.finetune.patience.is_some_and(|patience| progress.epoch() - progress.best_epoch >= patience) {
            break;
        }
        let metrics = run.epoch(epoch, report)?;
        report(TrainingEvent::Epoch(&metrics));
        if is_better(&metrics, &progress.history, progress.best_epoch) {
            progress.best = run.network.state_dict()?;
            progress.best_epoch = epoch;
        }
        progress.history.push(metrics);
        run.save(&progress, report)?;
    }
    let TrainingState { best, best_epoch, history } = progress;
    let epoch = setup.choice.epoch(&history, best_epoch);
    let weights = if epoch == best_epoch { best } else { run.network.state_dict()? };
    if setup.finetune.batch_norm_reestimate && epoch > 0 && run.network.has_statistics() {
        let scores = run.reestimate(&weights, history.len() - 1)?;
        return Ok(Trained { weights: run.network.state_dict()?, scores, epoch, history });
    }
    let scores = history.get(epoch).map_or([None, None], |metrics| [metrics.validation, metrics.test]);
    Ok(Trained { weights, scores, epoch, history })
}

/// A training under way.
#[derive(Debug)]
struct Run<'a> {
    network: &'a mut dyn Engine,
    setup: &'a Setup<'a>,
    stop: &'a AtomicBool,
    /// Digest of everything that the result depends on besides the weights.
    settings: String,
    source: BatchSource<'a>,
    /// The train split's images, where the device holds them.
    held: Option<Held>,
    loader: Loader,
}

impl<'a> Run<'a> {
    fn new(network: &'a mut dyn Engine, setup: &'a Setup<'a>, stop: &'a AtomicBool) -> Result<Self, TrainError> {
        check(network, setup.train, "train")?;
        setup.validation.map_or(Ok(()), |examples| check(network, examples, "validation"))?;
        setup.test.map_or(Ok(()), |examples| check(network, examples, "test"))?;
        let (source, held) = source(network, setup)?;
        network.init_optimizer(&setup.finetune.optimizer);
        let settings = settings(network, setup);
        Ok(Self { network, setup, stop, settings, source, held, loader: Loader::new()? })
    }

    /// Measures the network as it is: epoch 0.
    fn start(&mut self, report: &mut dyn FnMut(TrainingEvent)) -> Result<TrainingState, TrainError> {
        let (validation, test) = self.measure(0, 0)?;
        let metrics = EpochMetrics {
            epoch: 0,
            train_loss: None,
            train_accuracy: None,
            validation,
            test,
            lr: None,
            images_per_s: None,
        };
        report(TrainingEvent::Epoch(&metrics));
        let progress = TrainingState { best: self.network.state_dict()?, best_epoch: 0, history: vec![metrics] };
        self.save(&progress, report)?;
        Ok(progress)
    }

    fn save(&mut self, progress: &TrainingState, report: &mut dyn FnMut(TrainingEvent)) -> Result<(), TrainError> {
        let Some(folder) = self.setup.checkpoints else { return Ok(()) };
        let (path, written) = checkpoint::save(folder, &self.settings, self.network, progress)?;
        report(TrainingEvent::Checkpoint { epoch: progress.epoch(), path, written });
        Ok(())
    }

    /// One pass over the train split.
    fn epoch(&mut self, epoch: usize, report: &mut dyn FnMut(TrainingEvent)) -> Result<EpochMetrics, TrainError> {
        let examples = self.setup.train.len();
        let batch = self.setup.finetune.batch_size.clamp(1, examples);
        let steps = examples / batch;
        let Finetune { epochs, warmup_epochs, .. } = *self.setup.finetune;
        let span = Span { steps, epochs, warmup_epochs };
        let order = order(examples, self.setup.seed, epoch);
        let start = Instant::now();
        let mut done = Totals::default();
        let (mut speed, mut lr) = (0.0, 0.0);
        let Self { network, setup, stop, held, .. } = self;
        let mut index = 0;
        self.loader.each(self.source, epoch, &order, batch, |examples| {
            if stop.load(Ordering::Relaxed) {
                return Err(TrainError::Stopped);
            }
            let global = (epoch - 1) * steps + index;
            let factor = factor(&setup.finetune.schedule, global, span);
            let draw = Draw { seed: setup.seed, step: global as u64 };
            step(*network, setup, examples, held.as_ref(), factor, draw)?;
            index += 1;
            done.take(*network, epoch, index == steps)?;
            lr = setup.finetune.optimizer.rate(factor);
            speed = (index * batch) as f64 / start.elapsed().as_secs_f64().max(1e-9);
            report(TrainingEvent::Step { epoch, step: index, steps, images_per_s: speed });
            Ok(())
        })?;
        let (validation, test) = self.measure(epoch, steps)?;
        Ok(EpochMetrics {
            epoch,
            train_loss: Some(done.loss / steps as f64),
            train_accuracy: decides(self.setup.train).then_some(done.correct as f64 / (steps * batch) as f64),
            validation,
            test,
            lr: Some(lr),
            images_per_s: Some(speed),
        })
    }

    /// Puts the weights `best` into the network, measures the statistics of BatchNorm anew, and the network with them.
    fn reestimate(&mut self, best: &StateDict, epoch: usize) -> Result<[Option<Score>; 2], TrainError> {
        self.network.load(best)?;
        self.network.reset_statistics()?;
        let source = BatchSource { augment: None, teacher: None, ..self.source };
        let examples = self.setup.train.len();
        let (batch, order) =
            (self.setup.finetune.batch_size.clamp(1, examples), order(examples, self.setup.seed, MEASURING));
        let Self { network, stop, held, .. } = self;
        self.loader.each(source, MEASURING, &order, batch, |batch| {
            if stop.load(Ordering::Relaxed) {
                return Err(TrainError::Stopped);
            }
            Ok(network.reestimate(batch.inputs(held.as_ref()))?)
        })?;
        self.measure(epoch, 0).map(<[Option<Score>; 2]>::from)
    }

    /// Validation and test scores; all weights must be finite.
    fn measure(&mut self, epoch: usize, step: usize) -> Result<(Option<Score>, Option<Score>), TrainError> {
        if !self.network.is_finite()? {
            return Err(TrainError::Diverged { what: "network", epoch, step });
        }
        let mut score = |examples: Option<&dyn Examples>| {
            let score = examples.map(|examples| evaluate(self.network, examples, self.stop)).transpose()?;
            score.map_or(Ok(()), |score| finite(score.loss, "loss", epoch, step))?;
            Ok::<_, TrainError>(score)
        };
        Ok((score(self.setup.validation)?, score(self.setup.test)?))
    }
}

/// What the steps of an epoch came to so far; a device may be some steps ahead.
#[derive(Debug, Default)]
struct Totals {
    steps: usize,
    loss: f64,
    correct: usize,
}

impl Totals {
    /// Adds the results of steps that are there, of all steps with `wait`.
    fn take(&mut self, network: &mut dyn Engine, epoch: usize, wait: bool) -> Result<(), TrainError> {
        for step in network.take_steps(wait)? {
            self.steps += 1;
            finite(step.loss, "loss", epoch, self.steps)?;
            self.loss += step.loss;
            self.correct += step.correct;
        }
        Ok(())
    }
}

/// What the batches are made of, if it fits together, and the images that the device holds.
pub(super) fn source<'a>(
    network: &mut dyn Engine,
    setup: &Setup<'a>,
) -> Result<(BatchSource<'a>, Option<Held>), TrainError> {
    let Setup { finetune, seed, train: examples, .. } = *setup;
    let classes = network.classes();
    let teacher = match (finetune.objective, setup.teacher) {
        (Objective::CrossEntropy, _) | (_, Some(TeacherLogits::PerBatch(_))) => None,
        (Objective::Distill { .. }, teacher) => {
            let stored = if let Some(TeacherLogits::Stored(stored)) = teacher { stored } else { &[] };
            let (expected, got) = (examples.len() * classes, stored.len());
            if expected != got {
                return Err(TrainError::Teacher { expected, got });
            }
            Some(stored)
        }
    };
    let shape = examples.image_shape();
    let augment =
        finetune.augment.map(|augment| match (augment.misfit(shape.as_ref().map_or(&[], |shape| &shape[..])), shape) {
            (None, Some(shape)) => Ok((augment, shape)),
            (misfit, _) => Err(TrainError::Augment(misfit.unwrap_or_default())),
        });
    let augment = augment.transpose()?;
    let held = match examples.stored() {
        Some(images) => network.hold(&images, augment.is_some())?,
        None => None,
    };
    Ok((BatchSource { examples, teacher, classes, augment, seed, held: held.is_some() }, held))
}

/// Gradients of one batch and a step along them.
pub(super) fn step(
    network: &mut dyn Engine,
    setup: &Setup<'_>,
    batch: &mut Batch,
    held: Option<&Held>,
    factor: f64,
    draw: Draw,
) -> Result<(), TrainError> {
    let Setup { finetune, teacher, .. } = *setup;
    let mut logits = std::mem::take(&mut batch.teacher);
    let inputs = batch.inputs(held);
    let soft = match finetune.objective {
        Objective::Distill { temperature, soft_weight, .. } => {
            if let Some(TeacherLogits::PerBatch(teacher)) = teacher {
                logits.resize(inputs.examples(network.example_len()) * network.classes(), 0.0);
                teacher.teach(inputs, &mut logits)?;
            }
            let (temperature, weight) = (f64::from(temperature), f64::from(soft_weight));
            Some(Soft { teacher: &logits[..], temperature, weight })
        }
        Objective::CrossEntropy => None,
    };
    let targets = Targets { truths: batch.truths.truths(), smoothing: f64::from(finetune.label_smoothing), soft };
    let update = Update { lr_scale: factor, clip_norm: finetune.clip_norm };
    network.step(inputs, targets, update, draw)?;
    // The buffer is used again.
    batch.teacher = logits;
    Ok(())
}

/// Whether each example is either right or wrong.
fn decides(examples: &dyn Examples) -> bool {
    examples.is_labelled()
        && match examples.truth(0) {
            Truth::Class(_) => true,
            Truth::Flags(flags) => flags.len() == 1,
            Truth::Numbers(_) => false,
        }
}

fn finite(value: f64, what: &'static str, epoch: usize, step: usize) -> Result<(), TrainError> {
    if value.is_finite() { Ok(()) } else { Err(TrainError::Diverged { what, epoch, step }) }
}

/// The order of `len` examples in `epoch`, a stream of the generator's own for each.
pub(super) fn order(len: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(epoch as u64);
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut generator);
    order
}

fn settings(network: &dyn Engine, setup: &Setup) -> String {
    let tensors = network.learned();
    let sizes = (setup.train.len(), setup.validation.map(Examples::len), setup.test.map(Examples::len));
    let mut text = format!("{:?} {} {sizes:?} {tensors:?}", setup.finetune, setup.seed);
    text.extend(network.arithmetic());
    hex::encode(Sha256::digest(text.as_bytes()))
}
