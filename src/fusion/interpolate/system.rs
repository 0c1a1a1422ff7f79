//! The least-squares system of one level: its rows, and what its solution makes of the level.

use std::num::NonZeroUsize;

use super::grouping::{Groups, UnitProducts};
use crate::cost::interpolation::{self, FitLevel};
use crate::fusion::calibration::moments::{Moments, Normal};
use crate::fusion::calibration::{
    LayerwiseNetwork, RunningBatch, Sampling, channels, channels_and_size, picks, windows,
};
use crate::fusion::{Ensemble, FusionError};
use crate::kernels::{Matrix, Workspace, matmul};
use crate::model::graph::{Graph, NodeId};

/// What the units of one level are fitted to.
pub(super) struct LevelTargets {
    /// For each member, its rows, and where they stand among the targets.
    pub(super) rows: Vec<Vec<(usize, usize)>>,
    pub(super) count: usize,
    /// Whether they are the network's outputs, to which each member has its share.
    pub(super) are_outputs: bool,
}

/// Means of the members' units, fitted: what the fused level computes.
pub(super) struct FittedLevel {
    /// Units x unknowns, the kernel's channels last.
    pub(super) weight: Vec<f64>,
    /// Mean of each unit before its bias.
    pub(super) product: Vec<f64>,
    /// Mean of each unit; 0 where the level has no bias.
    pub(super) mean: Vec<f64>,
    /// Variance of each unit.
    pub(super) variance: Vec<f64>,
}

/// What the rows of one level's system are made of.
pub(super) struct SystemGatherer<'g, 'a> {
    pub(super) graph: &'g Graph,
    /// The members, then the fused network.
    pub(super) networks: &'g [LayerwiseNetwork<'a>],
    pub(super) ensemble: &'g Ensemble<'a>,
    pub(super) sampling: &'g Sampling,
    pub(super) level: FitLevel,
    pub(super) targets: &'g LevelTargets,
}

impl SystemGatherer<'_, '_> {
    /// Adds the rows of one batch, in which the fused network is computed up to the level.
    pub(super) fn gather(
        &self,
        batch: &mut RunningBatch,
        moments: &mut Moments,
        work: &mut Workspace<f32>,
    ) -> Result<(), FusionError> {
        let FitLevel { layer, .. } = self.level;
        let (output, node) = (self.level.output(), self.graph.node(layer));
        let (_, size) = channels_and_size(self.graph, layer);
        let places = self.sampling.positions(size[0] * size[1], layer, batch.index);
        let LevelTargets { rows: pairs, count, are_outputs } = self.targets;
        let x = batch.value(pairs.len(), node.inputs[0])?;
        let mut features = Vec::new();
        match node.op.convolution() {
            Some(conv) => windows(x, &conv.window, size, &places, &(0..x.channels), &mut features),
            None => channels(x, &places, &mut features),
        }
        let rows = features.len() / interpolation::unknowns(self.graph, layer).max(1);
        let mut targets = vec![0.0; rows * count];
        for (member, pairs) in pairs.iter().enumerate() {
            batch.advance(member, &self.networks[member], NodeId(output.0 + 1), work);
            let share = |row: usize| if *are_outputs { self.ensemble.shares().of(member, row) as f32 } else { 1.0 };
            picks(batch.value(member, output)?, &places, pairs, share, *count, &mut targets);
        }
        moments.add(&features, &targets, work);
        Ok(())
    }
}

/// The products of what the fits of all units compute.
pub(super) fn products(weight: &[f64], normal: &Normal, at_y: &[f64]) -> UnitProducts {
    let (units, features) = (normal.targets, normal.features);
    let mut values: Vec<f64> = at_y.iter().flat_map(|a| at_y.iter().map(move |b| a * b)).collect();
    let outputs = Matrix::new(&normal.yx, units, features).transposed();
    matmul(threads(), Matrix::new(weight, units, features), outputs, &mut values, true);
    UnitProducts { units, values }
}

impl FittedLevel {
    /// The means over `groups` of units with this `weight` (units x features).
    pub(super) fn of(weight: &[f64], groups: &Groups, normal: &Normal, at_x: &[f64], at_y: &[f64]) -> Self {
        let features = normal.features;
        let mut fused = vec![0.0; groups.count * features];
        let mut mean = vec![0.0; groups.count];
        let sizes = groups.sizes();
        for ((row, own), group) in weight.chunks_exact(features.max(1)).zip(at_y).zip(&groups.of_unit) {
            let part = 1.0 / sizes[*group] as f64;
            let sums = &mut fused[group * features..(group + 1) * features];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += part * value);
            mean[*group] += part * own;
        }
        let mut spread = vec![0.0; fused.len()];
        let rows = Matrix::new(&fused, groups.count, features);
        matmul(threads(), rows, Matrix::new(&normal.xx, features, features), &mut spread, false);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let lines = || fused.chunks_exact(features.max(1));
        let variance = lines().zip(spread.chunks_exact(features.max(1))).map(|(a, b)| dot(a, b).max(0.0)).collect();
        let product = lines().map(|row| dot(row, at_x)).collect();
        Self { weight: fused, product, mean, variance }
    }
}

fn threads() -> NonZeroUsize {
    NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN)
}
