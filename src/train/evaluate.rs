//! Measuring networks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::domain::score::Score;
use crate::exec::{Engine, EngineError, Inputs};
use crate::kernels::truth::Truth;
use crate::train::{Examples, RunningScore, TrainError};

/// Runs before latency is measured.
const WARM_UP: usize = 3;

/// How well the network does on all `examples`, BatchNorm in evaluation mode.
///
/// # Errors
/// When data and network do not fit, or `stop` is set (read between batches).
pub fn evaluate(network: &mut dyn Engine, examples: &dyn Examples, stop: &AtomicBool) -> Result<Score, TrainError> {
    check(network, examples, "evaluated")?;
    let mut running = RunningScore::default();
    let classes = network.classes();
    each_batch(network, examples, stop, |first, logits| {
        for (i, logits) in logits.chunks_exact(classes).enumerate() {
            running.add(logits, examples.truth(first + i));
        }
    })?;
    Ok(running.score())
}

/// The network's logits (examples x classes), BatchNorm in evaluation mode: a teacher's, or an ensemble member's.
///
/// # Errors
/// As [`evaluate`].
pub fn logits(network: &mut dyn Engine, examples: &dyn Examples, stop: &AtomicBool) -> Result<Vec<f32>, TrainError> {
    let mut all = Vec::with_capacity(examples.len() * network.classes());
    each_batch(network, examples, stop, |_, logits| all.extend_from_slice(logits))?;
    Ok(all)
}

/// How well given logits (examples x outputs) do, an ensemble's mean for example.
///
/// # Errors
/// When a label has no logit, or the logits are not equally many for each example.
pub fn score(logits: &[f32], examples: &dyn Examples) -> Result<Score, TrainError> {
    running_score(logits, examples).map(|running| running.score())
}

/// The same in more detail.
///
/// # Errors
/// As [`score`].
pub fn running_score(logits: &[f32], examples: &dyn Examples) -> Result<RunningScore, TrainError> {
    let count = examples.len();
    if count == 0 || logits.len() < count || !logits.len().is_multiple_of(count) {
        return Err(TrainError::Empty("evaluated"));
    }
    let classes = logits.len() / count;
    check_truths(examples, classes)?;
    let mut running = RunningScore::default();
    logits.chunks_exact(classes).enumerate().for_each(|(i, logits)| running.add(logits, examples.truth(i)));
    Ok(running)
}

/// How long runs took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Half of them took no longer.
    pub median: Duration,
    /// 95 of 100 took no longer.
    pub p95: Duration,
}

/// Time that the network takes for the batch `images`, by `runs` runs (at least 1) after some that do not count.
///
/// # Errors
/// When `images` is no batch of the network's.
pub fn latency(network: &mut dyn Engine, images: &[f32], runs: usize) -> Result<Times, EngineError> {
    let mut times = Vec::with_capacity(runs);
    for run in 0..WARM_UP + runs.max(1) {
        let start = Instant::now();
        network.forward(images.into())?;
        if run >= WARM_UP {
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    Ok(Times { median: times[times.len() / 2], p95: times[(times.len() * 95).div_ceil(100) - 1] })
}

/// Whether all `examples` can go through the network; `split` names them.
pub(super) fn check(network: &dyn Engine, examples: &dyn Examples, split: &'static str) -> Result<(), TrainError> {
    if examples.is_empty() {
        return Err(TrainError::Empty(split));
    }
    check_shape(network, examples)?;
    check_truths(examples, network.classes())
}

fn check_shape(network: &dyn Engine, examples: &dyn Examples) -> Result<(), TrainError> {
    match (network.example_len(), examples.example_len()) {
        (expected, got) if expected == got => Ok(()),
        (expected, got) => Err(TrainError::Shape { expected, got }),
    }
}

fn check_truths(examples: &dyn Examples, outputs: usize) -> Result<(), TrainError> {
    for index in 0..examples.len() {
        match examples.truth(index) {
            Truth::Class(label) if label as usize >= outputs => {
                return Err(TrainError::Label { index, label, classes: outputs });
            }
            Truth::Flags(row) | Truth::Numbers(row) if row.len() != outputs => {
                return Err(TrainError::Outputs { expected: outputs, got: row.len() });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Calls `take` with the position of a batch's first example and the batch's logits.
fn each_batch(
    network: &mut dyn Engine,
    examples: &dyn Examples,
    stop: &AtomicBool,
    mut take: impl FnMut(usize, &[f32]),
) -> Result<(), TrainError> {
    check_shape(network, examples)?;
    let held = match examples.stored() {
        Some(images) => network.hold(&images, false)?,
        None => None,
    };
    let indices: Vec<usize> = (0..examples.len()).collect();
    let len = if held.is_some() { 0 } else { network.example_len() };
    let mut images = vec![0.0; network.max_batch().min(examples.len()) * len];
    for batch in indices.chunks(network.max_batch()) {
        if stop.load(Ordering::Relaxed) {
            return Err(TrainError::Stopped);
        }
        let logits = if let Some(held) = &held {
            let indices: Vec<u32> = batch.iter().map(|index| examples.stored_index(*index)).collect();
            network.forward(Inputs::Held { held, indices: &indices, views: None })?
        } else {
            let images = &mut images[..batch.len() * len];
            network.on_threads(&mut || examples.fill(batch, images));
            network.forward(Inputs::Images(images))?
        };
        take(batch[0], logits);
    }
    Ok(())
}
