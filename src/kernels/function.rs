//! Functions that are applied to every value by itself, with their slopes.

use std::f64::consts::{FRAC_2_PI, PI};

use rayon::prelude::*;

use crate::kernels::elementwise::positive;
use crate::kernels::{Float, PIECE};

/// Coefficient of the cube in GELU's approximation by the hyperbolic tangent.
const CUBE: f64 = 0.044_715;

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

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are exact")]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample};

    const ALL: [Function; 10] = [
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
    /// for f in (F.relu, F.relu6, lambda x: F.leaky_relu(x, .2), F.hardswish, F.hardsigmoid):
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
        for function in ALL {
            let (mut y, mut dx) = ([0.0; 3], [0.0; 3]);
            function.apply(&[f32::NAN, 90.0, -90.0], &mut y);
            function.backward(&[1.0, 90.0, -90.0], &[1.0; 3], &mut dx, false);
            assert!(y[0].is_nan() && y[1..].iter().chain(&dx).all(|value| value.is_finite()), "{function:?}: {y:?}");
        }
    }
}
