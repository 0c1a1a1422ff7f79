//! The memory that a job takes at its peak.

use super::{Training, Work};
use crate::cost::calibration::{BATCH_ELEMENTS, OUTPUT_LAYER_ELEMENTS};
use crate::cost::evaluation::BATCH;
use crate::cost::systems::Fit;

/// Memory for blocks of rows on their way from the members to the fused file, for threads, and for everything small.
const BUFFERS: u64 = 48 << 20;

/// Bytes of an element while networks run.
const FLOAT: u64 = 4;

/// Bytes of an element of moments and systems.
const DOUBLE: u64 = 8;

/// Bytes for each example, which is itself in a mapped file: its label, its place in its part, and that in the order of an
/// epoch.
const PER_EXAMPLE: u64 = 4 + 8 + 8;

/// Something that takes memory.
type Part = (u64, String);

impl Work {
    /// Bytes of anonymous memory at the peak, and of what: what stays all the time, and the phase that takes most.
    pub(in crate::plan) fn memory(&self) -> (u64, String) {
        let mut parts = vec![(BUFFERS, "buffers".to_owned())];
        if self.has_data() {
            parts.push((self.examples * PER_EXAMPLE + self.labels, "labels and orders of the examples".to_owned()));
        }
        if self.copied > 0 {
            parts.push((
                self.copied,
                "tensors of the members that lie in their files in another order, or packed".to_owned(),
            ));
        }
        if self.aligns {
            parts.push((self.members.parameters * FLOAT, "the members' weights in one order of units".to_owned()));
        }
        let phases = [
            self.verifying(),
            self.ranking(),
            self.compensating(),
            self.interpolating(),
            self.training(),
            self.measuring(),
            self.training_controls(),
        ];
        let total = |parts: &[Part]| parts.iter().map(|(bytes, _)| bytes).sum::<u64>();
        let (name, mut most) = phases.into_iter().max_by_key(|(_, parts)| total(parts)).unwrap_or_default();
        most.sort_by_key(|part| std::cmp::Reverse(part.0));
        let shown = |parts: &[Part]| {
            let shown: Vec<String> =
                parts.iter().map(|(bytes, of)| format!("{:.1} MB {of}", *bytes as f64 / 1e6)).collect();
            shown.join(" + ")
        };
        let bytes = total(&parts) + total(&most);
        let examples = format!(" ({:.1} MB of examples in the scratch folder)", self.data_bytes as f64 / 1e6);
        let on_disk = if self.has_data() { examples } else { String::new() };
        let basis = format!(
            "anonymous memory, beside the mapped files{on_disk}: {}, and at most, in {name}: {}",
            shown(&parts),
            shown(&most)
        );
        (bytes, basis)
    }

    fn verifying(&self) -> (&'static str, Vec<Part>) {
        let bytes = 3 * self.verified_examples() * self.stacked * FLOAT;
        ("`verify`", vec![(bytes, "activations of all members".to_owned())])
    }

    fn ranking(&self) -> (&'static str, Vec<Part>) {
        let mut parts = Vec::new();
        if let Some(calibration) = self.calibration.as_ref().filter(|calibration| !calibration.rankings.is_empty()) {
            let moments: u64 = calibration.rankings.iter().map(Fit::moments).sum();
            let largest = calibration.rankings.iter().map(Fit::moments).max().unwrap_or(0);
            parts.push((DOUBLE * (2 * moments + largest), "moments of all groups".to_owned()));
            parts.push((calibration.ranked_held, "activations of calibration examples".to_owned()));
            parts.push((calibration.ranked_batch, "a batch of them".to_owned()));
        }
        ("`score`", parts)
    }

