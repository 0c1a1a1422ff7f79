//! How much each member should count: weights fitted to labels.

use rayon::prelude::*;

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
    fn equal_members_count_alike() {
        let labels: Vec<u32> = (0..90).map(|index| index % 3).collect();
        let member = logits(&labels, 1.0, 0);
        let weights = fit(&[member.clone(), member], &labels, 3);
        assert!(weights.iter().all(|weight| (weight - 0.5).abs() < 1e-9), "{weights:?}");
    }
}
