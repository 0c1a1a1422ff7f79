//! Whether a learning rate leads anywhere: a few steps are tried before a training begins.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::exec::Engine;
use crate::kernels::dropout::Draw;
use crate::kernels::truth::Truth;
use crate::settings::Finetune;
use crate::train::loader::Loader;
use crate::train::trainer::{order, source, step};
use crate::train::{Setup, TrainError};

/// Steps that are tried.
const STEPS: usize = 40;
/// Steps at the beginning and at the end whose losses are compared.
const COMPARED: usize = 8;
/// A loss that has grown by this factor leads away.
const GROWTH: f64 = 1.15;
/// How often the rate is halved at most.
const HALVINGS: usize = 4;
/// The same of numbers: how steep their squared errors are grows with the square of their size, which is anything.
const HALVINGS_OF_NUMBERS: usize = 30;

/// The rate of `setup`, or its half, a quarter and so on: the first at which the loss of the first steps does not grow. The network's
/// weights stay as they are.
///
/// # Errors
/// As [`crate::train::train`], but not where the loss is no longer finite.
pub fn steady_rate(network: &mut dyn Engine, setup: &Setup, stop: &AtomicBool) -> Result<f32, TrainError> {
    let start = network.state_dict()?;
    let mut rate = setup.finetune.optimizer.rate(1.0) as f32;
    let of_numbers = matches!(setup.train.truth(0), Truth::Numbers(_));
    for _ in 0..if of_numbers { HALVINGS_OF_NUMBERS } else { HALVINGS } {
        let finetune = Finetune { optimizer: setup.finetune.optimizer.with_rate(rate), ..setup.finetune.clone() };
        let losses = first_losses(network, &Setup { finetune: &finetune, ..*setup }, stop)?;
        network.load(&start)?;
        if is_steady(&losses) {
            break;
        }
        rate /= 2.0;
    }
    Ok(rate)
}

/// The losses of the first steps at the full rate, up to the first that is not finite.
fn first_losses(network: &mut dyn Engine, setup: &Setup, stop: &AtomicBool) -> Result<Vec<f64>, TrainError> {
    let examples = setup.train.len();
    let batch = setup.finetune.batch_size.clamp(1, examples);
    let steps = STEPS.min(examples / batch);
    let (source, held) = source(network, setup)?;
    network.init_optimizer(&setup.finetune.optimizer);
    let order = order(examples, setup.seed, 1);
    let mut losses = Vec::with_capacity(steps);
    Loader::new()?.each(source, 1, &order[..steps * batch], batch, |examples| {
        if stop.load(Ordering::Relaxed) {
            return Err(TrainError::Stopped);
        }
        if losses.last().is_none_or(|loss: &f64| loss.is_finite()) {
            let draw = Draw { seed: setup.seed, step: losses.len() as u64 };
            step(network, setup, examples, held.as_ref(), 1.0, draw)?;
            losses.extend(network.take_steps(true)?.iter().map(|step| step.loss));
        }
        Ok(())
    })?;
    Ok(losses)
}

/// Whether the losses stay what they were, or fall. A few of them say nothing.
fn is_steady(losses: &[f64]) -> bool {
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    if losses.iter().any(|loss| !loss.is_finite()) {
        return false;
    }
    losses.len() < 2 * COMPARED || mean(&losses[losses.len() - COMPARED..]) <= GROWTH * mean(&losses[..COMPARED])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_that_grow_or_end_are_not_steady() {
        let falling: Vec<f64> = (0..40).map(|step| 2.0 / f64::from(step + 1)).collect();
        let noisy: Vec<f64> = (0..40).map(|step| 1.0 + 0.1 * f64::from(step % 2)).collect();
        let growing: Vec<f64> = (0..40).map(|step| 1.0 + 0.01 * f64::from(step)).collect();
        assert!(is_steady(&falling) && is_steady(&noisy) && is_steady(&growing[..10]));
        assert!(!is_steady(&growing) && !is_steady(&[1.0, f64::NAN]));
    }
}