    fn compensating(&self) -> (&'static str, Vec<Part>) {
        let mut parts = Vec::new();
        if let Some(calibration) = self.calibration.as_ref().filter(|calibration| !calibration.fits.is_empty()) {
            let tries = calibration.tries;
            let of = if tries == 1 { "the fused weights, twice" } else { "the fused weights, twice for each ranking" };
            parts.push((2 * tries * self.fused.bytes, of.to_owned()));
            let system = calibration.fits.iter().map(Fit::moments).max().unwrap_or(0);
            // Moments of all rankings, of what is fitted and held out, and the solution of one.
            let system = (2 * (tries - 1) * DOUBLE + 6 * DOUBLE + FLOAT) * system;
            parts.push((system, "the largest system".to_owned()));
            parts.push((calibration.held, "activations of calibration examples".to_owned()));
            parts.push((calibration.batch, "a batch of them".to_owned()));
            if calibration.output_layer > 0 {
                let read =
                    (calibration.examples * tries * calibration.output_layer).min(tries * OUTPUT_LAYER_ELEMENTS as u64);
                // The members' last activations are gone when it is complete.
                let read = (read * FLOAT).saturating_sub(calibration.held_of_members);
                if read > 0 {
                    parts.push((read, "what the output layer reads".to_owned()));
                }
            }
        }
        if let Some(data_free) = &self.data_free {
            let moments = data_free.layers.windows(2).map(|pair| {
                let [(before, outputs), (after, rows)] = [pair[0], pair[1]];
                // Moments behind the layer before, halves and whole of their way through this one, and its system.
                FLOAT * (2 * before * before + 2 * before * after + 2 * after * after + 2 * rows * before)
                    + DOUBLE * 2 * outputs * (outputs + rows)
            });
            parts.push((moments.max().unwrap_or(0), "moments of all units of two layers".to_owned()));
            parts.push((self.fused.bytes, "the fused weights".to_owned()));
        }
        ("`compensate`", parts)
    }

    fn interpolating(&self) -> (&'static str, Vec<Part>) {
        let mut parts = Vec::new();
        if let Some(interpolation) = &self.interpolation {
            parts.push((2 * self.fused.parameters * FLOAT, "the fused weights, twice".to_owned()));
            parts.push((DOUBLE * interpolation.elements(), "the largest level's system and products".to_owned()));
            parts.push((interpolation.held, "activations of calibration examples".to_owned()));
            parts.push((4 * BATCH_ELEMENTS as u64 * FLOAT, "a batch of them".to_owned()));
        }
        ("the fit of levels", parts)
    }

    fn training(&self) -> (&'static str, Vec<Part>) {
        let Some(training) = &self.training else { return ("`finetune`", Vec::new()) };
        let (which, bytes) = match self.merged {
            Some((_, concatenated)) => ("concatenated", concatenated.parameters * FLOAT),
            None => ("fused", self.fused.bytes),
        };
        ("`finetune`", self.trained(training, which, bytes, training.distils))
    }

    /// The controls are trained one after another while networks are measured.
    fn training_controls(&self) -> (&'static str, Vec<Part>) {
        let [controls, learners] = self.controls;
        let Some(training) = self.training.as_ref().filter(|_| controls > 0) else {
            return ("`evaluate`", Vec::new());
        };
        let mut parts = self.trained(training, "best member's", self.control.bytes, learners > 0);
        parts.push((self.fused.bytes, "the trained weights".to_owned()));
        ("`evaluate`", parts)
    }

    /// What the training of a network of so many bytes takes.
    fn trained(&self, training: &Training, which: &str, bytes: u64, distils: bool) -> Vec<Part> {
        let copies = 4 + 2 * training.buffers;
        let of = format!(
            "{copies} times the {which} weights (values, gradients, the optimizer's, the best, the checkpoint's)"
        );
        let mut parts = vec![(copies * bytes, of)];
        let batch = training.batch.min(self.train.max(1));
        let values = batch * (self.activations + 2 * self.widest) * FLOAT;
        parts.push((values, format!("activations and gradients of a batch of {batch}")));
        parts.push((2 * batch * self.example * FLOAT, "two batches of examples".to_owned()));
        if distils && training.augments {
            let bytes = (self.members.parameters + 3 * batch * self.stacked) * FLOAT;
            parts.push((bytes, "the members, which teach every batch".to_owned()));
        } else if distils {
            parts.push((self.train * self.classes * FLOAT, "the teacher's logits".to_owned()));
        }
        parts
    }

    fn measuring(&self) -> (&'static str, Vec<Part>) {
        if !self.has_data() {
            return ("`evaluate`", Vec::new());
        }
        let mut parts = vec![(self.largest, "one network at a time".to_owned())];
        let examples = (BATCH as u64).min(self.train.max(1));
        parts.push((3 * examples * self.widest * FLOAT, format!("activations of a batch of {examples}")));
        parts.push((2 * self.measured.max(self.train) * self.classes * FLOAT, "logits".to_owned()));
        if self.training.is_some() {
            parts.push((self.fused.bytes, "the trained weights".to_owned()));
        }
        ("`evaluate`", parts)
    }
}
