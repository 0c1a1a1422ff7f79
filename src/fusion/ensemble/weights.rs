//! How much each member should count: weights fitted to labels.

use rayon::prelude::*;

use crate::fusion::minimise::minimise;
use crate::kernels::loss;

/// Rounds of fitting; each is cheap, and the objective is convex.
const ROUNDS: usize = 300;

/// The weights (0 or above, of sum 1) by which the weighted mean of the members' logits (examples x classes each) has the
/// least mean cross-entropy with the labels. Convex in the weights; minimised by exponentiated gradients (Kivinen and
/// Warmuth 1997) from equal weights, with a step that shrinks whenever it would not help.
#[must_use]
pub fn fit(members: &[Vec<f32>], labels: &[u32], classes: usize) -> Vec<f64> {
    let count = members.len();
    let mut weights = vec![1.0 / count.max(1) as f64; count];
    let (mut loss, mut gradient) = slope(members, labels, classes, &weights);
    let mut step = 1.0;
    for _ in 0..ROUNDS {
        let next = moved(&weights, &gradient, step);
        let (next_loss, next_gradient) = slope(members, labels, classes, &next);
        if next_loss < loss {
            (weights, loss, gradient) = (next, next_loss, next_gradient);
            step *= 1.5;
        } else {
            step *= 0.5;
        }
    }
    weights
}

/// How strongly factors of classes are drawn to equal ones: half of it times their squared distance is added to the loss.
const RIDGE: f64 = 1e-2;
/// Steps of the fit of factors of classes.
const STEPS: usize = 60;

/// A factor for each member (outer) and class (inner), by which the sum of the members' logits (examples x classes each) has
/// the least mean cross-entropy with the labels plus a ridge towards equal factors. Convex; a few thousand labels are needed,
/// fewer are learned by heart.
#[must_use]
pub fn fit_by_class(members: &[&[f32]], labels: &[u32], classes: usize) -> Vec<Vec<f64>> {
    let equal = 1.0 / members.len().max(1) as f64;
    let start = vec![equal; members.len() * classes];
    let loss = |factors: &[f64], gradient: &mut [f64]| {
        let fit = slope_by_class(members, labels, classes, factors, gradient);
        let pull = factors.iter().zip(gradient).map(|(factor, slope)| {
            *slope += RIDGE * (factor - equal);
            (factor - equal).powi(2)
        });
        Some(fit + 0.5 * RIDGE * pull.sum::<f64>())
    };
    let fitted = minimise(start, STEPS, loss).map(|minimum| minimum.at).unwrap_or_default();
    fitted.chunks(classes.max(1)).map(<[f64]>::to_vec).collect()
}

/// Mean cross-entropy of the sum of logits by factors (members x classes), and its gradient by these.
fn slope_by_class(members: &[&[f32]], labels: &[u32], classes: usize, factors: &[f64], gradient: &mut [f64]) -> f64 {
    let block = |(index, labels): (usize, &[u32])| {
        let mut loss = 0.0;
        let mut slopes = vec![0.0; factors.len()];
        let mut logits = vec![0.0_f64; classes];
        for (offset, label) in labels.iter().enumerate() {
            let first = (index * BLOCK + offset) * classes;
            logits.fill(0.0);
            for (member, factors) in members.iter().zip(factors.chunks_exact(classes)) {
                let own = &member[first..first + classes];
                logits.iter_mut().zip(own).zip(factors).for_each(|((sum, z), w)| *sum += w * f64::from(*z));
            }
            loss += loss::label_loss(&logits, *label);
            loss::probabilities(&logits, |class, p| {
                let off = p - if class == *label as usize { 1.0 } else { 0.0 };
                for (member, slopes) in members.iter().zip(slopes.chunks_exact_mut(classes)) {
                    slopes[class] += off * f64::from(member[first + class]);
                }
            });
        }
        (loss, slopes)
    };
    let blocks: Vec<(f64, Vec<f64>)> = labels.par_chunks(BLOCK).enumerate().map(block).collect();
    let scale = 1.0 / labels.len().max(1) as f64;
    gradient.fill(0.0);
    let mut loss = 0.0;
    for (of_block, slopes) in blocks {
        loss += scale * of_block;
        gradient.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += scale * slope);
    }
    loss
}

/// Weights a step against the gradient, in the geometry of the simplex.
fn moved(weights: &[f64], gradient: &[f64], step: f64) -> Vec<f64> {
    let least = gradient.iter().copied().fold(f64::INFINITY, f64::min);
    let moved: Vec<f64> = weights.iter().zip(gradient).map(|(w, g)| w * (-step * (g - least)).exp()).collect();
    let total: f64 = moved.iter().sum();
    moved.into_iter().map(|weight| weight / total).collect()
}

/// Examples whose sums are formed at once, so that they do not depend on the number of threads.
const BLOCK: usize = 512;

