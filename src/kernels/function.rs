//! Functions that are applied to every value by itself, with their slopes.

use std::f64::consts::{FRAC_2_PI, PI};

use rayon::prelude::*;

use crate::kernels::elementwise::positive;
use crate::kernels::{Float, PIECE};

/// Coefficient of the cube in GELU's approximation by the hyperbolic tangent.
const CUBE: f64 = 0.044_715;

/// SELU's factors (Klambauer et al. 2017).
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

/// From here on PyTorch takes `x` itself for `ln(1 + exp(x))`.
const FAR: f64 = 20.0;

/// A function of single values. Where it has a kink, its slope there is PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x` where positive, else this factor times `x`.
    LeakyRelu(f64),
    /// `x Φ(x)`, Φ the normal distribution's function.
    Gelu,
    /// GELU with Φ by the hyperbolic tangent.
    GeluTanh,
    /// `x sigmoid(x)`.
    Silu,
    /// `x relu6(x + 3) / 6`.
    Hardswish,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `relu6(x + 3) / 6`.
    Hardsigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `x` where positive, else this factor times `exp(x) - 1`.
    Elu(f64),
    /// ELU with its own factor, times another one: values keep mean 0 and variance 1 from layer to layer.
    Selu,
    /// `x tanh(softplus(x))`.
    Mish,
    /// `ln(1 + exp(x))`.
    Softplus,
    /// This factor times `x`.
    Scale(f64),
}

impl Function {
    /// `y = f(x)`.
    pub fn apply<T: Float>(self, x: &[T], y: &mut [T]) {
        match self {
            Self::Relu => map(x, y, positive),
            Self::Relu6 => map(x, y, relu6),
            Self::LeakyRelu(slope) => map(x, y, |x| leaky(x, T::of(slope))),
            Self::Gelu => map(x, y, gelu),
            Self::GeluTanh => map(x, y, gelu_tanh),
            Self::Silu => map(x, y, |x| x * sigmoid(x)),
            Self::Hardswish => map(x, y, |x| x * hardsigmoid(x)),
            Self::Sigmoid => map(x, y, sigmoid),
            Self::Hardsigmoid => map(x, y, hardsigmoid),
            Self::Tanh => map(x, y, T::tanh),
            Self::Elu(alpha) => map(x, y, |x| elu(x, T::of(alpha))),
            Self::Selu => map(x, y, |x| T::of(SELU_SCALE) * elu(x, T::of(SELU_ALPHA))),
            Self::Mish => map(x, y, mish),
            Self::Softplus => map(x, y, softplus),
            Self::Scale(factor) => map(x, y, |x| T::of(factor) * x),
        }
    }

    /// `dx = dy f'(x)`, or `dx += dy f'(x)`.
    pub fn backward<T: Float>(self, x: &[T], dy: &[T], dx: &mut [T], accumulate: bool) {
        let chain = Chain { x, dy, accumulate };
        match self {
            Self::Relu => chain.rule(dx, |x| between(x, 0.0, f64::INFINITY, 1.0)),
            Self::Relu6 => chain.rule(dx, |x| between(x, 0.0, 6.0, 1.0)),
            Self::LeakyRelu(slope) => chain.rule(dx, |x| if x > T::ZERO { T::ONE } else { T::of(slope) }),
            Self::Gelu => chain.rule(dx, gelu_slope),
            Self::GeluTanh => chain.rule(dx, gelu_tanh_slope),
            Self::Silu => chain.rule(dx, |x| {
                let s = sigmoid(x);
                s * (T::ONE + x * (T::ONE - s))
            }),
            Self::Hardswish => chain.rule(dx, hardswish_slope),
            Self::Sigmoid => chain.rule(dx, |x| {
                let s = sigmoid(x);
                s * (T::ONE - s)
            }),
            Self::Hardsigmoid => chain.rule(dx, |x| between(x, -3.0, 3.0, 1.0 / 6.0)),
            Self::Tanh => chain.rule(dx, |x| {
                let t = x.tanh();
                T::ONE - t * t
            }),
            Self::Elu(alpha) => chain.rule(dx, |x| elu_slope(x, T::of(alpha))),
            Self::Selu => chain.rule(dx, |x| T::of(SELU_SCALE) * elu_slope(x, T::of(SELU_ALPHA))),
            Self::Mish => chain.rule(dx, mish_slope),
            Self::Softplus => chain.rule(dx, |x| if x > T::of(FAR) { T::ONE } else { sigmoid(x) }),
            Self::Scale(factor) => chain.rule(dx, |_| T::of(factor)),
        }
    }
}

fn map<T: Float>(x: &[T], y: &mut [T], function: impl Fn(T) -> T + Sync) {
    y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(y, x)| {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = function(*x));
    });
}

/// What the chain rule starts from.
struct Chain<'a, T> {
    x: &'a [T],
    dy: &'a [T],
    accumulate: bool,
}

