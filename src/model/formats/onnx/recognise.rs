//! What a group of functions computes is found by computing it, so that the order of its terms does not matter.

use std::collections::BTreeMap;

use super::channels::AFFINE;
use super::constant::Constant;
use super::file::FileNode;
use super::functions::ScalarFunction;
use super::operation::{OperationKind, PlacedOperation, Rim};
use super::reader::Reader;
use super::size::AxisSize;
use super::view::ValueView;
use crate::model::graph::{Approximate, Op, Window, Window1d};

/// Most operators of one function.
const MAX_PARTS: usize = 32;
/// Most functions of functions that are recognised at once.
const MAX_DEPTH: usize = 64;
/// Largest difference of two functions that are the same: what constants of 32 bits explain.
const TOLERANCE: f64 = 2e-6;
/// Where functions are compared: small values, usual ones, and some behind any bound that a network may have.
const SAMPLES: [f64; 52] = [
    -1e12, -1e6, -7e4, -3000.0, -100.0, -40.0, -25.0, -19.0, -12.5, -8.1, -6.0, -5.3, -4.2, -3.5, -3.0, -2.6, -2.1,
    -1.7, -1.3, -1.0, -0.77, -0.5, -0.21, -0.01, -3e-4, -1e-5, 0.0, 1e-5, 3e-4, 0.01, 0.13, 0.42, 0.5, 0.81, 1.0, 1.4,
    1.9, 2.4, 3.0, 3.3, 4.4, 5.5, 6.0, 6.7, 9.1, 14.0, 31.0, 100.0, 3000.0, 7e4, 1e6, 1e12,
];

/// What a function is recognised as.
#[derive(Debug, PartialEq)]
enum Recognised {
    Identity,
    Activation(Op),
}

/// The operation of the graph that computes this, if there is one.
/// It is compared at the usual places and at `more`.
fn recognised(function: impl Fn(f64) -> f64, more: &[f64]) -> Option<Recognised> {
    let samples = [&SAMPLES, more].concat();
    let values: Vec<f64> = samples.iter().map(|x| function(*x)).collect();
    let is = |other: ScalarFunction| {
        samples.iter().zip(&values).all(|(x, value)| {
            let expected = other.at(*x, 0.0, 0.0);
            (value - expected).abs() <= TOLERANCE * expected.abs().max(1.0)
        })
    };
    // The slope of negative values, or their limit, as written with few digits.
    let rounded = |value: f64| (value * 1e7).round() / 1e7;
    let (slope, limit) = (rounded(function(-1.0) / -1.0), rounded(-function(-60.0)));
    let known = [
        (ScalarFunction::Plus(0.0), Recognised::Identity),
        (ScalarFunction::Relu, Recognised::Activation(Op::Relu)),
        (ScalarFunction::Clip(0.0, 6.0), Recognised::Activation(Op::Relu6)),
        (ScalarFunction::Sigmoid, Recognised::Activation(Op::Sigmoid)),
        (ScalarFunction::Tanh, Recognised::Activation(Op::Tanh)),
        (ScalarFunction::Softplus, Recognised::Activation(Op::Softplus)),
        (ScalarFunction::Mish, Recognised::Activation(Op::Mish)),
        (ScalarFunction::HardSwish, Recognised::Activation(Op::Hardswish)),
        (ScalarFunction::HardSigmoid(1.0 / 6.0, 0.5), Recognised::Activation(Op::Hardsigmoid)),
        (ScalarFunction::Gelu(Approximate::None), Recognised::Activation(Op::Gelu { approximate: Approximate::None })),
        (ScalarFunction::Gelu(Approximate::Tanh), Recognised::Activation(Op::Gelu { approximate: Approximate::Tanh })),
        (ScalarFunction::Selu(1.673_263_242_354_377_2, 1.050_700_987_355_480_5), Recognised::Activation(Op::Selu)),
        (ScalarFunction::LeakyRelu(slope), Recognised::Activation(Op::LeakyRelu { negative_slope: slope })),
        (ScalarFunction::Elu(limit), Recognised::Activation(Op::Elu { alpha: limit })),
    ];
    if let Some((_, op)) = known.into_iter().find(|(other, _)| is(*other)) {
        return Some(op);
    }
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let is_silu =
        samples.iter().zip(&values).all(|(x, value)| (value - silu(*x)).abs() <= TOLERANCE * x.abs().max(1.0));
    is_silu.then_some(Recognised::Activation(Op::Silu))
}

