//! Sizes of axes, some of them in examples of a batch.

use std::fmt;

/// A whole number, or that many times the number of examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AxisSize {
    pub(super) factor: i64,
    /// Whether it is a multiple of the number of examples, which is open.
    pub(super) batch: bool,
}

impl AxisSize {
    pub(super) const ONE: Self = Self::of(1);
    /// The number of examples.
    pub(super) const BATCH: Self = Self { factor: 1, batch: true };

    pub(super) const fn of(factor: i64) -> Self {
        Self { factor, batch: false }
    }

    /// The number, where it is known.
    pub(super) fn known(self) -> Option<i64> {
        (!self.batch).then_some(self.factor)
    }

    /// The number as a size, where it is known and one.
    pub(super) fn usize(self) -> Option<usize> {
        usize::try_from(self.known()?).ok()
    }

    pub(super) fn times(self, other: Self) -> Option<Self> {
        let factor = self.factor.checked_mul(other.factor)?;
        (!(self.batch && other.batch)).then_some(Self { factor, batch: self.batch || other.batch })
    }

    /// The quotient, where it has no rest.
    pub(super) fn over(self, other: Self) -> Option<Self> {
        let exact = self.factor.checked_rem(other.factor)? == 0 && (self.batch || !other.batch);
        exact.then_some(Self { factor: self.factor / other.factor, batch: self.batch && !other.batch })
    }

    pub(super) fn product(sizes: impl IntoIterator<Item = Self>) -> Option<Self> {
        sizes.into_iter().try_fold(Self::ONE, Self::times)
    }
}

impl fmt::Display for AxisSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.batch, self.factor) {
            (false, factor) => write!(f, "{factor}"),
            (true, 1) => write!(f, "N"),
            (true, factor) => write!(f, "{factor}N"),
        }
    }
}

/// Sizes in words.
pub(super) fn shown(sizes: &[AxisSize]) -> String {
    let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
    format!("[{}]", sizes.join(", "))
}