impl<T: Float> Chain<'_, T> {
    fn rule(&self, dx: &mut [T], slope: impl Fn(T) -> T + Sync) {
        let pieces = dx.par_chunks_mut(PIECE).zip(self.x.par_chunks(PIECE)).zip(self.dy.par_chunks(PIECE));
        pieces.for_each(|((dx, x), dy)| {
            for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                let gradient = *dy * slope(*x);
                *dx = if self.accumulate { *dx + gradient } else { gradient };
            }
        });
    }
}

/// `value` where `x` lies between `low` and `high`, 0 elsewhere.
fn between<T: Float>(x: T, low: f64, high: f64, value: f64) -> T {
    if x > T::of(low) && x < T::of(high) { T::of(value) } else { T::ZERO }
}

/// NaN stays, as in [`positive`].
fn relu6<T: Float>(x: T) -> T {
    let six = T::of(6.0);
    if x > six { six } else { positive(x) }
}

fn leaky<T: Float>(x: T, slope: T) -> T {
    if x < T::ZERO { slope * x } else { x }
}

fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

fn hardsigmoid<T: Float>(x: T) -> T {
    relu6(x + T::of(3.0)) / T::of(6.0)
}

fn hardswish_slope<T: Float>(x: T) -> T {
    let three = T::of(3.0);
    if x < -three {
        T::ZERO
    } else if x <= three {
        x / three + T::of(0.5)
    } else {
        T::ONE
    }
}

fn gelu<T: Float>(x: T) -> T {
    x * x.normal()
}

fn gelu_slope<T: Float>(x: T) -> T {
    let density = T::of(1.0 / (2.0 * PI).sqrt()) * (T::of(-0.5) * x * x).exp();
    x.normal() + x * density
}

/// What stands for Φ: `(1 + tanh(u)) / 2 = sigmoid(2 u)`.
fn bent<T: Float>(x: T) -> T {
    sigmoid(T::of(2.0 * FRAC_2_PI.sqrt()) * (x + T::of(CUBE) * x * x * x))
}

fn gelu_tanh<T: Float>(x: T) -> T {
    x * bent(x)
}

fn gelu_tanh_slope<T: Float>(x: T) -> T {
    let s = bent(x);
    let inner = T::of(2.0 * FRAC_2_PI.sqrt()) * (T::ONE + T::of(3.0 * CUBE) * x * x);
    s + x * s * (T::ONE - s) * inner
}

fn elu<T: Float>(x: T, alpha: T) -> T {
    if x > T::ZERO { x } else { alpha * x.exp_m1() }
}

fn elu_slope<T: Float>(x: T, alpha: T) -> T {
    if x > T::ZERO { T::ONE } else { alpha * x.exp() }
}

fn softplus<T: Float>(x: T) -> T {
    if x > T::of(FAR) { x } else { x.exp().ln_1p() }
}

/// `tanh(softplus(x))` is `n / (n + 2)` with `n = e (e + 2)` and `e = exp(x)`; 1 where that would overflow.
fn gate<T: Float>(x: T) -> T {
    if x > T::of(FAR) {
        return T::ONE;
    }
    let (e, two) = (x.exp(), T::of(2.0));
    let n = e * (e + two);
    n / (n + two)
}

fn mish<T: Float>(x: T) -> T {
    x * gate(x)
}

