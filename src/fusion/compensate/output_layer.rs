//! The output layer, refitted to the probabilities of the ensemble rather than to its logits: least squares finds the logits of a
//! linear concatenation, but no mean of probabilities, and it spends itself on logits that decide nothing.
//!
//! Minimised is the mean over the calibration inputs of `CE(P, softmax(W a + b))` plus `RIDGE / 2 |W - W₀|²`, with the ensemble's
//! probabilities P, the fused network's features a and the least-squares solution W₀, from which it starts; convex, by L-BFGS. A ridge
//! towards W₀ and not towards 0: what least squares has found exactly, as for a member fused with itself, stays as it is, and
//! so does what adds the same to all logits and no probability shows.

use std::num::NonZeroUsize;

use rayon::prelude::*;

use super::system::Refit;
use crate::fusion::minimise::minimise;
use crate::fusion::{Consensus, FusionError};
use crate::kernels::{Matrix, loss, matmul};
use crate::model::refit::OutputLayerFit;

use crate::cost::calibration::OUTPUT_LAYER_ELEMENTS;

/// Half of it times the squared distance from the least-squares solution is added to the mean cross-entropy.
const RIDGE: f64 = 1e-4;
/// Steps of the minimisation.
const STEPS: usize = 30;
/// Examples whose logits are formed at once.
const BLOCK: usize = 512;
/// Sums of gradients that are formed beside each other, whatever the number of threads, and their elements.
const SUMS: usize = 16;
const SUM_ELEMENTS: usize = 1 << 25;

/// Features and targets of the output layer.
#[derive(Debug)]
pub(super) struct OutputLayer<'a> {
    consensus: &'a Consensus,
    /// Features of an example.
    width: usize,
    biased: bool,
    /// For each candidate, examples x width.
    features: Vec<Vec<f32>>,
    /// The ensemble's probabilities, examples x classes.
    targets: Vec<f32>,
    most: usize,
}

impl<'a> OutputLayer<'a> {
    pub(super) fn new(consensus: &'a Consensus, candidates: usize, width: usize, biased: bool) -> Self {
        let most = (OUTPUT_LAYER_ELEMENTS / (width + consensus.classes).max(1)).max(1);
        Self { consensus, width, biased, features: vec![Vec::new(); candidates], targets: Vec::new(), most }
    }

    /// Whether more examples are taken.
    pub(super) fn has_room(&self) -> bool {
        self.targets.len() / self.consensus.classes.max(1) < self.most
    }

    /// Takes what a candidate's output layer reads of the next examples.
    pub(super) fn take_features(&mut self, candidate: usize, features: &[f32]) {
        self.features[candidate].extend_from_slice(features);
    }

