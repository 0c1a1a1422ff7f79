//! The time that a job takes.

use std::collections::BTreeMap;

use super::{Training, Work};
use crate::cost::STEP;
use crate::cost::budgets::{VERIFICATION_EXAMPLES, VERIFICATION_MACS};
use crate::cost::calibration::SOLUTIONS;
use crate::cost::checks::first_examples;
use crate::cost::evaluation::BATCH;
use crate::cost::systems::Fit;
use crate::domain::progress::Phase;

/// Bytes per second at which members are read, ranked and gathered, by assumption.
const BYTES_PER_SECOND: f64 = 2e9;

/// Bytes of examples per second that are read, and of pixels that are decoded from pictures, by assumption.
const READ_PER_SECOND: f64 = 1e9;
const DECODED_PER_SECOND: f64 = 6e7;

/// What calibration, compensation and levels compute.
#[derive(Default)]
struct Compensating {
    /// Examples that members and fused networks run on.
    running: f64,
    /// Multiply-accumulates of what units are ranked by.
    ranking: u64,
    /// Multiply-accumulates of moments.
    moments: u64,
    /// Multiply-accumulates of solving, in double precision.
    solving: u64,
}

/// The time of a job.
pub(in crate::plan) struct Time {
    /// What takes it.
    pub(in crate::plan) by_phase: BTreeMap<Phase, f64>,
    /// What it adds up, and at which speed.
    pub(in crate::plan) basis: String,
}

impl Time {
    /// Seconds of all phases.
    pub(in crate::plan) fn total(&self) -> f64 {
        self.by_phase.values().sum()
    }
}

impl Work {
    fn joins(&self) -> u64 {
        self.counts.joins as u64
    }

    /// Examples that the concatenation is verified on.
    pub(super) fn verified_examples(&self) -> u64 {
        (VERIFICATION_MACS / self.members.macs.max(1)).clamp(1, VERIFICATION_EXAMPLES)
    }

    /// Seconds, and for what. The teacher's logits are computed once, or anew for
    /// images that vary.
    pub(in crate::plan) fn seconds(&self) -> Time {
        let speed = &self.pace.known.speed;
        let at = |amount: u64, speed: f64| amount as f64 / speed;
        let compensating = self.compensation();
        let loading = at(self.data_bytes, READ_PER_SECOND) + at(self.decoded, DECODED_PER_SECOND);
        let moved = self.joins() * (3 * self.members.bytes + 2 * self.fused.bytes);
        let ranking = at(compensating.ranking, speed.products);
        let fitting =
            compensating.running + at(compensating.moments, speed.products) + at(compensating.solving, speed.solving);
        let parts = [
            (Phase::Load, loading, "to load the examples".to_owned()),
            (Phase::Plan, self.identifying as f64 * self.per_mac(), "to identify the network".to_owned()),
            (
                Phase::Prune,
                at(moved, BYTES_PER_SECOND),
                format!("to read, rank and gather at {} GB/s", BYTES_PER_SECOND / 1e9),
            ),
            (
                Phase::Verify,
                at(2 * self.verified_examples() * self.members.macs, speed.solving),
                "to verify".to_owned(),
            ),
            (Phase::Score, ranking, "to rank on examples".to_owned()),
            (Phase::Compensate, fitting, "to calibrate and refit".to_owned()),
            (Phase::Finetune, self.training_seconds(), "to train".to_owned()),
            (Phase::Evaluate, self.control_seconds(), "to train the controls".to_owned()),
            (Phase::Evaluate, self.measuring_seconds(), "to measure".to_owned()),
        ];
        let mut by_phase = BTreeMap::new();
        for (phase, seconds, _) in parts.iter().filter(|(_, seconds, _)| *seconds > 0.0) {
            *by_phase.entry(*phase).or_default() += seconds;
        }
        let shown = parts
            .iter()
            .filter(|(_, seconds, _)| *seconds >= 0.005)
            .map(|(_, seconds, of)| format!("{seconds:.2} s {of}"));
        let shown: Vec<String> = shown.collect();
        let source = self.pace.known.measured_on.as_ref().map_or_else(
            || "which are assumed: no worker has measured its machine yet".to_owned(),
            |place| format!("as measured on {place}"),
        );
        let basis = format!(
            "{}; at {:.1} G multiply-accumulates/s in matrices, {:.1} in convolutions and {:.1} in double precision, and {:.2} G other \
             elements/s, {source}",
            if shown.is_empty() { "almost nothing".to_owned() } else { shown.join(" + ") },
            speed.products / 1e9,
            speed.convolutions / 1e9,
            speed.solving / 1e9,
            speed.elements / 1e9,
        );
        Time { by_phase, basis }
    }

    /// Seconds of a multiply-accumulate in networks like the members.
    fn per_mac(&self) -> f64 {
        self.pace.members / self.members.macs.max(1) as f64
    }

