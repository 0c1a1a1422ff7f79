//! The memory of a GPU that a job takes at its peak.

use super::Work;
use crate::cost::calibration::{self, BATCH_ELEMENTS};
use crate::cost::evaluation::BATCH;
use crate::cost::systems::Fit;
use crate::domain::gpu::CONTEXT_BYTES;
use crate::model::graph::{Graph, Op};
use crate::settings::Precision;

/// Room for the workspaces of products and convolutions.
const WORKSPACE: u64 = 64 << 20;
/// Bytes of a weight, and of a number of the statistics' rows.
const FLOAT: u64 = 4;
/// Bytes of a sum.
const DOUBLE: u64 = 8;
/// Parts of the calibration examples that sums are kept of: to fit on, and to judge by.
const PARTS: u64 = 2;
/// Bytes that the channels of a position are filled up to a multiple of.
const FILLED: u64 = 16;

/// Elements of activations for one example, their channels filled up.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// Of the network that is trained, without those that are not stored.
    activations: u64,
    /// Of the largest activation of any network.
    widest: u64,
    /// The same of all members together.
    stacked: u64,
}

impl Filled {
    /// Of a job whose networks are stored at `precision` on the device.
    pub(super) fn of(members: &[Graph], fused: &Graph, precision: Precision) -> Self {
        let filled = |shape: &[usize]| {
            let channels = shape.first().map_or(1, |channels| *channels as u64);
            channels.next_multiple_of(FILLED / bytes(precision))
                * shape.iter().skip(1).map(|axis| *axis as u64).product::<u64>()
        };
        let widest = |graph: &Graph| graph.iter().map(|(id, _)| filled(graph.shape(id))).max().unwrap_or(0);
        let melts = |op: &Op| matches!(op, Op::Relu | Op::Flatten | Op::Dropout { .. });
        let stored = fused.iter().filter(|(_, node)| !melts(&node.op));
        Self {
            activations: stored.map(|(id, _)| filled(fused.shape(id))).sum(),
            widest: members.iter().chain([fused]).map(widest).max().unwrap_or(0),
            stacked: members.iter().map(widest).sum(),
        }
    }
}

/// Bytes of a stored activation.
fn bytes(precision: Precision) -> u64 {
    if precision == Precision::Bf16 { 2 } else { 4 }
}

impl Work {
    /// Bytes of a GPU's memory at the peak, and of what, if the job is computed on one: what stays all the time, and the phase that
    /// takes most.
    pub(in crate::plan) fn gpu_memory(&self, precision: Precision) -> (u64, String) {
        if !self.has_data() {
            return (0, "nothing is computed on a GPU without data".to_owned());
        }
        let stays = [
            (CONTEXT_BYTES, "the driver's and the libraries', about"),
            (WORKSPACE, "workspace of products and convolutions"),
            (self.images, "images, where there is room"),
        ];
        let phases = [
            (self.measuring_on_gpu(precision), "`evaluate`"),
            (self.training_on_gpu(precision), "`finetune`"),
            (self.calibrating_on_gpu(), "`compensate`"),
        ];
        let (most, phase) = phases.into_iter().max_by_key(|(bytes, _)| *bytes).unwrap_or_default();
        let shown = stays.iter().filter(|(bytes, _)| *bytes > 0);
        let shown: Vec<String> = shown.map(|(bytes, of)| format!("{:.1} MB {of}", *bytes as f64 / 1e6)).collect();
        let total = stays.iter().map(|(bytes, _)| bytes).sum::<u64>() + most;
        (total, format!("{}, and at most, in {phase}: {:.1} MB", shown.join(" + "), most as f64 / 1e6))
    }

    /// Inputs, logits and labels of a batch.
    fn ends(&self, batch: u64) -> u64 {
        batch * (2 * self.example + 3 * self.classes) * FLOAT
    }

    /// A network that is measured.
    fn measuring_on_gpu(&self, precision: Precision) -> u64 {
        let examples = (BATCH as u64).min(self.train.max(1));
        copies(1, self.largest, precision) + 3 * examples * self.filled.widest * bytes(precision) + self.ends(examples)
    }

    /// Weights, gradients, the optimizer's numbers, activations and their gradients, and members that teach.
    fn training_on_gpu(&self, precision: Precision) -> u64 {
        let Some(training) = &self.training else { return 0 };
        let weights = self.merged.map_or(self.fused.bytes, |(_, merged)| merged.parameters * FLOAT);
        let weights = if self.controls[0] > 0 { weights.max(self.control.bytes) } else { weights };
        let batch = training.batch.min(self.train.max(1));
        let values = batch * (self.filled.activations + 2 * self.filled.widest) * bytes(precision);
        let teachers = if training.distils && training.augments {
            self.members.parameters * FLOAT + 3 * batch * self.filled.stacked * bytes(precision)
        } else {
            0
        };
        copies(4, weights, precision) + values + teachers + self.ends(batch)
    }

    /// All networks side by side, a batch of their activations, its rows, and sums: of all groups that are ranked, of one layer that
    /// is refitted.
    fn calibrating_on_gpu(&self) -> u64 {
        let Some(calibration) = &self.calibration else { return 0 };
        let networks = self.members.parameters + calibration.tries * self.fused.parameters;
        let values = 3 * BATCH_ELEMENTS as u64 * (1 + calibration.tries);
        let moments = |fits: &[Fit]| fits.iter().map(Fit::moments).collect::<Vec<_>>();
        let ranked: u64 = moments(&calibration.rankings).into_iter().sum();
        let fitted = calibration.tries * moments(&calibration.fits).into_iter().max().unwrap_or(0);
        let fits = calibration.fits.iter().map(|fit| (fit, calibration.examples));
        let rankings = calibration.rankings.iter().map(|fit| (fit, calibration.ranked_examples));
        let rows = fits.chain(rankings).map(|(fit, examples)| {
            let of_batch = fit.rows.div_ceil(examples.max(1)) * calibration::BATCH as u64;
            of_batch.min(fit.rows) * fit.systems * (fit.features + fit.targets)
        });
        let rows = calibration.tries * rows.max().unwrap_or(0);
        (networks + values + rows) * FLOAT + (PARTS * DOUBLE + FLOAT) * ranked.max(fitted)
    }
}

/// Copies of weights of so many bytes; factors that are rounded lie beside them.
fn copies(copies: u64, weights: u64, precision: Precision) -> u64 {
    copies * weights + if precision == Precision::Bf16 { weights / 2 } else { 0 }
}
