//! Examples that can be read in any order.

use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::labels::Labels;
use super::statistics::Statistics;
use super::store::{Pixels, Stored};
use crate::domain::dataset::DatasetFacts;

/// A dataset, decoded.
#[derive(Debug)]
pub struct Dataset {
    /// What [`super::inspect`] says of it.
    pub facts: DatasetFacts,
    /// The examples to train on, and to validate on a part of them.
    pub train: Split,
    /// The examples to validate on, where the dataset brings some.
    pub validation: Option<Split>,
    /// The examples to test on, where the dataset brings some.
    pub test: Option<Split>,
}

/// One split of a dataset: inputs with their labels.
#[derive(Debug)]
pub struct Split {
    pub(super) example_shape: Vec<usize>,
    pub(super) pixels: Stored,
    pub(super) labels: Arc<Labels>,
    pub(super) classes: usize,
}

impl Dataset {
    /// Gives the classes another order, which may name more than these: everything says of it what
    /// [`DatasetFacts::relabelled`] says.
    ///
    /// # Errors
    /// The first class without a place there, in words.
    pub fn relabel(&mut self, order: &[String]) -> Result<(), String> {
        let places = self.facts.places_in(order)?;
        self.facts = self.facts.relabelled(order)?;
        for split in [Some(&mut self.train), self.validation.as_mut(), self.test.as_mut()].into_iter().flatten() {
            if let Labels::Classes(labels) = Arc::make_mut(&mut split.labels) {
                for label in labels {
                    *label = places[*label as usize] as u32;
                }
            }
            split.classes = order.len();
        }
        Ok(())
    }
}

impl Split {
    /// Number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: every split that was read has examples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Shape of one example: `[D]` or `[C, H, W]`.
    #[must_use]
    pub fn example_shape(&self) -> &[usize] {
        &self.example_shape
    }

    /// Elements of one example.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.example_shape.iter().product()
    }

    /// Number of classes of the whole dataset; labels are below it. 0 where examples have no class.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The inputs as they are stored.
    #[must_use]
    pub fn pixels(&self) -> Pixels<'_> {
        self.pixels.pixels()
    }

    /// What is said of each example.
    #[must_use]
    pub fn labels(&self) -> &Arc<Labels> {
        &self.labels
    }

    /// Mean and standard deviation of each channel over the examples `indices`, each below [`Self::len`]; bytes divided by 255.
    #[must_use]
    pub fn statistics(&self, indices: &[usize]) -> (Vec<f64>, Vec<f64>) {
        let mut statistics = Statistics::new(&self.example_shape);
        for index in indices {
            let example = index * self.elements()..(index + 1) * self.elements();
            match self.pixels() {
                Pixels::U8(bytes) => statistics.add_bytes(&bytes[example]),
                Pixels::F32(floats) => statistics.add_floats(&floats[example]),
            }
        }
        statistics.finish()
    }

    /// Holds out a random `fraction` (in [0, 1), rounded to whole examples; at least one example is left to train on).
    /// Gives the indices to train on and those to validate on, both ascending. The same `seed` gives the same indices in
    /// every version and on every machine.
    #[must_use]
    pub fn validation_split(&self, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let count = self.len();
        let held_out = ((count as f64 * fraction).round() as usize).min(count.saturating_sub(1));
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let mut indices: Vec<usize> = (0..count).collect();
        for place in 0..held_out {
            indices.swap(place, place + below(&mut generator, count - place));
        }
        let mut train = indices.split_off(held_out);
        train.sort_unstable();
        indices.sort_unstable();
        (train, indices)
    }
}

/// A number below `bound`, from 64 random bits by multiplication (Lemire 2019), spelled out so that no update of a library
/// changes a split.
fn below(generator: &mut impl Rng, bound: usize) -> usize {
    ((u128::from(generator.next_u64()) * bound as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(count: usize) -> Split {
        let pixels = Stored::of(Pixels::U8(&vec![0; count]));
        Split { example_shape: vec![1], pixels, labels: Arc::new(Labels::Classes(vec![0; count])), classes: 1 }
    }

    #[test]
    fn a_validation_split_parts_the_examples() {
        let split = split(1000);
        let (train, validation) = split.validation_split(0.1, 7);
        assert_eq!((train.len(), validation.len()), (900, 100));
        let mut all = [train.clone(), validation.clone()].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
        assert!(train.is_sorted() && validation.is_sorted());
        assert_eq!(split.validation_split(0.1, 7).1, validation);
        assert_ne!(split.validation_split(0.1, 8).1, validation);
        let mean = validation.iter().sum::<usize>() / 100;
        assert!((400..600).contains(&mean), "{mean}");
    }

    #[test]
    fn a_validation_split_stays_the_same_for_good() {
        assert_eq!(split(20).validation_split(0.25, 0).1, [0, 4, 9, 14, 18]);
    }

    #[test]
    fn something_is_left_to_train_on() {
        assert_eq!(split(3).validation_split(0.99, 0).0.len(), 1);
        assert_eq!(split(3).validation_split(0.0, 0).0.len(), 3);
        assert_eq!(split(1).validation_split(0.9, 0).0, [0]);
    }
}