/// Functions below a node, from the node down to what they are functions of.
struct Cone {
    /// Functions, in order of computation.
    parts: Vec<usize>,
    /// What is no function, or a function that is recognised already.
    leaves: Vec<usize>,
}

impl Reader<'_> {
    /// Adds a function of one value.
    pub(super) fn function(&mut self, function: ScalarFunction, x: &ValueView) -> Result<ValueView, String> {
        let shape = self.shape(x.node).to_vec();
        let node = self.push(OperationKind::ScalarFunction(function), vec![x.node], shape, Vec::new())?;
        Ok(x.onto(node))
    }

    /// The functions at and below a node; none where they are too many for one function.
    fn cone(&self, node: usize) -> Option<Cone> {
        let (mut parts, mut leaves, mut open) = (Vec::new(), Vec::new(), vec![node]);
        while let Some(next) = open.pop() {
            let is_part =
                matches!(self.kind(next), OperationKind::ScalarFunction(_)) && !self.settled.contains_key(&next);
            let list = if is_part { &mut parts } else { &mut leaves };
            if list.contains(&next) {
                continue;
            }
            list.push(next);
            if is_part {
                open.extend(&self.operations[next].inputs);
            }
            if parts.len() > MAX_PARTS || leaves.len() > MAX_PARTS {
                return None;
            }
        }
        parts.sort_unstable();
        Some(Cone { parts, leaves })
    }

    /// The value of `node` where `base` has the value `x`; none where it depends on anything else.
    fn value(&self, parts: &[usize], node: usize, base: usize, x: f64) -> Option<f64> {
        let mut values = BTreeMap::from([(base, x)]);
        for part in parts.iter().filter(|part| **part > base) {
            let OperationKind::ScalarFunction(function) = self.kind(*part) else { continue };
            let operands: Option<Vec<f64>> =
                self.operations[*part].inputs.iter().map(|input| values.get(input).copied()).collect();
            if let Some(operands) = operands {
                let operand = |index: usize| operands.get(index).copied().unwrap_or_default();
                values.insert(*part, function.at(operand(0), operand(1), operand(2)));
            }
        }
        values.get(&node).copied()
    }

    /// A node as a function of the only value below it that is no function: that value, and the results for `xs`.
    pub(super) fn as_function(&self, node: usize, xs: &[f64]) -> Option<(usize, Vec<f64>)> {
        let cone = self.cone(node)?;
        let [leaf] = cone.leaves[..] else { return None };
        let base = self.settled.get(&leaf).copied().unwrap_or(leaf);
        if leaf == node {
            return Some((base, xs.to_vec()));
        }
        let values: Option<Vec<f64>> = xs.iter().map(|x| self.value(&cone.parts, node, leaf, *x)).collect();
        Some((base, values?))
    }

    /// A node as a multiple of a value that is no function.
    pub(super) fn as_multiple(&self, node: usize) -> Option<(usize, f64)> {
        let xs = [0.0, 1.0, -2.0, 8.0, 1e-4, 3000.0, -1e6, 1e12];
        let (base, values) = self.as_function(node, &xs)?;
        let factor = values[1];
        let near = |(value, x): (&f64, &f64)| (value - x * factor).abs() <= 1e-9 * (x * factor).abs();
        let straight = values.iter().zip(&xs).all(near);
        straight.then_some((base, factor))
    }

    /// The operation that computes what functions at this node compute together; the node itself where it is none.
    pub(super) fn settle(&mut self, node: usize) -> Result<usize, String> {
        self.settle_below(node, 0)
    }

    fn settle_below(&mut self, node: usize, depth: usize) -> Result<usize, String> {
        let function = match *self.kind(node) {
            OperationKind::ScalarFunction(function) => function,
            OperationKind::Affine => return self.settled_affine(node),
            OperationKind::Padded { rim: Rim::Zeros, .. } => return self.settled_rim(node),
            _ => return Ok(node),
        };
        if let Some(known) = self.settled.get(&node) {
            return Ok(*known);
        }
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} functions follow each other without a layer between them"));
        }
        let settled = match (self.recognise(node, depth)?, function) {
            (Some(settled), _) => settled,
            (None, ScalarFunction::Add) => self.settled_pair(node, Op::Add, depth)?,
            (None, ScalarFunction::Mul) => self.settled_pair(node, Op::Multiply, depth)?,
            (None, ScalarFunction::Times(factor)) => {
                let operand = self.settle_below(self.operations[node].inputs[0], depth + 1)?;
                self.push_like(node, Op::Scale { factor }, vec![operand])?
            }
            (None, ScalarFunction::Plus(_) | ScalarFunction::From(_)) => self.settled_line(node, depth)?,
            (None, ScalarFunction::Neg) => {
                let operand = self.settle_below(self.operations[node].inputs[0], depth + 1)?;
                self.push_like(node, Op::Scale { factor: -1.0 }, vec![operand])?
            }
            (None, ScalarFunction::Sub) => {
                let [left, right] = self.operations[node].inputs[..] else {
                    return Err("it has no two operands".to_owned());
                };
                let (left, right) = (self.settle_below(left, depth + 1)?, self.settle_below(right, depth + 1)?);
                let minus = self.push_like(node, Op::Scale { factor: -1.0 }, vec![right])?;
                self.push_like(node, Op::Add, vec![left, minus])?
            }
            (None, _) => {
                let FileNode { name, op, .. } = &self.file.nodes[self.operations[node].origin];
                return Err(format!("what the functions up to `{name}` ({op}) compute is no activation that is known"));
            }
        };
        self.settled.insert(node, settled);
        Ok(settled)
    }

    /// A factor and a summand that are the same for all channels, as those for each.
    fn settled_line(&mut self, node: usize, depth: usize) -> Result<usize, String> {
        let (mut base, mut factor, mut summand) = (node, 1.0, 0.0);
        while let OperationKind::ScalarFunction(function) = *self.kind(base) {
            match function {
                ScalarFunction::Plus(c) => summand += factor * c,
                ScalarFunction::From(c) => (factor, summand) = (-factor, summand + factor * c),
                ScalarFunction::Times(c) => factor *= c,
                ScalarFunction::Neg => factor = -factor,
                _ => break,
            }
            base = self.operations[base].inputs[0];
        }
        let base = self.settle_below(base, depth + 1)?;
        let channels = self.shape(base)[0];
        let repeated =
            |value: f64| Constant::of_floats(AFFINE, vec![AxisSize::of(channels as i64)], vec![value; channels]);
        let (weights, shape) = (vec![repeated(factor)?, repeated(summand)?], self.shape(base).to_vec());
        let affine = self.push(OperationKind::Affine, vec![base], shape, weights)?;
        self.operations[affine].origin = self.operations[node].origin;
        self.settled_affine(affine)
    }

    /// A rim of zeros as an operation of the graph, where what reads it has none of its own.
    fn settled_rim(&mut self, node: usize) -> Result<usize, String> {
        let PlacedOperation { kind: OperationKind::Padded { begin, end, .. }, inputs, .. } =
            self.operations[node].clone()
        else {
            return Ok(node);
        };
        self.push_like(node, Op::ZeroPad { begin, end }, inputs)
    }

    /// The sum or product of what both operands of a function come to.
    fn settled_pair(&mut self, node: usize, op: Op, depth: usize) -> Result<usize, String> {
        let operands = self.operations[node].inputs.clone();
        let operands = operands.into_iter().map(|operand| self.settle_below(operand, depth + 1));
        let operands = operands.collect::<Result<Vec<_>, _>>()?;
        self.push_like(node, op, operands)
    }

    /// A factor and a summand for each channel as an operation of the graph: a convolution of each channel by itself, without
    /// neighbours.
    fn settled_affine(&mut self, node: usize) -> Result<usize, String> {
        let PlacedOperation { inputs, shape, weights, .. } = self.operations[node].clone();
        let channels = shape[0];
        let group_width = (channels > 1).then_some(1);
        let (in_channels, out_channels, bias) = (channels, channels, true);
        let op = match shape.len() {
            2 => {
                let window = Window1d { kernel: 1, stride: 1, padding: 0, dilation: 1 };
                Op::Conv1d { in_channels, out_channels, group_width, window, bias }
            }
            3 => Op::Conv2d { in_channels, out_channels, group_width, window: Window::square(1, 1, 0), bias },
            _ => {
                return Err(
                    "a constant for each value of a vector is only added behind a layer without a bias".to_owned()
                );
            }
        };
        let kernels =
            weights[0].reshape(&[vec![AxisSize::of(channels as i64)], vec![AxisSize::ONE; shape.len()]].concat())?;
        let new = self.push(OperationKind::Graph(op), inputs, shape, vec![kernels, weights[1].clone()])?;
        self.operations[new].origin = self.operations[node].origin;
        Ok(new)
    }

    /// Adds an operation of the graph in the place of `node`.
    fn push_like(&mut self, node: usize, op: Op, inputs: Vec<usize>) -> Result<usize, String> {
        let shape = self.shape(node).to_vec();
        let new = self.push(OperationKind::Graph(op), inputs, shape, Vec::new())?;
        self.operations[new].origin = self.operations[node].origin;
        Ok(new)
    }

    /// Values around the bounds of a function that has some: where it may bend.
    fn bounds(&self, node: usize) -> Vec<f64> {
        let bounds = match self.kind(node) {
            OperationKind::ScalarFunction(ScalarFunction::Clip(low, high)) => vec![*low, *high],
            OperationKind::ScalarFunction(ScalarFunction::Above(bound) | ScalarFunction::Below(bound)) => vec![*bound],
            _ => Vec::new(),
        };
        let around = |bound: f64| [0.9, 1.0, 1.1, 2.0].into_iter().flat_map(move |part| [part * bound, -part * bound]);
        bounds.into_iter().filter(|bound| bound.is_finite()).flat_map(around).collect()
    }

    /// The activation that a node computes of the nearest value below it of which it is one.
    fn recognise(&mut self, node: usize, depth: usize) -> Result<Option<usize>, String> {
        let Some(cone) = self.cone(node) else { return Ok(None) };
        let mut bases: Vec<usize> =
            cone.parts.iter().chain(&cone.leaves).copied().filter(|base| *base != node).collect();
        bases.sort_unstable();
        let bounds: Vec<f64> = cone.parts.iter().flat_map(|part| self.bounds(*part)).collect();
        for base in bases.into_iter().rev() {
            if self.value(&cone.parts, node, base, 1.0).is_none() {
                continue;
            }
            let of = |x: f64| self.value(&cone.parts, node, base, x).unwrap_or(f64::NAN);
            if let Some(found) = recognised(of, &bounds) {
                let below = self.settle_below(base, depth + 1)?;
                return match found {
                    Recognised::Identity => Ok(Some(below)),
                    Recognised::Activation(op) => self.push_like(node, op, vec![below]).map(Some),
                };
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_told_apart() {
        assert_eq!(recognised(|x| x.clamp(0.0, 6.0), &[]), Some(Recognised::Activation(Op::Relu6)));
        assert_eq!(
            recognised(|x| 0.1 * x.min(0.0) + x.max(0.0), &[]),
            Some(Recognised::Activation(Op::LeakyRelu { negative_slope: 0.1 }))
        );
        assert_eq!(
            recognised(|x| if x < 0.0 { 0.3 * x.exp_m1() } else { x }, &[]),
            Some(Recognised::Activation(Op::Elu { alpha: 0.3 }))
        );
        assert_eq!(recognised(|x| x / (1.0 + (-x).exp()), &[]), Some(Recognised::Activation(Op::Silu)));
        assert_eq!(recognised(|x| x * 1.0, &[]), Some(Recognised::Identity));
        // GELU as two others approximate it, and a hard sigmoid of another slope.
        assert_eq!(recognised(|x| x / (1.0 + (-1.702 * x).exp()), &[]), None);
        assert_eq!(recognised(|x| 0.5 * x * (1.0 + (0.8 * (x + 0.044_715 * x.powi(3))).tanh()), &[]), None);
        assert_eq!(recognised(|x| (0.2 * x + 0.5).clamp(0.0, 1.0), &[]), None);
        assert_eq!(recognised(|x| 2.0 * x, &[]), None);
        // Bounds far out, and a gap close to 0.
        assert_eq!(recognised(|x| x.clamp(-65504.0, 65504.0), &[]), None);
        assert_eq!(recognised(|x| x.clamp(0.0, 50.0), &[]), None);
        assert_eq!(recognised(|x| if x.abs() < 1e-3 { 0.0 } else { x }, &[]), None);
        assert_eq!(recognised(|x| x.clamp(0.0, 2e12), &[2e12, 3e12]), None);
    }
}
