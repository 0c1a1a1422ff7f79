//! Runs networks on the validation and the test split.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::load::{Data, Subset};
use super::phases::Halt;
use super::splits::{Logits, Splits};
use crate::domain::score::Score;
use crate::exec::{self, Engine};
use crate::model::graph::Graph;
use crate::process::protocol::Task;
use crate::report::{Latency, Timing};
use crate::settings::ComputeOptions;
use crate::tensors::Weights;
use crate::train::{self, TrainError};

pub(super) use crate::cost::evaluation::BATCH;

/// Runs per latency.
const RUNS: usize = 30;
/// Examples that are timed together, and in how many runs.
const MANY: usize = 64;
const FEW_RUNS: usize = 10;

/// A job's data, what it computes with and its wish to stop.
#[derive(Clone, Copy)]
pub(super) struct Bench<'a> {
    data: &'a Data,
    options: ComputeOptions,
    stop: &'a AtomicBool,
}

/// Logits of one network on both splits, and how long one example takes.
pub(super) struct Measured {
    pub(super) logits: Logits,
    pub(super) latency: Latency,
}

impl<'a> Bench<'a> {
    pub(super) fn new(data: &'a Data, task: &Task, stop: &'a AtomicBool) -> Self {
        Self { data, options: task.compute_options(), stop }
    }

    pub(super) fn data(&self) -> &'a Data {
        self.data
    }

    /// The validation and the test split.
    pub(super) fn splits(&self) -> Splits<&'a Subset> {
        self.data.measured()
    }

    /// A network ready to run.
    pub(super) fn network(&self, graph: &Graph, weights: &dyn Weights) -> Result<Box<dyn Engine>, Halt> {
        self.compiled(graph, weights, BATCH)
    }

    /// The same for batches of up to `batch` examples.
    pub(super) fn compiled(&self, graph: &Graph, weights: &dyn Weights, batch: usize) -> Result<Box<dyn Engine>, Halt> {
        let mut network = exec::compile(&self.options, graph, batch)?;
        network.load(weights).map_err(TrainError::from)?;
        Ok(network)
    }

    /// The logits of a network on `part`.
    pub(super) fn logits_on(&self, part: &Subset, graph: &Graph, weights: &dyn Weights) -> Result<Vec<f32>, Halt> {
        Ok(train::logits(&mut *self.network(graph, weights)?, part, self.stop)?)
    }

    /// The logits of a network on both splits.
    fn logits(&self, network: &mut dyn Engine) -> Result<Logits, Halt> {
        Ok(self.splits().try_map(|split| train::logits(network, split, self.stop))?)
    }

    /// Runs a network on both splits, and times it.
    pub(super) fn measure(&self, graph: &Graph, weights: &dyn Weights) -> Result<Measured, Halt> {
        let mut network = self.network(graph, weights)?;
        let logits = self.logits(&mut *network)?;
        let one = self.data.train.first(1);
        let many: Vec<f32> = one.iter().copied().cycle().take(MANY * one.len()).collect();
        let latency = Latency {
            batch_1: timing(&mut *network, &one, 1, RUNS)?,
            batch_64: timing(&mut *network, &many, MANY, FEW_RUNS)?,
        };
        Ok(Measured { logits, latency })
    }

    /// How well it does on the validation split, where there is one.
    pub(super) fn validation_score(&self, graph: &Graph, weights: &dyn Weights) -> Result<Option<Score>, Halt> {
        let Some(split) = &self.data.validation else { return Ok(None) };
        let mut network = self.network(graph, weights)?;
        Ok(Some(train::evaluate(&mut *network, split, self.stop)?))
    }

    /// How well logits do on both splits.
    pub(super) fn scores(&self, logits: &Logits) -> Result<Splits<Score>, Halt> {
        let pairs = logits.as_ref().zip(self.splits());
        Ok(pairs.try_map(|(logits, split)| train::score(logits, split))?)
    }
}

/// How long one of the `count` examples `images` takes.
fn timing(network: &mut dyn Engine, images: &[f32], count: usize, runs: usize) -> Result<Timing, TrainError> {
    let times = train::latency(network, images, runs)?;
    let each = |time: Duration| time.as_secs_f64() * 1e3 / count as f64;
    Ok(Timing { median_ms: each(times.median), p95_ms: each(times.p95) })
}