fn mish_slope<T: Float>(x: T) -> T {
    let gate = gate(x);
    gate + x * sigmoid(x) * (T::ONE - gate * gate)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are exact")]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample};

    const ALL: [Function; 14] = [
        Function::Relu,
        Function::Relu6,
        Function::LeakyRelu(0.2),
        Function::Gelu,
        Function::GeluTanh,
        Function::Silu,
        Function::Hardswish,
        Function::Sigmoid,
        Function::Hardsigmoid,
        Function::Tanh,
        Function::Elu(0.7),
        Function::Selu,
        Function::Mish,
        Function::Softplus,
    ];

    /// Values and slopes of some functions, for the test of far and near values.
    const FAR_AND_NEAR: [(Function, [f64; 8], [f64; 8]); 4] = [
        (
            Function::Elu(1.0),
            [-1.0, -1.0, -0.999_999_997_938_846_4, -9.999_950_000_166_666e-6, 20.0, 20.5, 800.0, 1e30],
            [0.0, 0.0, 2.061_153_622_438_558e-9, 0.999_990_000_049_999_8, 1.0, 1.0, 1.0, 1.0],
        ),
        (
            Function::Selu,
            [
                -1.758_099_340_847_376_7,
                -1.758_099_340_847_376_7,
                -1.758_099_337_223_664,
                -1.758_090_550_379_974e-5,
                21.014_019_747_109_607,
                21.539_370_240_787_35,
                840.560_789_884_384_3,
                1.050_700_987_355_480_4e30,
            ],
            [
                0.0,
                0.0,
                3.623_712_824_994_411_3e-9,
                1.758_081_759_941_872_8,
                1.050_700_987_355_480_5,
                1.050_700_987_355_480_5,
                1.050_700_987_355_480_5,
                1.050_700_987_355_480_5,
            ],
        ),
        (
            Function::Mish,
            [0.0, 0.0, -4.122_307_240_628_762e-8, -5.999_967_999_984_001e-6, 20.0, 20.5, 800.0, 1e30],
            [0.0, 0.0, -3.916_191_874_348_969e-8, 0.599_993_599_995_200_2, 1.0, 1.0, 1.0, 1.0],
        ),
        (
            Function::Softplus,
            [0.0, 0.0, 2.061_153_620_314_381e-9, 0.693_142_180_572_445_3, 20.000_000_002_061_153, 20.5, 800.0, 1e30],
            [0.0, 0.0, 2.061_153_618_190_203_3e-9, 0.499_997_5, 0.999_999_997_938_846_4, 1.0, 1.0, 1.0],
        ),
    ];

    #[test]
    fn slopes_equal_finite_differences() {
        let x: Vec<f64> = sample(64, 1).into_iter().map(|x| 8.0 * x).collect();
        let c = sample(64, 2);
        for function in ALL {
            let mut dx = sample(64, 3);
            let before = dx.clone();
            function.backward(&x, &c, &mut dx, true);
            dx.iter_mut().zip(&before).for_each(|(dx, before)| *dx -= before);
            assert_gradient(&format!("{function:?}"), &x, &dx, |x| {
                let mut y = vec![0.0; 64];
                function.apply(x, &mut y);
                projection(&y, &c)
            });
        }
    }

    /// ```python
    /// import torch, torch.nn.functional as F
    /// for f in (F.relu, F.relu6, lambda x: F.leaky_relu(x, .2), F.hardswish, F.hardsigmoid, F.elu):
    ///     x = torch.tensor([-4., -3., 0., 3., 6., 7.], requires_grad=True); f(x).sum().backward(); print(x.grad)
    /// ```
    #[test]
    fn kinks_and_far_values_are_as_in_pytorch() {
        let x = [-4.0_f32, -3.0, 0.0, 3.0, 6.0, 7.0];
        let sixth = 1.0 / 6.0;
        for (function, expected) in [
            (Function::Relu, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
            (Function::Relu6, [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
            (Function::LeakyRelu(0.2), [0.2, 0.2, 0.2, 1.0, 1.0, 1.0]),
            (Function::Hardsigmoid, [0.0, 0.0, sixth, 0.0, 0.0, 0.0]),
        ] {
            let mut dx = [9.0; 6];
            function.backward(&x, &[1.0; 6], &mut dx, false);
            assert_eq!(dx, expected, "{function:?}");
        }
        let mut dx = [9.0; 3];
        Function::Elu(0.2).backward(&[-0.0_f32, 0.0, 1e-30], &[1.0; 3], &mut dx, false);
        assert_eq!(dx, [0.2, 0.2, 1.0]);
        for function in ALL {
            let (mut y, mut dx) = ([0.0; 3], [0.0; 3]);
            function.apply(&[f32::NAN, 90.0, -90.0], &mut y);
            function.backward(&[1.0, 90.0, -90.0], &[1.0; 3], &mut dx, false);
            assert!(y[0].is_nan() && y[1..].iter().chain(&dx).all(|value| value.is_finite()), "{function:?}: {y:?}");
        }
    }

    /// ```python
    /// x = torch.tensor([-1e30, -800., -20., -1e-5, 20., 20.5, 800., 1e30], dtype=torch.float64, requires_grad=True)
    /// for f in (F.elu, F.selu, F.mish, F.softplus): y = f(x); print(y, torch.autograd.grad(y.sum(), x))
    /// ```
    #[test]
    fn far_and_near_values_are_as_in_pytorch() {
        let x = [-1e30, -800.0, -20.0, -1e-5, 20.0, 20.5, 800.0, 1e30];
        for (function, values, slopes) in FAR_AND_NEAR {
            let (mut y, mut dx) = ([0.0; 8], [0.0; 8]);
            function.apply(&x, &mut y);
            function.backward(&x, &[1.0; 8], &mut dx, false);
            let (mut y32, mut dx32) = ([0.0; 8], [0.0; 8]);
            let x32 = x.map(|x| x as f32);
            function.apply(&x32, &mut y32);
            function.backward(&x32, &[1.0; 8], &mut dx32, false);
            for at in 0..8 {
                for (got, single, expected) in [(y[at], y32[at], values[at]), (dx[at], dx32[at], slopes[at])] {
                    let within = |got: f64, part: f64| (got - expected).abs() <= part * expected.abs() + part * 1e-7;
                    assert!(within(got, 1e-12), "{function:?} of {}: {got}, not {expected}", x[at]);
                    assert!(within(f64::from(single), 2e-6), "{function:?} of {}: {single}, not {expected}", x[at]);
                }
            }
        }
    }
}
