//! Dropout: values become 0 by chance, the others grow to make up for it.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::kernels::{Float, PIECE};

/// What a step of training draws from. The same draw gives the same masks, whatever was drawn before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Draw {
    /// Seed of the training.
    pub seed: u64,
    /// Number of the step, through all epochs.
    pub step: u64,
}

/// A mask over the values of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mask {
    /// Probability of 0, below 1.
    pub p: f64,
    /// Which layer of the network it belongs to: each draws for itself.
    pub layer: usize,
}

impl Mask {
    /// `y = mask x / (1 - p)`, or `y +=`: the forward pass, and the backward pass as well.
    pub fn apply<T: Float>(&self, draw: Draw, x: &[T], y: &mut [T], accumulate: bool) {
        let mut key = [0; 32];
        for (part, value) in key.chunks_exact_mut(8).zip([draw.seed, draw.step, self.layer as u64]) {
            part.copy_from_slice(&value.to_le_bytes());
        }
        let (limit, factor) = ((self.p * 2.0_f64.powi(32)) as u32, T::of(1.0 / (1.0 - self.p)));
        y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).enumerate().for_each(|(piece, (y, x))| {
            let mut generator = ChaCha8Rng::from_seed(key);
            generator.set_stream(piece as u64);
            for (y, x) in y.iter_mut().zip(x) {
                let kept = if generator.next_u32() < limit { T::ZERO } else { *x * factor };
                *y = if accumulate { *y + kept } else { kept };
            }
        });
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are exact")]
mod tests {
    use super::*;

    fn mask(draw: Draw, layer: usize) -> Vec<f32> {
        let mut y = vec![0.0; 40_000];
        Mask { p: 0.3, layer }.apply(draw, &vec![1.0; 40_000], &mut y, false);
        y
    }

    #[test]
    fn a_mask_follows_from_its_draw_alone() {
        let draw = Draw { seed: 7, step: 3 };
        let first = mask(draw, 0);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| mask(draw, 0)), first);
        }
        for other in [mask(Draw { seed: 8, ..draw }, 0), mask(Draw { step: 4, ..draw }, 0), mask(draw, 1)] {
            let same = first.iter().zip(&other).filter(|(a, b)| (**a > 0.0) == (**b > 0.0)).count() as f64 / 4e4;
            assert!((same - 0.58).abs() < 0.02, "{same} alike; of independent masks 0.58 are");
        }
    }

    #[test]
    fn the_mean_stays() {
        let y = mask(Draw::default(), 5);
        assert!(y.iter().all(|y| *y == 0.0 || (y - 1.0 / 0.7).abs() < 1e-6));
        let mean = y.iter().sum::<f32>() / 4e4;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        let mut y = [1.0_f32; 3];
        Mask { p: 0.0, layer: 0 }.apply(Draw::default(), &[1.0, 2.0, 3.0], &mut y, true);
        assert_eq!(y, [2.0, 3.0, 4.0]);
    }
}
