//! What there is of the splits that networks are measured on.

use crate::fusion::Consensus;

/// Something of the validation and of the test split, as far as there are such splits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Splits<T> {
    pub(super) validation: Option<T>,
    pub(super) test: Option<T>,
}

impl<T> Splits<T> {
    pub(super) fn as_ref(&self) -> Splits<&T> {
        Splits { validation: self.validation.as_ref(), test: self.test.as_ref() }
    }

    /// The same for both splits.
    ///
    /// # Errors
    /// The first one's.
    pub(super) fn try_map<U, E>(self, mut map: impl FnMut(T) -> Result<U, E>) -> Result<Splits<U>, E> {
        let Self { validation, test } = self;
        Ok(Splits { validation: validation.map(&mut map).transpose()?, test: test.map(map).transpose()? })
    }

    /// Pairs, where both have one.
    pub(super) fn zip<U>(self, other: Splits<U>) -> Splits<(T, U)> {
        Splits { validation: self.validation.zip(other.validation), test: self.test.zip(other.test) }
    }

    /// The test split's, or the validation split's where there is no other.
    pub(super) fn judged(self) -> Option<T> {
        self.test.or(self.validation)
    }
}

/// Logits (examples x classes) on both splits.
pub(super) type Logits = Splits<Vec<f32>>;

impl Logits {
    /// Of nothing yet.
    pub(super) const NONE: Self = Self { validation: None, test: None };

    /// Number of logits.
    pub(super) fn len(&self) -> usize {
        let of_split = |logits: &Option<Vec<f32>>| logits.as_ref().map_or(0, Vec::len);
        of_split(&self.validation) + of_split(&self.test)
    }

    /// Adds what a member's logits contribute to the ensemble's.
    pub(super) fn add(&mut self, consensus: &Consensus, member: usize, logits: &Self) {
        let splits = [(&mut self.validation, &logits.validation), (&mut self.test, &logits.test)];
        for (sum, logits) in splits {
            if let Some(logits) = logits {
                consensus.add(sum.get_or_insert_default(), member, logits, 1.0);
            }
        }
    }

    /// Makes the ensemble's logits of the sum.
    pub(super) fn finish(&mut self, consensus: &Consensus) {
        for sum in [&mut self.validation, &mut self.test].into_iter().flatten() {
            consensus.finish(sum, 1.0);
        }
    }
}
