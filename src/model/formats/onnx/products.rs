//! Products with matrices and kernels, and their biases.

use super::constant::Constant;
use super::file::FileNode;
use super::operands::{live, switch, vector, weight};
use super::operation::{OperationKind, PlacedOperation, Rim};
use super::reader::Reader;
use super::rims::{along, rims};
use super::size::shown;
use super::value::OnnxValue;
use super::view::{Atom, ValueView, ViewAxis, merged};
use super::{channels, pools, tokens};
use crate::model::graph::{Op, Window, Window1d};

/// Why a product along the positions is not read.
const MIXES_TOKENS: &str = "it mixes tokens (as MLP-Mixer does) by a matrix that all channels share; members have one each, so \
                            there is no network in which their channels stand side by side";

pub(super) fn gemm<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<ValueView, String> {
    let x = live(operands)?;
    let matrix = weight(operands, 1)?.ok_or("it has no matrix")?;
    let one = |name: &str| node.float(name).is_none_or(|factor| factor.to_bits() == 1.0_f64.to_bits());
    if !one("alpha") || !one("beta") || switch(node, "transA", false) {
        return Err("alpha and beta other than 1, and a transposed first operand, are not read".to_owned());
    }
    if x.axes.len() != 2 || matrix.dims.len() != 2 {
        return Err("its operands are not two matrices".to_owned());
    }
    let matrix = if switch(node, "transB", false) { matrix.clone() } else { matrix.transpose(&[1, 0])? };
    let outputs = matrix.dims[0].usize().unwrap_or(0);
    let product = linear(reader, x, matrix)?;
    match weight(operands, 2)? {
        None => Ok(product),
        Some(bias) => {
            if bias.dims.last().and_then(|dim| dim.usize()) != Some(outputs) {
                return Err("its third operand is no bias".to_owned());
            }
            let bias = vector(bias, outputs)?;
            with_bias(reader, &product, bias)?.ok_or_else(|| "its third operand is no bias".to_owned())
        }
    }
}

/// A product with a matrix, (out x in), of the last axis of a value.
pub(super) fn linear<'a>(reader: &mut Reader<'a>, x: &ValueView, matrix: Constant<'a>) -> Result<ValueView, String> {
    let [Some(outputs), Some(inputs)] = [0, 1].map(|axis: usize| matrix.dims.get(axis).and_then(|dim| dim.usize()))
    else {
        return Err(format!("expected a matrix, got {}", shown(&matrix.dims)));
    };
    let last = x.axes.len().checked_sub(1).ok_or("its operand has no axes")?;
    // Tokens of several examples may share an axis: then all channels are the last axis as they are.
    let x = match reader.arrange(x, last) {
        Ok(arranged) => arranged,
        Err(misfit) => {
            let shape = reader.shape(x.node);
            let over_positions = x.axes[last].iter().any(|atom| matches!(atom.place, ViewAxis::Axis(1..)));
            if over_positions && x.channel_axis(shape).is_some() {
                return Err(MIXES_TOKENS.to_owned());
            }
            if !x.is_whole(shape) || x.channel_axis(shape) != Some(last) {
                return Err(misfit);
            }
            x.clone()
        }
    };
    if reader.shape(x.node)[0] != inputs {
        return Err(format!("a matrix for {inputs} channels meets {}", reader.shape(x.node)[0]));
    }
    let shape = [&[outputs], &reader.shape(x.node)[1..]].concat();
    let result = if let OperationKind::Mixed { .. } = reader.kind(x.node) {
        tokens::attention(reader, x.node, matrix, outputs)?
    } else {
        let from = reader.settle(x.node)?;
        let op = Op::Linear { in_features: inputs, out_features: outputs, bias: false };
        reader.push(OperationKind::Graph(op), vec![from], shape, vec![matrix])?
    };
    let mut view = x.onto(result);
    view.axes[last] = merged([Atom::new(0, 1, outputs)]);
    Ok(view)
}