/// Mean cross-entropy of the weighted mean, and its gradient by the weights.
fn slope(members: &[Vec<f32>], labels: &[u32], classes: usize, weights: &[f64]) -> (f64, Vec<f64>) {
    let block = |(index, labels): (usize, &[u32])| {
        let mut sums = vec![0.0; members.len() + 1];
        let mut logits = vec![0.0_f64; classes];
        for (offset, label) in labels.iter().enumerate() {
            let first = (index * BLOCK + offset) * classes;
            let own = |member: &Vec<f32>, class: usize| f64::from(member[first + class]);
            for (class, logit) in logits.iter_mut().enumerate() {
                *logit = members.iter().zip(weights).map(|(member, weight)| weight * own(member, class)).sum();
            }
            let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits.iter().map(|logit| (logit - most).exp()).sum();
            let label = *label as usize;
            sums[0] += most + total.ln() - logits[label];
            for (member, sum) in members.iter().zip(&mut sums[1..]) {
                let mean: f64 =
                    (0..classes).map(|class| (logits[class] - most).exp() / total * own(member, class)).sum();
                *sum += mean - own(member, label);
            }
        }
        sums
    };
    let blocks: Vec<Vec<f64>> = labels.par_chunks(BLOCK).enumerate().map(block).collect();
    let mut sums = vec![0.0; members.len() + 1];
    for block in blocks {
        sums.iter_mut().zip(block).for_each(|(sum, part)| *sum += part / labels.len() as f64);
    }
    let gradient = sums.split_off(1);
    (sums[0], gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits that favour the right class by `strength`, and another one half of the time.
    fn logits(labels: &[u32], strength: f32, salt: u32) -> Vec<f32> {
        let row = |(index, &label): (usize, &u32)| {
            let wrong = (label + 1 + (index as u32 * 7 + salt) % 2) % 3;
            let logit = |class: u32| {
                let noise = if class == wrong && (index as u32 + salt).is_multiple_of(2) { 1.0 } else { 0.0 };
                noise + if class == label { strength } else { 0.0 }
            };
            [logit(0), logit(1), logit(2)]
        };
        labels.iter().enumerate().flat_map(row).collect()
    }

    #[test]
    fn who_knows_more_counts_more_and_nothing_better_is_near() {
        let labels: Vec<u32> = (0..900).map(|index| index % 3).collect();
        let members = vec![logits(&labels, 3.0, 0), logits(&labels, 0.5, 1), logits(&labels, -1.0, 0)];
        let weights = fit(&members, &labels, 3);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(weights[0] > weights[1] && weights[2] < 0.01, "{weights:?}");
        let loss = |weights: &[f64]| slope(&members, &labels, 3, weights).0;
        let best = loss(&weights);
        for (from, to) in [(0, 1), (1, 0), (0, 2), (1, 2)] {
            let mut other = weights.clone();
            let moved = (0.01_f64).min(other[from]);
            other[from] -= moved;
            other[to] += moved;
            assert!(best <= loss(&other) + 1e-6, "{other:?}");
        }
    }

    #[test]
    fn each_class_trusts_who_knows_it() {
        let labels: Vec<u32> = (0..3000).map(|index| index % 3).collect();
        // The first member knows class 0 and 1, the second class 2.
        let knows = |sees: fn(u32) -> bool| -> Vec<f32> {
            let logit = |label: u32, class: u32| if class == label && sees(class) { 2.0 } else { 0.0 };
            labels.iter().flat_map(|label| [0, 1, 2].map(|class| logit(*label, class))).collect()
        };
        let (a, b) = (knows(|class| class < 2), knows(|class| class == 2));
        let factors = fit_by_class(&[&a, &b], &labels, 3);
        assert!(factors[0][0] > 0.6 && factors[0][1] > 0.6 && factors[1][2] > 0.6, "{factors:?}");
        let unknown = [factors[0][2], factors[1][0], factors[1][1]];
        assert!(unknown.iter().all(|factor| (factor - 0.5).abs() < 1e-6), "no logit, no reason to move: {unknown:?}");
        let flat: Vec<f64> = factors.concat();
        let loss = |factors: &[f64]| slope_by_class(&[&a, &b], &labels, 3, factors, &mut [0.0; 6]);
        let mut slopes = [0.0; 6];
        slope_by_class(&[&a, &b], &labels, 3, &flat, &mut slopes);
        for (at, slope) in slopes.iter().enumerate() {
            let moved = |by: f64| {
                loss(&flat.iter().enumerate().map(|(i, x)| x + if i == at { by } else { 0.0 }).collect::<Vec<_>>())
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - expected).abs() < 1e-7, "{at}: {slope} {expected}");
        }
    }

    #[test]
    fn equal_members_count_alike() {
        let labels: Vec<u32> = (0..90).map(|index| index % 3).collect();
        let member = logits(&labels, 1.0, 0);
        let weights = fit(&[member.clone(), member], &labels, 3);
        assert!(weights.iter().all(|weight| (weight - 0.5).abs() < 1e-9), "{weights:?}");
    }
}
