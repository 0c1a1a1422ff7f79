//! Functions of single values, of which exporters spell many as several operators.

use super::constant::Constant;
use super::file::FileNode;
use super::file_tensor::FileTensor;
use super::value::OnnxValue;
use super::view::ValueView;
use crate::model::graph::Approximate;

/// A function of one value, or of two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ScalarFunction {
    Relu,
    Sigmoid,
    Tanh,
    Erf,
    Exp,
    Sqrt,
    Reciprocal,
    Neg,
    Softplus,
    Mish,
    HardSwish,
    Gelu(Approximate),
    Clip(f64, f64),
    LeakyRelu(f64),
    Elu(f64),
    Selu(f64, f64),
    HardSigmoid(f64, f64),
    /// `x` to this power.
    Power(f64),
    /// `x + c`.
    Plus(f64),
    /// `c x`.
    Times(f64),
    /// `c - x`.
    From(f64),
    /// `c / x`.
    Over(f64),
    /// 1 where `x > c`, else 0.
    Above(f64),
    /// 1 where `x < c`, else 0.
    Below(f64),
    Add,
    Sub,
    Mul,
    Div,
    /// The second operand where the first is not 0, else the third.
    Choose,
}

impl ScalarFunction {
    /// The function that a node computes of one live value, with that value.
    pub(super) fn of_node(
        node: &FileNode<'_>,
        operands: &[Option<OnnxValue<'_>>],
        tensors: &[&FileTensor<'_>],
    ) -> Result<Option<(Self, ValueView)>, String> {
        let float = |name: &str, default: f64| node.float(name).unwrap_or(default);
        match operands {
            [Some(OnnxValue::Live(x)), rest @ ..] if rest.is_empty() || node.op == "Clip" => {
                let bound = |index: usize, open: f64| match rest.get(index) {
                    None | Some(None) => Ok(open),
                    Some(Some(OnnxValue::Constant(bound))) => {
                        bound.scalar(tensors).ok_or_else(|| "expected bounds that are single numbers".to_owned())
                    }
                    Some(Some(_)) => Err("its bounds depend on the input".to_owned()),
                };
                let function = match node.op {
                    "Relu" => Self::Relu,
                    "Sigmoid" => Self::Sigmoid,
                    "Tanh" => Self::Tanh,
                    "Erf" => Self::Erf,
                    "Exp" => Self::Exp,
                    "Sqrt" => Self::Sqrt,
                    "Reciprocal" => Self::Reciprocal,
                    "Neg" => Self::Neg,
                    "Softplus" => Self::Softplus,
                    "Mish" => Self::Mish,
                    "HardSwish" => Self::HardSwish,
                    "Gelu" if node.text("approximate") == Some("tanh") => Self::Gelu(Approximate::Tanh),
                    "Gelu" => Self::Gelu(Approximate::None),
                    "Clip" => Self::Clip(bound(0, f64::NEG_INFINITY)?, bound(1, f64::INFINITY)?),
                    "LeakyRelu" => Self::LeakyRelu(float("alpha", 0.01)),
                    "Elu" => Self::Elu(float("alpha", 1.0)),
                    "Selu" => Self::Selu(float("alpha", 1.673_263_2), float("gamma", 1.050_701)),
                    "HardSigmoid" => Self::HardSigmoid(float("alpha", 0.2), float("beta", 0.5)),
                    _ => return Ok(None),
                };
                Ok(Some((function, x.clone())))
            }
            [Some(OnnxValue::Live(x)), Some(OnnxValue::Constant(c))] => {
                Ok(scalar(c, x, tensors).and_then(|c| Self::with_scalar(node.op, c, true)).map(|f| (f, x.clone())))
            }
            [Some(OnnxValue::Constant(c)), Some(OnnxValue::Live(x))] => {
                Ok(scalar(c, x, tensors).and_then(|c| Self::with_scalar(node.op, c, false)).map(|f| (f, x.clone())))
            }
            _ => Ok(None),
        }
    }

    /// Whether it is a factor of 1 or a summand of 0, as exporters write them.
    pub(super) fn changes_nothing(self) -> bool {
        match self {
            Self::Times(factor) => factor.to_bits() == 1.0_f64.to_bits(),
            Self::Plus(summand) => summand.abs().to_bits() == 0,
            _ => false,
        }
    }

    /// An operator on a value and a number, which stands behind it or before it.
    fn with_scalar(op: &str, c: f64, behind: bool) -> Option<Self> {
        Some(match (op, behind) {
            ("Add", _) => Self::Plus(c),
            ("Sub", true) => Self::Plus(-c),
            ("Sub", false) => Self::From(c),
            ("Mul", _) => Self::Times(c),
            ("Div", true) => Self::Times(1.0 / c),
            ("Div", false) => Self::Over(c),
            ("Pow", true) => Self::Power(c),
            ("Greater", true) | ("Less", false) => Self::Above(c),
            ("Less", true) | ("Greater", false) => Self::Below(c),
            ("Max", _) => Self::Clip(c, f64::INFINITY),
            ("Min", _) => Self::Clip(f64::NEG_INFINITY, c),
            _ => return None,
        })
    }

    /// The function of two live values that an operator computes.
    pub(super) fn of_two(op: &str) -> Option<Self> {
        Some(match op {
            "Add" => Self::Add,
            "Sub" => Self::Sub,
            "Mul" => Self::Mul,
            "Div" => Self::Div,
            _ => return None,
        })
    }

    /// The value for one operand, or for all that it has.
    pub(super) fn at(self, x: f64, y: f64, z: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let softplus = |x: f64| if x > 30.0 { x } else { x.exp().ln_1p() };
        match self {
            Self::Relu => x.max(0.0),
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Erf => libm::erf(x),
            Self::Exp => x.exp(),
            Self::Sqrt => x.sqrt(),
            Self::Reciprocal => 1.0 / x,
            Self::Neg => -x,
            Self::Softplus => softplus(x),
            Self::Mish => x * softplus(x).tanh(),
            Self::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Self::Gelu(Approximate::None) => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Self::Gelu(Approximate::Tanh) => {
                0.5 * x * (1.0 + (std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
            }
            Self::Clip(low, high) => x.max(low).min(high),
            Self::LeakyRelu(slope) => {
                if x < 0.0 {
                    slope * x
                } else {
                    x
                }
            }
            Self::Elu(alpha) => {
                if x < 0.0 {
                    alpha * x.exp_m1()
                } else {
                    x
                }
            }
            Self::Selu(alpha, gamma) => gamma * if x < 0.0 { alpha * x.exp_m1() } else { x },
            Self::HardSigmoid(alpha, beta) => (alpha * x + beta).clamp(0.0, 1.0),
            Self::Power(c) => x.powf(c),
            Self::Plus(c) => x + c,
            Self::Times(c) => c * x,
            Self::From(c) => c - x,
            Self::Over(c) => c / x,
            Self::Add => x + y,
            Self::Sub => x - y,
            Self::Mul => x * y,
            Self::Div => x / y,
            Self::Above(c) => f64::from(x > c),
            Self::Below(c) => f64::from(x < c),
            Self::Choose => {
                if x == 0.0 {
                    z
                } else {
                    y
                }
            }
        }
    }
}

/// A constant as a single number, where it adds no axes to the value.
fn scalar(c: &Constant<'_>, x: &ValueView, tensors: &[&FileTensor<'_>]) -> Option<f64> {
    if c.dims.len() <= x.axes.len() { c.scalar(tensors) } else { None }
}