/// The same product or convolution with a bias, where the value is one without; none where it is not.
pub(super) fn with_bias<'a>(
    reader: &mut Reader<'a>,
    x: &ValueView,
    bias: Constant<'a>,
) -> Result<Option<ValueView>, String> {
    let PlacedOperation { kind, inputs, shape, weights, parts, .. } = reader.operations[x.node].clone();
    let OperationKind::Graph(mut op) = kind else { return Ok(None) };
    match &mut op {
        Op::Linear { bias, .. } | Op::Conv1d { bias, .. } | Op::Conv2d { bias, .. } if !*bias => *bias = true,
        Op::Attention { output_bias, .. } if !*output_bias => *output_bias = true,
        _ => return Ok(None),
    }
    if !x.is_whole(&shape) {
        return Ok(None);
    }
    let node = reader.push(OperationKind::Graph(op), inputs, shape, [weights, vec![bias]].concat())?;
    reader.operations[node].parts = parts;
    // Where the weights came in says more of the module.
    reader.operations[node].origin = reader.operations[x.node].origin;
    Ok(Some(x.onto(node)))
}

pub(super) fn convolution<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<ValueView, String> {
    let kernels = weight(operands, 1)?.ok_or("it has no kernels")?.clone();
    if let Some(view) = channels::neighbours(reader, node, live(operands)?, &kernels, weight(operands, 2)?)? {
        return Ok(view);
    }
    let x = reader.feature_map(live(operands)?)?;
    let sizes: Option<Vec<usize>> = kernels.dims.iter().map(|dim| dim.usize()).collect();
    let sizes = sizes.filter(|sizes| sizes.len() == x.axes.len()).ok_or("its kernels do not fit its operand")?;
    if let Some(op) = pools::blur(reader, node, &x, &kernels)? {
        return Ok(op);
    }
    let rims = rims(reader, node, &x, Rim::Zeros)?;
    let (from, begin, end) = (rims.from, rims.total(0), rims.total(1));
    let (from, begin) = pools::evened(reader, from, &begin, &end)?;
    let channels = reader.shape(from)[0];
    let groups = usize::try_from(node.integer("group").unwrap_or(1)).ok().filter(|groups| *groups > 0);
    let group_width = match groups {
        Some(1) => None,
        Some(groups) if channels.is_multiple_of(groups) => Some(channels / groups),
        _ => return Err(format!("{channels} channels do not fall into its groups")),
    };
    let (in_channels, out_channels, bias) = (channels, sizes[0], false);
    let op = if let [_, _, kernel] = sizes[..] {
        let ([stride], [dilation]) = (along(node, "strides", 1)?, along(node, "dilations", 1)?);
        let window = Window1d { kernel, stride, padding: begin[0], dilation };
        Op::Conv1d { in_channels, out_channels, group_width, window, bias }
    } else {
        let [_, _, height, width] = sizes[..] else { return Err("only one or two axes are convolved".to_owned()) };
        let (stride, dilation) = (along(node, "strides", 1)?, along(node, "dilations", 1)?);
        let window = Window { kernel: [height, width], stride, padding: [begin[0], begin[1]], dilation };
        Op::Conv2d { in_channels, out_channels, group_width, window, bias }
    };
    let window = op.convolution().ok_or("it is no convolution")?.window;
    let shape = pools::after(reader.shape(from), out_channels, &window, false)?;
    let from = reader.settle(from)?;
    let result = reader.push(OperationKind::Graph(op), vec![from], shape, vec![kernels])?;
    let view = reader.view(result);
    match weight(operands, 2)? {
        None => Ok(view),
        // Unoptimised exports give every convolution a bias: one 0, repeated.
        Some(bias) if bias.is_repeated(0.0, &reader.tensors) => Ok(view),
        Some(bias) => {
            let bias = vector(bias, out_channels)?;
            with_bias(reader, &view, bias)?.ok_or_else(|| "its third operand is no bias".to_owned())
        }
    }
}