    /// What one epoch costs beside its operations: that of all steps.
    fn steps(&self, training: &Training) -> f64 {
        self.train.div_ceil(training.batch.max(1)) as f64 * self.pace.known.speed.step_seconds
    }

    fn training_seconds(&self) -> f64 {
        let Some(training) = &self.training else { return 0.0 };
        let epoch =
            |forward: f64, step: f64| self.train as f64 * step + self.measured as f64 * forward + self.steps(training);
        let merging = self.merged.map_or(0.0, |(epochs, costs)| {
            // It has the members' layers, and more between them.
            let forward = self.per_mac() * costs.macs as f64;
            epochs as f64 * epoch(forward, STEP * forward)
        });
        let reestimating = if training.reestimates { self.train as f64 * self.pace.fused } else { 0.0 };
        training.epochs as f64 * epoch(self.pace.fused, self.pace.fused_step) + merging + reestimating
    }

    fn control_seconds(&self) -> f64 {
        let ([controls, _], Some(training)) = (self.controls, &self.training) else { return 0.0 };
        let epoch = self.train as f64 * self.pace.control_step + self.validation as f64 * self.pace.control;
        (controls * training.epochs) as f64 * (epoch + self.steps(training))
    }

    /// Of networks on the splits, of members that teach, and of probes.
    fn measuring_seconds(&self) -> f64 {
        let [_, learners] = self.controls;
        let taught = self.training.as_ref().map_or(0, |Training { distils, augments, epochs, .. }| {
            (u64::from(*distils) + learners) * self.train * if *augments { *epochs } else { 1 }
        });
        let tries = self.calibration.as_ref().map_or(0, |calibration| calibration.tries + 1);
        let judged = tries * self.joins() * self.validation;
        let first = |examples: u64| examples.min(first_examples(self.control.macs) as u64);
        let looked_at = first(self.validation) + first(self.measured - self.validation.min(self.measured));
        let all = if self.counts.members > 0 { self.measured } else { 0 };
        let of_members = taught + self.rule_inputs + looked_at + all;
        let of_fused = self.counts.candidates as u64 * self.measured + judged;
        let batches = (of_members + of_fused).div_ceil(BATCH as u64) as f64;
        of_members as f64 * self.pace.members
            + of_fused as f64 * self.pace.fused
            + self.probing as f64 * self.per_mac()
            + batches * self.pace.known.speed.step_seconds
    }

    fn compensation(&self) -> Compensating {
        let mut work = Compensating::default();
        let all = self.pace.members + self.pace.fused;
        if let Some(calibration) = &self.calibration {
            let kept = if self.calibration_fits() { 1 } else { calibration.passes.div_ceil(2).max(1) };
            let macs = |fits: &[Fit]| fits.iter().map(Fit::macs).sum::<u64>();
            let more = (calibration.tries - 1) as f64 * self.pace.fused;
            if !calibration.fits.is_empty() {
                work.running += (self.joins() * kept * calibration.examples) as f64 * (all + more);
            }
            if !calibration.rankings.is_empty() {
                work.running += (self.joins() * calibration.ranked_examples) as f64 * self.pace.members;
            }
            work.ranking += self.joins() * macs(&calibration.rankings);
            work.moments += self.joins() * calibration.tries * macs(&calibration.fits);
            let solving = |fit: &Fit| {
                let square = fit.features * fit.features;
                fit.systems * SOLUTIONS as u64 * (square * fit.features / 3 + square * fit.targets)
            };
            work.solving += self.joins() * calibration.tries * calibration.fits.iter().map(solving).sum::<u64>();
        }
        if let Some(interpolation) = &self.interpolation {
            work.running += interpolation.runs() as f64 * all;
            work.moments += interpolation.moments();
            work.solving += interpolation.double();
        }
        if let Some(data_free) = &self.data_free {
            let through = |pair: &[(u64, u64)]| {
                let [(before, _), (after, rows)] = [pair[0], pair[1]];
                after * before * (before + after) / 3 + rows * before * before
            };
            // The solution of a layer's system; a unit's angle costs about thirty operations.
            let solved = |pair: &[(u64, u64)]| {
                let [(before, outputs), (_, rows)] = [pair[0], pair[1]];
                outputs * outputs * (outputs / 3 + rows) + 30 * before * before
            };
            work.moments += self.joins() * data_free.layers.windows(2).map(through).sum::<u64>();
            work.solving += self.joins() * data_free.layers.windows(2).map(solved).sum::<u64>();
        }
        work
    }

    /// Whether all activations of calibration are kept between layers.
    fn calibration_fits(&self) -> bool {
        let full = crate::cost::calibration::HELD_BYTES as u64;
        self.calibration.as_ref().is_none_or(|calibration| calibration.held < full)
    }
}
