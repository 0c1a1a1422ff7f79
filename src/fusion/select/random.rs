//! Units by chance: what every other ranking has to beat.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::fusion::{Ensemble, Scores};
use crate::model::groups::GroupId;

/// A random score for every unit of the group; the same `seed` gives the same scores.
#[must_use]
pub fn random(ensemble: &Ensemble<'_>, group: GroupId, seed: u64) -> Scores {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(group.0 as u64);
    let mut score = || (generator.next_u64() >> 11) as f64;
    ensemble.widths(group).into_iter().map(|width| (0..width).map(|_| score()).collect()).collect()
}
