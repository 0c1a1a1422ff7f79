//! Runs networks on the validation and the test split.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::load::{Data, Part};
use super::phases::Halt;
use crate::domain::progress::Score;
use crate::exec::{self, Engine};
use crate::model::graph::Graph;
use crate::model::precision::Precision;
use crate::plan::Plan;
use crate::plan::resolve::Planned;
use crate::process::protocol::Task;
use crate::report::{Latency, Timing};
use crate::settings::Device;
use crate::tensors::Weights;
use crate::train::{self, TrainError};

/// Examples per batch of an evaluation.
pub(super) const BATCH: usize = 256;

/// Runs per latency.
const RUNS: usize = 30;
/// Examples that are timed together, and in how many runs.
const MANY: usize = 64;
const FEW_RUNS: usize = 10;

/// A job's data, its threads and its wish to stop.
pub(super) struct Bench<'a> {
    data: &'a Data,
    planned: &'a Planned,
    threads: usize,
    device: Device,
    stop: &'a AtomicBool,
}

/// Logits on the validation and the test split, as far as there are such splits.
pub(super) type Logits = [Option<Vec<f32>>; 2];

/// Logits of one network on both splits, and how long one example takes.
pub(super) struct Measured {
    pub(super) logits: Logits,
    pub(super) latency: Latency,
}

impl<'a> Bench<'a> {
    pub(super) fn new(data: &'a Data, planned: &'a Planned, task: &Task, stop: &'a AtomicBool) -> Self {
        Self { data, planned, threads: task.threads, device: task.device, stop }
    }

    pub(super) fn plan(&self) -> &'a Plan {
        &self.planned.plan
    }

    /// Element types of the fused network's tensors.
    pub(super) fn precision(&self) -> &'a Precision {
        &self.planned.network.precision
    }

    pub(super) fn data(&self) -> &'a Data {
        self.data
    }

    /// The validation and the test split.
    pub(super) fn splits(&self) -> [Option<&'a Part>; 2] {
        self.data.measured()
    }

    /// A network ready to run.
    pub(super) fn network(&self, graph: &Graph, weights: &dyn Weights) -> Result<Box<dyn Engine>, Halt> {
        self.compiled(graph, weights, BATCH)
    }

    /// The same for batches of up to `batch` examples.
    pub(super) fn compiled(&self, graph: &Graph, weights: &dyn Weights, batch: usize) -> Result<Box<dyn Engine>, Halt> {
        let mut network = exec::compile(self.device, graph, batch, self.threads)?;
        network.load(weights).map_err(TrainError::from)?;
        Ok(network)
    }

    /// Runs a network on both splits, and times it.
    pub(super) fn measure(&self, graph: &Graph, weights: &dyn Weights) -> Result<Measured, Halt> {
        let mut network = self.network(graph, weights)?;
        let mut logits: Logits = [None, None];
        for (logits, split) in logits.iter_mut().zip(self.splits()) {
            *logits = split.map(|split| train::logits(&mut *network, split, self.stop)).transpose()?;
        }
        let one = self.data.train.first(1);
        let many: Vec<f32> = one.iter().copied().cycle().take(MANY * one.len()).collect();
        let latency = Latency {
            batch_1: timing(&mut *network, &one, 1, RUNS)?,
            batch_64: timing(&mut *network, &many, MANY, FEW_RUNS)?,
        };
        Ok(Measured { logits, latency })
    }

    /// Accuracy and loss on the validation split, where there is one.
    pub(super) fn validation_score(&self, graph: &Graph, weights: &dyn Weights) -> Result<Option<Score>, Halt> {
        let Some(split) = &self.data.validation else { return Ok(None) };
        let mut network = self.network(graph, weights)?;
        Ok(Some(train::evaluate(&mut *network, split, self.stop)?))
    }

    /// Accuracy and loss of logits on both splits.
    pub(super) fn scores(&self, logits: &Logits) -> Result<[Option<Score>; 2], Halt> {
        let mut scores = [None, None];
        for ((score, logits), split) in scores.iter_mut().zip(logits).zip(self.splits()) {
            if let (Some(logits), Some(split)) = (logits, split) {
                *score = Some(train::score(logits, split)?);
            }
        }
        Ok(scores)
    }
}

/// How long one of the `count` examples `images` takes.
fn timing(network: &mut dyn Engine, images: &[f32], count: usize, runs: usize) -> Result<Timing, TrainError> {
    let times = train::latency(network, images, runs)?;
    let each = |time: Duration| time.as_secs_f64() * 1e3 / count as f64;
    Ok(Timing { median_ms: each(times.median), p95_ms: each(times.p95) })
}

/// `sum += share * logits`, from zeros when the sum is empty.
pub(super) fn add(sum: &mut Vec<f32>, logits: &[f32], share: f32) {
    sum.resize(logits.len(), 0.0);
    sum.iter_mut().zip(logits).for_each(|(sum, logit)| *sum += share * logit);
}
