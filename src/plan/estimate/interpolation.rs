//! What it takes to fit a network level after level.

use crate::cost::systems::Fit;
use crate::cost::{calibration, interpolation};
use crate::plan::network::Network;
use crate::plan::request::JobRequest;
use crate::settings::{MethodName, ReportCandidate};

/// A network that is fitted to means of the members' units: the job's own, or a row of its report.
#[derive(Debug)]
pub(super) struct Interpolation {
    /// How often.
    pub(super) times: u64,
    /// Examples that it is fitted on.
    pub(super) examples: u64,
    /// Bytes of activations that are kept.
    pub(super) held: u64,
    pub(super) fits: Vec<Fit>,
}

impl Interpolation {
    /// What the job fits on `available` examples; `None` where it does not.
    pub(super) fn of(job: &JobRequest, network: &Network, available: u64) -> Option<Self> {
        let is_row = job.evaluate.contains(&ReportCandidate::NeuronInterpolation);
        let times = u64::from(job.method.name == MethodName::NeuronInterpolation) + u64::from(is_row);
        let (fused, members) = (&network.fusion.fused, &network.detected.graphs);
        let settings = &job.method.calibration;
        let mut fits = interpolation::fits(fused, members, settings.positions as u64);
        if times == 0 || fits.is_empty() {
            return None;
        }
        let examples = (settings.samples.unwrap_or(interpolation::SAMPLES) as u64).min(available);
        for fit in &mut fits {
            fit.rows *= examples;
        }
        let graphs = || members.iter().chain([fused]);
        let held: usize = graphs().map(calibration::held_per_example).sum();
        Some(Self { times, examples, held: (examples * held as u64).min(calibration::HELD_BYTES as u64), fits })
    }

    /// Elements of the largest system, and of the products of all units with each other.
    pub(super) fn elements(&self) -> u64 {
        let largest = self.fits.iter().map(|fit| 3 * fit.moments() + fit.targets * fit.targets);
        largest.max().unwrap_or(0)
    }

    /// Examples that all members and the fused network run on.
    pub(super) fn runs(&self) -> u64 {
        // What is not kept between two levels is computed anew for each.
        let runs = if self.held < calibration::HELD_BYTES as u64 { 1 } else { self.fits.len() as u64 };
        self.times * runs * self.examples
    }

    /// Multiply-accumulates of moments, in single precision.
    pub(super) fn moments(&self) -> u64 {
        self.times * self.fits.iter().map(Fit::macs).sum::<u64>()
    }

    /// Multiply-accumulates in double precision.
    pub(super) fn double(&self) -> u64 {
        let solving = |fit: &Fit| {
            let square = fit.features * fit.features;
            square * fit.features / 3 + 2 * square * fit.targets + fit.targets * fit.targets * (fit.features + GROUPING)
        };
        self.times * self.fits.iter().map(solving).sum::<u64>()
    }
}

/// Looks at each product of two units while they are grouped, about: ten starts of some twenty rounds.
const GROUPING: u64 = 200;
