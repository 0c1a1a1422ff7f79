//! What is measured on unlabelled inputs.

use crate::cost::calibration;
use crate::cost::systems::{self, Fit};
use crate::model::graph::Graph;
use crate::plan::network::Network;
use crate::plan::request::JobRequest;
use crate::settings::{Compensate, Importance, OutputTargets};

/// What is measured on unlabelled inputs: refits, and rankings by activations.
#[derive(Debug)]
pub(super) struct Calibration {
    /// For the refits.
    pub(super) examples: u64,
    /// Bytes of activations that are kept.
    pub(super) held: u64,
    /// The members' part of them.
    pub(super) held_of_members: u64,
    /// Bytes of a batch on its way through all networks.
    pub(super) batch: u64,
    /// The same for the rankings.
    pub(super) ranked_examples: u64,
    pub(super) ranked_held: u64,
    pub(super) ranked_batch: u64,
    /// Layers, each of which runs what is not kept once more.
    pub(super) passes: u64,
    /// Refits of layers; none without compensation.
    pub(super) fits: Vec<Fit>,
    /// Rankings of groups; none where weights alone rank.
    pub(super) rankings: Vec<Fit>,
    /// Rankings whose networks are refitted side by side.
    pub(super) tries: u64,
    /// Features and classes of an output layer that may be refitted to probabilities; 0 where it is not.
    pub(super) output_layer: u64,
}

impl Calibration {
    /// What the job measures on `available` examples; `None` where it does not.
    pub(super) fn of(job: &JobRequest, network: &Network, available: u64, based: u64) -> Option<Self> {
        let refits = network.compensate == Compensate::Calibration;
        let tries = if network.importance == Importance::Auto { 2 + based } else { 1 };
        let ranks = network.importance.needs_data() || tries > 1;
        if !refits && !ranks {
            return None;
        }
        let members: Vec<&Graph> = network.detected.graphs.iter().collect();
        let graphs: Vec<&Graph> = members.iter().copied().chain([&network.fusion.fused]).collect();
        let positions = job.method.calibration.positions as u64;
        let mut rankings = if ranks { systems::rankings(&network.detected.graphs, positions) } else { Vec::new() };
        let mut fits = if refits {
            systems::refits(
                &network.fusion.fused,
                &network.detected.graphs,
                job.method.calibration.convolutions,
                positions,
            )
        } else {
            Vec::new()
        };
        let most = |fits: &[Fit]| fits.iter().map(|fit| fit.features as usize).max().unwrap_or(0);
        let drawn = |wanted: usize, graphs: &[&Graph]| {
            let examples = job.method.calibration.samples.unwrap_or_else(|| calibration::examples(wanted, graphs));
            (examples as u64).min(available)
        };
        let examples = drawn(calibration::PER_UNKNOWN * most(&fits), &graphs);
        let ranked_examples = drawn(calibration::to_rank(most(&rankings)), &members);
        for fit in &mut fits {
            fit.rows *= examples;
        }
        for ranking in &mut rankings {
            ranking.rows *= ranked_examples;
        }
        let per_example = |graphs: &[&Graph]| graphs.iter().map(|graph| calibration::held_per_example(graph)).sum();
        let held = |examples: u64, bytes: usize| (examples * bytes as u64).min(calibration::HELD_BYTES as u64);
        let tried: Vec<&Graph> = members.iter().copied().chain((0..tries).map(|_| &network.fusion.fused)).collect();
        let (of_members, of_all): (usize, usize) = (per_example(&members), per_example(&tried));
        let probabilities = refits && job.method.calibration.output_layer == OutputTargets::Probabilities;
        let output_layer = fits.last().filter(|_| probabilities).map_or(0, |fit| fit.features + fit.targets);
        Some(Self {
            examples,
            held: held(examples, of_all),
            held_of_members: held(examples, of_members),
            batch: calibration::batch_bytes(examples as usize, &members, &tried[members.len()..]) as u64,
            ranked_examples,
            ranked_held: held(ranked_examples, of_members),
            ranked_batch: calibration::batch_bytes(ranked_examples as usize, &members, &[]) as u64,
            passes: fits.len().max(rankings.len()) as u64,
            fits,
            rankings,
            tries,
            output_layer,
        })
    }
}
