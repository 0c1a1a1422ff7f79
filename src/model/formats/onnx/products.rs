//! Products with matrices and kernels, and their biases.

use super::constant::Constant;
use super::file::FileNode;
use super::layers::{live, vector, weight};
use super::reader::{Kind, Operation, Reader, Rim, Value};
use super::shapes::switch;
use super::size::shown;
use super::view::{Atom, View, merged};
use super::{pools, tokens};
use crate::model::graph::{Op, Window, Window1d};

pub(super) fn gemm<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<Value<'a>>],
) -> Result<View, String> {
    let x = live(operands)?;
    let matrix = weight(operands, 1)?.ok_or("it has no matrix")?;
    let one = |name: &str| node.float(name).is_none_or(|factor| factor == 1.0);
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
            let bias = vector(bias, outputs)?;
            with_bias(reader, &product, bias)?.ok_or_else(|| "its third operand is no bias".to_owned())
        }
    }
}

/// A product with a matrix, (out x in), of the last axis of a value.
pub(super) fn linear<'a>(reader: &mut Reader<'a>, x: &View, matrix: Constant<'a>) -> Result<View, String> {
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
    let result = match reader.kind(x.node) {
        Kind::Mixed { .. } => tokens::attention(reader, x.node, matrix, outputs)?,
        _ => {
            let from = reader.settle(x.node)?;
            let op = Op::Linear { in_features: inputs, out_features: outputs, bias: false };
            reader.push(Kind::Graph(op), vec![from], shape.clone(), vec![matrix])?
        }
    };
    let mut view = x.onto(result);
    view.axes[last] = merged([Atom::new(0, 1, outputs)]);
    Ok(view)
}

/// The same product or convolution with a bias, where the value is one without; none where it is not.
pub(super) fn with_bias<'a>(reader: &mut Reader<'a>, x: &View, bias: Constant<'a>) -> Result<Option<View>, String> {
    let Operation { kind, inputs, shape, weights, parts, .. } = reader.operations[x.node].clone();
    let Kind::Graph(mut op) = kind else { return Ok(None) };
    match &mut op {
        Op::Linear { bias, .. } | Op::Conv1d { bias, .. } | Op::Conv2d { bias, .. } if !*bias => *bias = true,
        Op::Attention { output_bias, .. } if !*output_bias => *output_bias = true,
        _ => return Ok(None),
    }
    if !x.is_whole(&shape) {
        return Ok(None);
    }
    let node = reader.push(Kind::Graph(op), inputs, shape, [weights, vec![bias]].concat())?;
    reader.operations[node].parts = parts;
    // Where the weights came in says more of the module.
    reader.operations[node].origin = reader.operations[x.node].origin;
    Ok(Some(x.onto(node)))
}

/// The sizes of a window's attribute along each of `axes` axes.
pub(super) fn along<const N: usize>(node: &FileNode<'_>, name: &str, default: usize) -> Result<[usize; N], String> {
    let Some(sizes) = node.integers(name) else { return Ok([default; N]) };
    let sizes: Option<Vec<usize>> = sizes.iter().map(|size| usize::try_from(*size).ok()).collect();
    let sizes = sizes.and_then(|sizes| <[usize; N]>::try_from(sizes).ok());
    sizes.ok_or_else(|| format!("expected {N} sizes as `{name}`"))
}

/// The rim before and behind each axis, zeros that a Pad has put around the value among them, and that value.
pub(super) fn rims(
    reader: &Reader<'_>,
    node: &FileNode<'_>,
    x: &View,
    accepted: Rim,
) -> Result<(usize, Vec<usize>, Vec<usize>), String> {
    let axes = reader.shape(x.node).len() - 1;
    match node.text("auto_pad") {
        None | Some("NOTSET" | "VALID" | "") => {}
        Some(other) => return Err(format!("auto_pad `{other}` is not read; export with explicit pads")),
    }
    let pads = node.integers("pads").unwrap_or_default();
    let pads: Option<Vec<usize>> = pads.iter().map(|pad| usize::try_from(*pad).ok()).collect();
    let pads = match (node.text("auto_pad"), pads) {
        (Some("VALID"), _) => vec![0; 2 * axes],
        (_, Some(pads)) if pads.is_empty() => vec![0; 2 * axes],
        (_, Some(pads)) if pads.len() == 2 * axes => pads,
        _ => return Err("its pads are negative or not two for each axis".to_owned()),
    };
    let (mut begin, mut end) = (pads[..axes].to_vec(), pads[axes..].to_vec());
    let Kind::Padded { begin: before, end: behind, rim } = reader.kind(x.node) else {
        return Ok((x.node, begin, end));
    };
    if *rim != accepted {
        return Err("the rim that a Pad has put around its operand is not read here".to_owned());
    }
    for axis in 0..axes {
        begin[axis] = begin[axis].saturating_add(before[axis]);
        end[axis] = end[axis].saturating_add(behind[axis]);
    }
    Ok((reader.operations[x.node].inputs[0], begin, end))
}

pub(super) fn convolution<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<Value<'a>>],
) -> Result<View, String> {
    let x = reader.feature_map(live(operands)?)?;
    let kernels = weight(operands, 1)?.ok_or("it has no kernels")?.clone();
    let sizes: Option<Vec<usize>> = kernels.dims.iter().map(|dim| dim.usize()).collect();
    let sizes = sizes.filter(|sizes| sizes.len() == x.axes.len()).ok_or("its kernels do not fit its operand")?;
    if let Some(op) = pools::blur(reader, node, &x, &kernels)? {
        return Ok(op);
    }
    let (from, begin, end) = rims(reader, node, &x, Rim::Zeros)?;
    if begin != end {
        return Err(format!("a rim of {begin:?} before and {end:?} behind is not symmetric, and not read"));
    }
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
    let result = reader.push(Kind::Graph(op), vec![from], shape, vec![kernels])?;
    let view = reader.view(result);
    match weight(operands, 2)? {
        None => Ok(view),
        Some(bias) => {
            let bias = vector(bias, out_channels)?;
            with_bias(reader, &view, bias)?.ok_or_else(|| "its third operand is no bias".to_owned())
        }
    }
}
