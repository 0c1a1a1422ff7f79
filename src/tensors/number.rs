//! The number types that rows of a fused network are made in.

use std::ops::{AddAssign, Mul};

use crate::model::header::Dtype;
use crate::tensors::convert;

/// f32, or f64 where the members' weights are that.
pub trait Number: Copy + Default + Send + Sync + AddAssign + Mul<Output = Self> + 'static {
    /// The nearest value to `value`.
    fn of(value: f64) -> Self;

    /// The value, exactly.
    fn f64(self) -> f64;

    /// `values` without a copy, where they are of this type.
    fn borrow(values: &[f32]) -> Option<&[Self]>;

    /// Copies `values` to `target`, which is as long.
    fn copy(values: &[f32], target: &mut [Self]);

    /// Converts float elements of a file, as many as `target` holds.
    fn read(bytes: &[u8], dtype: Dtype, target: &mut [Self]);
}

impl Number for f32 {
    #[inline]
    fn of(value: f64) -> Self {
        value as Self
    }

    #[inline]
    fn f64(self) -> f64 {
        f64::from(self)
    }

    #[inline]
    fn borrow(values: &[f32]) -> Option<&[Self]> {
        Some(values)
    }

    #[inline]
    fn copy(values: &[f32], target: &mut [Self]) {
        target.copy_from_slice(values);
    }

    fn read(bytes: &[u8], dtype: Dtype, target: &mut [Self]) {
        convert::into_f32(bytes, dtype, target);
    }
}

impl Number for f64 {
    #[inline]
    fn of(value: f64) -> Self {
        value
    }

    #[inline]
    fn f64(self) -> f64 {
        self
    }

    #[inline]
    fn borrow(_values: &[f32]) -> Option<&[Self]> {
        None
    }

    #[inline]
    fn copy(values: &[f32], target: &mut [Self]) {
        target.iter_mut().zip(values).for_each(|(target, value)| *target = Self::from(*value));
    }

    fn read(bytes: &[u8], dtype: Dtype, target: &mut [Self]) {
        convert::into_f64(bytes, dtype, target);
    }
}
