//! Second moments of the units of several networks, and how they pass through matrices, biases and rectifiers.

use std::borrow::Cow;
use std::f64::consts::PI;
use std::num::NonZeroUsize;

use rayon::prelude::*;

use crate::fusion::calibration::moments::Normal;
use crate::kernels::{Matrix, matmul};

/// Second moments and means of one layer's units: those of all members, then the fused network's. Moments are sums of products of thousands of
/// rounded weights: single precision is as good for them.
pub(super) struct Joint {
    pub(super) moments: Vec<f32>,
    pub(super) means: Vec<f64>,
    /// Units of each network.
    pub(super) widths: Vec<usize>,
}

impl Joint {
    /// Index of the fused network's first unit.
    fn fused(&self) -> usize {
        self.means.len() - self.widths.last().copied().unwrap_or(0)
    }

    /// The least-squares system whose features are the fused network's units, for `targets` (rows on all units).
    pub(super) fn normal(&self, targets: &[f32], centred: bool) -> Normal {
        let (n, first) = (self.means.len(), self.fused());
        let (rows, features) = (targets.len() / n.max(1), n - first);
        let mut moments = self.moments.clone();
        if centred {
            for (row, mean) in moments.chunks_exact_mut(n.max(1)).zip(&self.means) {
                row.iter_mut().zip(&self.means).for_each(|(moment, other)| *moment -= (mean * other) as f32);
            }
        }
        let mut products = vec![0.0; targets.len()];
        matmul(threads(), Matrix::new(targets, rows, n), Matrix::new(&moments, n, n), &mut products, false);
        let lines = || products.chunks_exact(n.max(1));
        let dot = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let features_of = |row: &[f32]| row[first..].iter().copied().map(f64::from).collect::<Vec<f64>>();
        Normal {
            features,
            targets: rows,
            xx: moments.chunks_exact(n.max(1)).skip(first).flat_map(features_of).collect(),
            yx: lines().flat_map(features_of).collect(),
            yy: lines().zip(targets.chunks_exact(n.max(1))).map(dot).collect(),
        }
    }

    /// What is missing in the mean of each output when `refitted` takes the place of `targets`.
    pub(super) fn shift(&self, targets: &[f32], refitted: &[f64]) -> Vec<f64> {
        let (n, first) = (self.means.len(), self.fused());
        let own = self.means[first..].iter();
        let missing = |new: &[f64]| new.iter().zip(own.clone()).map(|(w, mean)| w * mean).sum::<f64>();
        let rows = targets.chunks_exact(n.max(1)).zip(refitted.chunks_exact((n - first).max(1)));
        rows.map(|(target, new)| dot(target, &self.means) - missing(new)).collect()
    }
}

/// A row of weights on units with these means.
fn dot(row: &[f32], means: &[f64]) -> f64 {
    row.iter().zip(means).map(|(weight, mean)| f64::from(*weight) * mean).sum()
}

/// Moments and means of `z + b`.
pub(super) fn shifted(mut joint: Joint, by: &[f64]) -> Joint {
    let n = by.len();
    for (i, row) in joint.moments.chunks_exact_mut(n.max(1)).enumerate() {
        for (j, moment) in row.iter_mut().enumerate() {
            *moment += (joint.means[i] * by[j] + by[i] * joint.means[j] + by[i] * by[j]) as f32;
        }
    }
    joint.means.iter_mut().zip(by).for_each(|(mean, by)| *mean += by);
    joint
}

/// `W G Wᵀ` and `W μ` for the block-diagonal W of all networks.
pub(super) fn through_blocks(joint: &Joint, weights: &[Cow<'_, [f32]>], widths: &[usize]) -> (Vec<f32>, Vec<f64>) {
    let (before, after) = (joint.means.len(), widths.iter().sum::<usize>());
    // Half the product, W G, then the other half from its transpose: G is symmetric.
    let half = |moments: &[f32], columns: usize| {
        let mut product = vec![0.0; after * columns];
        let (mut source, mut target) = (0, 0);
        for (weight, (width, out)) in weights.iter().zip(joint.widths.iter().zip(widths)) {
            let rows = Matrix::new(&moments[source * columns..(source + width) * columns], *width, columns);
            let part = &mut product[target * columns..(target + out) * columns];
            matmul(threads(), Matrix::new(weight, *out, *width), rows, part, false);
            source += width;
            target += out;
        }
        product
    };
    let left = half(&joint.moments, before);
    let mut turned = vec![0.0; left.len()];
    for (i, row) in left.chunks_exact(before.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(j, value)| turned[j * after + i] = *value);
    }
    let mut means = Vec::with_capacity(after);
    let mut source = 0;
    for (weight, width) in weights.iter().zip(&joint.widths) {
        let of_network = &joint.means[source..source + width];
        means.extend(weight.chunks_exact((*width).max(1)).map(|row| dot(row, of_network)));
        source += width;
    }
    (half(&turned, after), means)
}

/// The moments of `max(x, 0) + a min(x, 0)` with the slope a: since it is `a x + (1 - a) max(x, 0)`, and `E[u max(v, 0)]` is
/// half of `E[u v]`, they are `a C + (1 - a)² K` with the arc-cosine kernel K of degree 1.
pub(super) fn rectified(joint: Joint, slope: f64) -> Joint {
    let n = joint.means.len();
    let deviations: Vec<f64> = (0..n).map(|i| f64::from(joint.moments[i * n + i]).max(0.0).sqrt()).collect();
    let mut moments = joint.moments;
    moments.par_chunks_exact_mut(n.max(1)).enumerate().for_each(|(i, row)| {
        for (moment, other) in row.iter_mut().zip(&deviations) {
            let scale = deviations[i] * other;
            let product = f64::from(*moment);
            let cosine = if scale > 0.0 { (product / scale).clamp(-1.0, 1.0) } else { 0.0 };
            let sine = (1.0 - cosine * cosine).sqrt();
            let kernel = scale / (2.0 * PI) * (sine + (PI - cosine.acos()) * cosine);
            *moment = (slope * product + (1.0 - slope).powi(2) * kernel) as f32;
        }
    });
    let means = deviations.iter().map(|deviation| (1.0 - slope) * deviation / (2.0 * PI).sqrt()).collect();
    Joint { moments, means, widths: joint.widths }
}

pub(super) fn threads() -> NonZeroUsize {
    NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_kernel_gives_the_moments_of_rectified_gaussians() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut normal = || (0..12).map(|_| rng.random::<f64>() - 0.5).sum::<f64>();
        let (a, b, c) = (1.5, -0.6, 0.8); // u = a g, v = b g + c h
        for slope in [0.0, 0.3] {
            let moments = [a * a, a * b, a * b, b * b + c * c].map(|moment| moment as f32).to_vec();
            let got = rectified(Joint { moments, means: vec![0.0; 2], widths: vec![2] }, slope);
            let (mut mean, mut square, mut cross) = (0.0, 0.0, 0.0);
            let count = 200_000;
            let function = |x: f64| if x < 0.0 { slope * x } else { x };
            for _ in 0..count {
                let (g, h) = (normal(), normal());
                let (u, v) = (function(a * g), function(b * g + c * h));
                (mean, square, cross) = (mean + u, square + u * u, cross + u * v);
            }
            let n = f64::from(count);
            assert!((got.means[0] - mean / n).abs() < 0.01, "{}", got.means[0]);
            assert!((f64::from(got.moments[0]) - square / n).abs() < 0.02, "{}", got.moments[0]);
            assert!((f64::from(got.moments[1]) - cross / n).abs() < 0.01, "{} for {}", got.moments[1], cross / n);
        }
    }
}
