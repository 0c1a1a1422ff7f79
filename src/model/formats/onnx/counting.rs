//! Constants whose elements are their own places: indices that are counted through, as many as a batch may have.

use super::constant::{Buffer, Constant, row_major};
use super::size::AxisSize;

impl<'a> Constant<'a> {
    /// The indices from 0 to before `size`.
    pub(super) fn counting(name: &'a str, size: AxisSize) -> Self {
        Self { name, dims: vec![size], strides: vec![1], offset: 0, buffer: Buffer::Counting }
    }

    /// Whole numbers as indices that are counted through, where each axis has a step of its own.
    pub(super) fn as_counting(&self) -> Option<Self> {
        if self.buffer == Buffer::Counting {
            return Some(self.clone());
        }
        let own = self.integers().ok()?;
        let plain = row_major(&self.dims)?;
        let offset = usize::try_from(*own.first()?).ok()?;
        let step = |(dim, place): (&AxisSize, &usize)| {
            if *dim == AxisSize::ONE { Some(0) } else { usize::try_from(own.get(*place)?.checked_sub(own[0])?).ok() }
        };
        let strides = self.dims.iter().zip(&plain).map(step).collect::<Option<Vec<_>>>()?;
        let counting = Self { strides, offset, buffer: Buffer::Counting, ..self.clone() };
        let same = counting.places().ok()?.iter().zip(&own).all(|(place, own)| i64::try_from(*place) == Ok(*own));
        same.then_some(counting)
    }

    /// The same indices times a number.
    pub(super) fn counting_times(&self, factor: i64) -> Option<Self> {
        let factor = usize::try_from(factor).ok()?;
        let strides = self.strides.iter().map(|stride| stride.checked_mul(factor)).collect::<Option<Vec<_>>>()?;
        Some(Self { strides, offset: self.offset.checked_mul(factor)?, ..self.clone() })
    }

    /// The sums of two constants of indices.
    pub(super) fn counting_plus(&self, other: &Self, shape: &[AxisSize]) -> Option<Self> {
        let (a, b) = (self.expand(shape).ok()?, other.expand(shape).ok()?);
        let strides = a.strides.iter().zip(&b.strides).map(|(a, b)| a.checked_add(*b)).collect::<Option<Vec<_>>>()?;
        Some(Self { strides, offset: a.offset.checked_add(b.offset)?, ..a })
    }

    /// Whether it counts through all indices of a list in their order.
    pub(super) fn is_enumeration(&self) -> bool {
        let mut inner = AxisSize::ONE;
        for (dim, stride) in self.dims.iter().zip(&self.strides).rev().filter(|(dim, _)| **dim != AxisSize::ONE) {
            if inner.usize() != Some(*stride) {
                return false;
            }
            inner = inner.times(*dim).unwrap_or(AxisSize::BATCH);
        }
        self.buffer == Buffer::Counting && self.offset == 0
    }
}
