//! Functions of single values, sums and products.

use rayon::prelude::*;

use crate::fusion::reference::feature_map::FeatureMap;
use crate::model::graph::{Approximate, Op};

/// Values of one piece of work.
const PIECE: usize = 1 << 14;

/// The function that `op` applies to every value by itself, if it is such an operation; computed in f64.
pub(super) fn function(op: &Op) -> Option<Box<dyn Fn(f64) -> f64 + Sync>> {
    let relu6 = |x: f64| x.clamp(0.0, 6.0);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let elu = |alpha: f64, x: f64| if x > 0.0 { x } else { alpha * x.exp_m1() };
    let softplus = |x: f64| if x > 20.0 { x } else { x.exp().ln_1p() };
    Some(match *op {
        Op::Dropout { .. } => Box::new(|x| x),
        Op::Relu => Box::new(|x| if x < 0.0 { 0.0 } else { x }),
        Op::Relu6 => Box::new(relu6),
        Op::LeakyRelu { negative_slope } => Box::new(move |x| if x < 0.0 { negative_slope * x } else { x }),
        Op::Gelu { approximate: Approximate::None } => {
            Box::new(|x| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)))
        }
        Op::Gelu { approximate: Approximate::Tanh } => Box::new(|x| {
            let inner = std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }),
        Op::Silu => Box::new(move |x| x * sigmoid(x)),
        Op::Hardswish => Box::new(move |x| x * relu6(x + 3.0) / 6.0),
        Op::Sigmoid => Box::new(sigmoid),
        Op::Hardsigmoid => Box::new(move |x| relu6(x + 3.0) / 6.0),
        Op::Tanh => Box::new(f64::tanh),
        Op::Elu { alpha } => Box::new(move |x| elu(alpha, x)),
        Op::Selu => Box::new(move |x| 1.050_700_987_355_480_5 * elu(1.673_263_242_354_377_2, x)),
        Op::Mish => Box::new(move |x| x * softplus(x).tanh()),
        Op::Softplus => Box::new(softplus),
        Op::Scale { factor } => Box::new(move |x| factor * x),
        _ => return None,
    })
}

/// Applies a function to every value.
pub(super) fn map(x: &FeatureMap, function: impl Fn(f64) -> f64 + Sync) -> FeatureMap {
    let mut values = vec![0.0; x.values.len()];
    values.par_chunks_mut(PIECE).zip(x.values.par_chunks(PIECE)).for_each(|(y, x)| {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = function(f64::from(x)) as f32);
    });
    x.with(values)
}

/// Sum of two operands of one shape.
pub(super) fn add(a: &FeatureMap, b: &FeatureMap) -> FeatureMap {
    a.with(a.values.iter().zip(&b.values).map(|(a, b)| a + b).collect())
}

/// Product of two operands of one shape, or of which one has a single position.
pub(super) fn multiply(a: &FeatureMap, b: &FeatureMap) -> FeatureMap {
    let (wide, narrow) = if a.positions() < b.positions() { (b, a) } else { (a, b) };
    let repeat = wide.positions() / narrow.positions();
    let factors = narrow.values.iter().flat_map(|factor| std::iter::repeat_n(factor, repeat));
    wide.with(wide.values.iter().zip(factors).map(|(value, factor)| value * factor).collect())
}
