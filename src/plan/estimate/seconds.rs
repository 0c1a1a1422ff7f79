//! The time that a job takes.

use super::{Training, Work};
use crate::cost::budgets::{VERIFICATION_EXAMPLES, VERIFICATION_MACS};
use crate::cost::calibration::SOLUTIONS;

/// Multiply-accumulate operations per second that the estimate assumes; two cores of a server do about this.
const MACS_PER_SECOND: f64 = 5e10;

/// The same in double precision, in which systems are solved.
const DOUBLE_MACS_PER_SECOND: f64 = 8e9;

/// Bytes per second at which members are read, ranked and gathered, by assumption.
const BYTES_PER_SECOND: f64 = 2e9;

/// Bytes of examples per second that are read, and of pixels that are decoded from pictures.
const READ_PER_SECOND: f64 = 1e9;
const DECODED_PER_SECOND: f64 = 6e7;

impl Work {
    fn joins(&self) -> u64 {
        self.counts.joins as u64
    }

    /// Examples that the concatenation is verified on.
    pub(super) fn verified_examples(&self) -> u64 {
        (VERIFICATION_MACS / self.members.macs.max(1)).clamp(1, VERIFICATION_EXAMPLES)
    }

    /// Seconds, and for what. A training step is three forward passes; the teacher's logits are computed once, or anew for
    /// images that vary.
    pub(in crate::plan) fn seconds(&self) -> (f64, String) {
        let moved = self.joins() * (3 * self.members.bytes + 2 * self.fused.bytes);
        let verifying = 2 * self.verified_examples() * self.members.macs;
        let epochs = self.training.as_ref().map_or(0, |training| training.epochs);
        let merging = self.merged.map_or(0, |(epochs, costs)| epochs * costs.macs);
        let reestimating = self.training.as_ref().map_or(0, |training| u64::from(training.reestimates) * self.train);
        let [controls, learners] = self.controls;
        let beside = controls * epochs * self.control.macs;
        let training =
            (3 * self.train + self.measured) * (epochs * self.fused.macs + merging) + reestimating * self.fused.macs;
        let training_beside = (3 * self.train + self.validation) * beside;
        let taught = self.training.as_ref().map_or(0, |Training { distils, augments, epochs, .. }| {
            (u64::from(*distils) + learners) * self.train * if *augments { *epochs } else { 1 }
        });
        let tries = self.calibration.as_ref().map_or(0, |calibration| calibration.tries + 1);
        let judged = tries * self.joins() * self.validation;
        let of_members = taught + self.rule_inputs + if self.counts.members > 0 { self.measured } else { 0 };
        let measuring = of_members * self.members.macs
            + (self.counts.candidates as u64 * self.measured + judged) * self.fused.macs
            + self.probing;
        let (running, solving) = self.compensating_macs();
        let at = |amount: u64, speed: f64| amount as f64 / speed;
        let loading = at(self.data_bytes, READ_PER_SECOND) + at(self.decoded, DECODED_PER_SECOND);
        let parts = [
            (loading, "to load the examples".to_owned()),
            (at(self.identifying, MACS_PER_SECOND), "to identify the network".to_owned()),
            (at(moved, BYTES_PER_SECOND), format!("to read, rank and gather at {} GB/s", BYTES_PER_SECOND / 1e9)),
            (at(verifying, MACS_PER_SECOND), "to verify".to_owned()),
            (at(running, MACS_PER_SECOND) + at(solving, DOUBLE_MACS_PER_SECOND), "to calibrate and refit".to_owned()),
            (at(training, MACS_PER_SECOND), "to train".to_owned()),
            (at(training_beside, MACS_PER_SECOND), "to train the controls".to_owned()),
            (at(measuring, MACS_PER_SECOND), "to measure".to_owned()),
        ];
        let total = parts.iter().map(|(seconds, _)| seconds).sum();
        let shown =
            parts.iter().filter(|(seconds, _)| *seconds >= 0.005).map(|(seconds, of)| format!("{seconds:.2} s {of}"));
        let shown: Vec<String> = shown.collect();
        let basis = format!(
            "{}; at {} G multiply-accumulates/s ({} G in double precision), about two cores of a server",
            if shown.is_empty() { "almost nothing".to_owned() } else { shown.join(" + ") },
            MACS_PER_SECOND / 1e9,
            DOUBLE_MACS_PER_SECOND / 1e9
        );
        (total, basis)
    }

    /// Multiply-accumulates of calibration, compensation and levels, in single and in double precision.
    fn compensating_macs(&self) -> (u64, u64) {
        let (mut single, mut double) = (0, 0);
        if let Some(calibration) = &self.calibration {
            let kept = if self.calibration_fits() { 1 } else { calibration.passes.div_ceil(2).max(1) };
            let macs = |fits: &[super::Fit]| fits.iter().map(super::Fit::macs).sum::<u64>();
            let moments = calibration.tries * macs(&calibration.fits) + macs(&calibration.rankings);
            single += self.joins() * (kept * calibration.examples * calibration.macs + moments);
            let solving = |fit: &super::Fit| {
                let square = fit.features * fit.features;
                fit.systems * SOLUTIONS as u64 * (square * fit.features / 3 + square * fit.targets)
            };
            double += self.joins() * calibration.tries * calibration.fits.iter().map(solving).sum::<u64>();
        }
        if let Some(interpolation) = &self.interpolation {
            single += interpolation.single();
            double += interpolation.double();
        }
        if let Some(data_free) = &self.data_free {
            let layers = data_free.layers.windows(2).map(|pair| {
                let [(before, outputs), (after, rows)] = [pair[0], pair[1]];
                // Through the layer, to its system, and the solution; a unit's angle costs about thirty operations.
                after * before * (before + after) / 3
                    + rows * before * before
                    + outputs * outputs * (outputs / 3 + rows)
                    + 30 * before * before
            });
            double += self.joins() * layers.sum::<u64>();
        }
        (single, double)
    }

    /// Whether all activations of calibration are kept between layers.
    fn calibration_fits(&self) -> bool {
        let full = crate::cost::calibration::HELD_BYTES as u64;
        self.calibration.as_ref().is_none_or(|calibration| calibration.held < full)
    }
}
