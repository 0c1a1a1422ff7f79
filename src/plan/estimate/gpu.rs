//! The memory of a GPU that a job takes at its peak.

use super::Work;
use crate::cost::evaluation::BATCH;
use crate::settings::Precision;

/// Room for the workspaces of products and convolutions.
const WORKSPACE: u64 = 64 << 20;

/// Bytes of a weight.
const WEIGHT: u64 = 4;

impl Work {
    /// Bytes of a GPU's memory at the peak, if the job is computed on one: of a training, or of a network that is measured.
    pub(in crate::plan) fn gpu_memory(&self, precision: Precision) -> u64 {
        if !self.has_data() {
            return 0;
        }
        let bf16 = precision == Precision::Bf16;
        let activation = if bf16 { 2 } else { 4 };
        // Factors that are rounded lie beside the weights.
        let copies = |copies: u64, weights: u64| copies * weights + if bf16 { weights / 2 } else { 0 };
        let examples = (BATCH as u64).min(self.train.max(1));
        let outputs = |batch: u64| batch * (2 * self.example + 3 * self.classes) * WEIGHT;
        let measuring = copies(1, self.largest) + 3 * examples * self.widest * activation + outputs(examples);
        let training = self.training.as_ref().map_or(0, |training| {
            let weights = self.merged.map_or(self.fused.bytes, |(_, merged)| merged.parameters * WEIGHT);
            let weights = if self.controls[0] > 0 { weights.max(self.control.bytes) } else { weights };
            let batch = training.batch.min(self.train.max(1));
            let values = batch * (self.activations + 2 * self.widest) * activation;
            let taught = training.distils && training.augments;
            let teachers =
                if taught { self.members.parameters * WEIGHT + 3 * batch * self.stacked * activation } else { 0 };
            copies(2 + training.buffers, weights) + values + teachers + outputs(batch)
        });
        WORKSPACE + measuring.max(training)
    }
}