    /// Takes the logits of the members, in their order, for the next examples.
    pub(super) fn take_targets<'m>(
        &mut self,
        members: impl Iterator<Item = Result<&'m [f32], FusionError>>,
    ) -> Result<(), FusionError> {
        let mut pooled = Vec::new();
        for (index, logits) in members.enumerate() {
            self.consensus.add(&mut pooled, index, logits?, 1.0);
        }
        self.consensus.finish(&mut pooled, 1.0);
        for row in pooled.chunks_exact(self.consensus.classes) {
            let first = self.targets.len();
            self.targets.resize(first + row.len(), 0.0);
            loss::probabilities(row, |class, p| self.targets[first + class] = p as f32);
        }
        Ok(())
    }

    /// The best layer for a candidate, from `start` on, and how well it does; `None` to stop where `goes_on` says so.
    pub(super) fn fit(
        &self,
        candidate: usize,
        start: &Refit,
        mut goes_on: impl FnMut() -> bool,
    ) -> Option<(Refit, OutputLayerFit)> {
        let weights = start.weight.len();
        let mut at: Vec<f64> = start.weight.iter().map(|weight| f64::from(*weight)).collect();
        if self.biased {
            at.extend(&start.shift);
        }
        let features = &self.features[candidate];
        let mut first = None;
        let start_at = at[..weights].to_vec();
        let minimum = minimise(at, STEPS, |layer, gradient| {
            let value = self.slope(features, &start_at, layer, gradient);
            first.get_or_insert(value);
            goes_on().then_some(value)
        })?;
        let (weight, bias) = minimum.at.split_at(weights);
        let refit = Refit {
            weight: weight.iter().map(|weight| *weight as f32).collect(),
            shift: if self.biased { bias.to_vec() } else { start.shift.clone() },
        };
        let fit = OutputLayerFit {
            examples: features.len() / self.width.max(1),
            steps: minimum.steps,
            loss_before: first.unwrap_or(minimum.value),
            loss_after: minimum.value,
        };
        Some((refit, fit))
    }

    /// The objective at `layer`, its weights (classes x width) and then its biases, and the gradient there; `from` are the
    /// weights that the ridge draws to.
    fn slope(&self, features: &[f32], from: &[f64], layer: &[f64], gradient: &mut [f64]) -> f64 {
        let (classes, width) = (self.consensus.classes, self.width);
        let (weights, bias) = layer.split_at(classes * width);
        let narrow: Vec<f32> = weights.iter().map(|weight| *weight as f32).collect();
        let examples = features.len() / width.max(1);
        let sums = (SUM_ELEMENTS / layer.len().max(1)).clamp(1, SUMS);
        let per_sum = examples.div_ceil(sums).next_multiple_of(BLOCK).max(BLOCK);
        let parts = features.par_chunks(per_sum * width.max(1)).zip(self.targets.par_chunks(per_sum * classes.max(1)));
        let parts: Vec<(f64, Vec<f64>)> = parts
            .map(|(features, targets)| {
                let mut part = (0.0, vec![0.0; layer.len()]);
                let blocks = features.chunks(BLOCK * width.max(1)).zip(targets.chunks(BLOCK * classes.max(1)));
                blocks.for_each(|(features, targets)| self.add_block(features, targets, &narrow, bias, &mut part));
                part
            })
            .collect();
        let scale = 1.0 / examples.max(1) as f64;
        gradient.iter_mut().zip(weights).zip(from).for_each(|((slope, weight), from)| *slope = RIDGE * (weight - from));
        gradient[weights.len()..].fill(0.0);
        let mut value =
            0.5 * RIDGE * weights.iter().zip(from).map(|(weight, from)| (weight - from).powi(2)).sum::<f64>();
        for (part, slopes) in parts {
            value += scale * part;
            gradient.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += scale * slope);
        }
        value
    }

    /// Adds the loss and the gradient of a few examples.
    fn add_block(&self, features: &[f32], targets: &[f32], weights: &[f32], bias: &[f64], sum: &mut (f64, Vec<f64>)) {
        let (classes, width, one) = (self.consensus.classes, self.width, NonZeroUsize::MIN);
        let rows = targets.len() / classes.max(1);
        let x = Matrix::new(features, rows, width);
        let mut logits = vec![0.0_f32; rows * classes];
        matmul(one, x, Matrix::new(weights, classes, width).transposed(), &mut logits, false);
        let biases = sum.1.len() - bias.len();
        for (row, targets) in logits.chunks_exact_mut(classes).zip(targets.chunks_exact(classes)) {
            row.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += *bias as f32);
            let likely = row.to_vec();
            loss::probabilities(&likely, |class, p| {
                let target = f64::from(targets[class]);
                if target > 0.0 {
                    sum.0 -= target * p.max(f64::MIN_POSITIVE).ln();
                }
                let off = p - target;
                row[class] = off as f32;
                if !bias.is_empty() {
                    sum.1[biases + class] += off;
                }
            });
        }
        let mut slopes = vec![0.0_f32; classes * width];
        matmul(one, Matrix::new(&logits, rows, classes).transposed(), x, &mut slopes, false);
        sum.1.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += f64::from(slope));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fusion::{Mixture, Shares};
    use crate::kernels::finite_difference::sample;

    fn consensus() -> Consensus {
        Consensus { mixture: Mixture::Probabilities, shares: Shares::of_members(vec![0.5, 0.5]), classes: 3 }
    }

    /// An output layer over 700 examples of 5 features, and the logits of two members.
    fn output_layer(consensus: &Consensus, biased: bool) -> OutputLayer<'_> {
        let narrow = |count: usize, seed: u64| sample(count, seed).iter().map(|x| *x as f32).collect::<Vec<f32>>();
        let mut output_layer = OutputLayer::new(consensus, 1, 5, biased);
        output_layer.take_features(0, &narrow(700 * 5, 1));
        let members = [narrow(700 * 3, 2), narrow(700 * 3, 3)];
        output_layer.take_targets(members.iter().map(|logits| Ok(&logits[..]))).expect("logits");
        output_layer
    }

    #[test]
    fn the_gradient_equals_finite_differences() {
        let consensus = consensus();
        for biased in [true, false] {
            let output_layer = output_layer(&consensus, biased);
            let layer = sample(if biased { 18 } else { 15 }, 4);
            let mut gradient = vec![9.0; layer.len()];
            let from = sample(15, 5);
            output_layer.slope(&output_layer.features[0], &from, &layer, &mut gradient);
            for (at, slope) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let layer: Vec<f64> =
                        layer.iter().enumerate().map(|(i, x)| x + if i == at { by } else { 0.0 }).collect();
                    output_layer.slope(&output_layer.features[0], &from, &layer, &mut vec![0.0; layer.len()])
                };
                let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((slope - expected).abs() < 1e-4, "{at}: {slope} {expected}");
            }
        }
    }

    #[test]
    fn a_fit_goes_down_and_stops_on_demand() {
        let consensus = consensus();
        let output_layer = output_layer(&consensus, true);
        let start = Refit { weight: vec![0.5; 15], shift: vec![0.0; 3] };
        let (refit, fit) = output_layer.fit(0, &start, || true).expect("a fit");
        assert!(fit.loss_after < fit.loss_before && fit.examples == 700 && fit.steps > 0, "{fit:?}");
        let at: Vec<f64> = refit.weight.iter().map(|w| f64::from(*w)).chain(refit.shift.iter().copied()).collect();
        let mut gradient = vec![0.0; 18];
        let from: Vec<f64> = start.weight.iter().map(|weight| f64::from(*weight)).collect();
        let value = output_layer.slope(&output_layer.features[0], &from, &at, &mut gradient);
        assert!((value - fit.loss_after).abs() < 1e-6);
        assert!(gradient.iter().all(|slope| slope.abs() < 1e-3), "{gradient:?}");
        assert!(output_layer.fit(0, &start, || false).is_none());
    }
}
