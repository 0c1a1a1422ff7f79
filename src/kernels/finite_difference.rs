//! Central differences in f64, for the tests of gradients.

use std::num::NonZeroUsize;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::kernels::Workspace;

/// Reproducible values in [-1, 1].
pub(crate) fn sample(len: usize, seed: u64) -> Vec<f64> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| generator.random_range(-1.0..1.0)).collect()
}

/// Two threads' worth of scratch memory.
pub(crate) fn workspace() -> Workspace<f64> {
    Workspace::new(NonZeroUsize::new(2).expect("positive"))
}

/// A scalar of `y` whose gradient is `c`.
pub(crate) fn projection(y: &[f64], c: &[f64]) -> f64 {
    y.iter().zip(c).map(|(y, c)| y * c).sum()
}

/// Compares `gradient` with the slopes of `loss` at `at`, coordinate by coordinate.
pub(crate) fn assert_gradient(what: &str, at: &[f64], gradient: &[f64], mut loss: impl FnMut(&[f64]) -> f64) {
    const STEP: f64 = 1e-6;
    let mut point = at.to_vec();
    for i in 0..at.len() {
        point[i] = at[i] + STEP;
        let above = loss(&point);
        point[i] = at[i] - STEP;
        let below = loss(&point);
        point[i] = at[i];
        let slope = (above - below) / (2.0 * STEP);
        let tolerance = 1e-6 * (1.0 + slope.abs());
        assert!((slope - gradient[i]).abs() < tolerance, "{what}[{i}]: slope {slope}, gradient {}", gradient[i]);
    }
}
