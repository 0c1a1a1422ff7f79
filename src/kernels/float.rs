//! The two number types that kernels compute with.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use crate::kernels::exponential;
use crate::kernels::tile::Tile;

/// f32 for work, f64 for finite differences.
pub trait Float:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + Sum
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;

    /// The nearest value to `value`.
    fn of(value: f64) -> Self;

    /// The value, exactly.
    fn f64(self) -> f64;

    /// The exponential function.
    #[must_use]
    fn exp(self) -> Self;

    /// `exp(x) - 1`, precise near 0 too.
    #[must_use]
    fn exp_m1(self) -> Self;

    /// `ln(1 + x)`, precise near 0 too.
    #[must_use]
    fn ln_1p(self) -> Self;

    /// The hyperbolic tangent.
    #[must_use]
    fn tanh(self) -> Self;

    /// The normal distribution's function.
    #[must_use]
    fn normal(self) -> Self;

    /// The inner loop for products of `columns` columns.
    #[doc(hidden)]
    fn tile(columns: usize) -> Tile<Self>;
}

impl Float for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    #[inline]
    fn of(value: f64) -> Self {
        value as Self
    }

    #[inline]
    fn f64(self) -> f64 {
        f64::from(self)
    }

    #[inline]
    fn exp(self) -> Self {
        exponential::exp(self)
    }

    fn exp_m1(self) -> Self {
        self.exp_m1()
    }

    fn ln_1p(self) -> Self {
        self.ln_1p()
    }

    fn tanh(self) -> Self {
        self.tanh()
    }

    #[inline]
    fn normal(self) -> Self {
        exponential::normal(self)
    }

    fn tile(columns: usize) -> Tile<Self> {
        Tile::best(columns)
    }
}

impl Float for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    #[inline]
    fn of(value: f64) -> Self {
        value
    }

    #[inline]
    fn f64(self) -> f64 {
        self
    }

    fn exp(self) -> Self {
        self.exp()
    }

    fn exp_m1(self) -> Self {
        self.exp_m1()
    }

    fn ln_1p(self) -> Self {
        self.ln_1p()
    }

    fn tanh(self) -> Self {
        self.tanh()
    }

    fn normal(self) -> Self {
        0.5 * libm::erfc(-self * std::f64::consts::FRAC_1_SQRT_2)
    }

    fn tile(_columns: usize) -> Tile<Self> {
        Tile::PORTABLE
    }
}
