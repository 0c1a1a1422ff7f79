//! Operators that are layers: products, convolutions, normalisations, pools, sums and products of values.

use super::constant::{Buffer, Constant};
use super::file::FileNode;
use super::functions::Function;
use super::reader::{Kind, Operation, Reader, Rim, Value};
use super::shapes::{integers, switch};
use super::size::{Size, shown};
use super::view::{Place, View};
use super::{pools, tokens};
use crate::model::graph::{Op, Window, Window1d};

/// The value of an operator that is a layer.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<Value<'a>>],
) -> Result<View, String> {
    match node.op {
        "Gemm" => gemm(reader, node, operands),
        "MatMul" => match operands {
            [Some(Value::Live(x)), Some(Value::Constant(matrix))] => {
                let weight = matrix.transpose(&[1, 0])?;
                linear(reader, x, weight)
            }
            _ => Err("a product of these operands is not read".to_owned()),
        },
        "Conv" => convolution(reader, node, operands),
        "BatchNormalization" => batch_norm(reader, node, operands),
        "LayerNormalization" => layer_norm(reader, node, operands),
        "InstanceNormalization" | "GroupNormalization" => group_norm(reader, node, operands),
        "MaxPool" | "AveragePool" => pools::windows(reader, node, live(operands)?),
        "GlobalAveragePool" => {
            let x = reader.feature_map(live(operands)?)?;
            mean(reader, &x, &(2..x.axes.len()).collect::<Vec<_>>(), true)
        }
        "GlobalMaxPool" => {
            let x = reader.feature_map(live(operands)?)?;
            pools::global_maximum(reader, &x, &(2..x.axes.len()).collect::<Vec<_>>(), true)
        }
        "ReduceMean" | "ReduceMax" => reduce(reader, node, operands),
        "Pad" => pools::pad(reader, node, operands),
        "Softmax" => softmax(reader, node, live(operands)?),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" => combine(reader, node, operands),
        "Concat" => concat(reader, node, operands),
        op => Err(format!("the operator {op} is not one that is read")),
    }
}

/// The first operand, which depends on the input.
pub(super) fn live<'b>(operands: &'b [Option<Value<'_>>]) -> Result<&'b View, String> {
    match operands.first() {
        Some(Some(Value::Live(view))) => Ok(view),
        _ => Err("its first operand does not depend on the input, but another does".to_owned()),
    }
}

/// The constant operand at `index`; none where there is none.
pub(super) fn weight<'b, 'a>(
    operands: &'b [Option<Value<'a>>],
    index: usize,
) -> Result<Option<&'b Constant<'a>>, String> {
    match operands.get(index) {
        None | Some(None) => Ok(None),
        Some(Some(Value::Constant(constant))) => Ok(Some(constant)),
        Some(Some(_)) => Err(format!("its operand {index} depends on the input; expected weights")),
    }
}

/// A constant as one value for each of `channels`.
pub(super) fn vector<'a>(constant: &Constant<'a>, channels: usize) -> Result<Constant<'a>, String> {
    let size = Size::of(channels as i64);
    let own = constant.dims.iter().zip(&constant.strides).filter(|(dim, _)| **dim != Size::ONE);
    let own: Vec<_> = own.collect();
    let stride = match own[..] {
        [(dim, stride)] if *dim == size => *stride,
        [] if channels == 1 => 0,
        _ => return Err(format!("expected {channels} values, got {}", shown(&constant.dims))),
    };
    Ok(Constant { dims: vec![size], strides: vec![stride], ..constant.clone() })
}

/// One value for each of `channels`, all the same.
pub(super) fn filled<'a>(channels: usize, value: f64) -> Result<Constant<'a>, String> {
    let one = Constant::of_floats("", vec![Size::ONE], vec![value])?;
    one.reshape(&[])?.expand(&[Size::of(channels as i64)])
}

fn gemm<'a>(reader: &mut Reader<'a>, node: &FileNode<'a>, operands: &[Option<Value<'a>>]) -> Result<View, String> {
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
fn linear<'a>(reader: &mut Reader<'a>, x: &View, matrix: Constant<'a>) -> Result<View, String> {
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
    view.axes[last] = super::view::merged([super::view::Atom::new(0, 1, outputs)]);
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

fn convolution<'a>(
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

fn batch_norm<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<Value<'a>>],
) -> Result<View, String> {
    let x = reader.feature_map(live(operands)?)?;
    if switch(node, "training_mode", false) {
        return Err("it measures each batch; export the network in evaluation mode".to_owned());
    }
    let shape = reader.shape(x.node).to_vec();
    let features = shape[0];
    let mut weights = Vec::with_capacity(4);
    for index in 1..5 {
        weights.push(vector(weight(operands, index)?.ok_or("it lacks a tensor")?, features)?);
    }
    let from = reader.settle(x.node)?;
    let op = Op::BatchNorm { features, eps: node.float("epsilon").unwrap_or(1e-5) };
    reader.push(Kind::Graph(op), vec![from], shape, weights).map(|node| x.onto(node))
}

fn layer_norm<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<Value<'a>>],
) -> Result<View, String> {
    let x = live(operands)?;
    let last = x.axes.len().saturating_sub(1);
    if super::constant::place_of_axis(node.integer("axis").unwrap_or(-1), x.axes.len())? != last {
        return Err("it normalises over more than the last axis".to_owned());
    }
    let x = reader.arrange(x, last)?;
    let shape = reader.shape(x.node).to_vec();
    let features = shape[0];
    let scale = vector(weight(operands, 1)?.ok_or("it has no scale")?, features)?;
    let bias = match weight(operands, 2)? {
        Some(bias) => vector(bias, features)?,
        None => filled(features, 0.0)?,
    };
    let from = reader.settle(x.node)?;
    let op = Op::LayerNorm { features, eps: node.float("epsilon").unwrap_or(1e-5) };
    reader.push(Kind::Graph(op), vec![from], shape, vec![scale, bias]).map(|node| x.onto(node))
}

/// Normalisation of groups: as exporters spell it, over an axis of groups with the factors behind it, or of all channels.
fn group_norm<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<Value<'a>>],
) -> Result<View, String> {
    let x = live(operands)?;
    let eps = node.float("epsilon").unwrap_or(1e-5);
    let (Some(scale), Some(bias)) = (weight(operands, 1)?, weight(operands, 2)?) else {
        return Err("it lacks a scale or a bias".to_owned());
    };
    let shape = reader.shape(x.node).to_vec();
    if let Ok(map) = reader.feature_map(x)
        && reader.shape(map.node) == shape
    {
        let features = shape[0];
        let groups = match node.op {
            "InstanceNormalization" => features,
            _ => usize::try_from(node.integer("num_groups").unwrap_or(0)).unwrap_or(0),
        };
        if groups == 0 || !features.is_multiple_of(groups) {
            return Err(format!("{features} channels do not fall into {groups} groups"));
        }
        let group_width = (groups > 1).then(|| features / groups);
        let weights = vec![vector(scale, features)?, vector(bias, features)?];
        let from = reader.settle(map.node)?;
        let op = Op::GroupNorm { group_width, features, eps };
        return reader.push(Kind::Graph(op), vec![from], shape, weights).map(|node| map.onto(node));
    }
    let misfit = || format!("groups of the form {} are not read", shown(&x.sizes()));
    let all = |constant: &Constant<'_>, value: f64| {
        constant.floats(&reader.tensors).is_ok_and(|values| values.iter().all(|own| *own == value))
    };
    if node.op != "InstanceNormalization" || !all(scale, 1.0) || !all(bias, 0.0) {
        return Err(misfit());
    }
    // N x groups x everything of a group, in its order.
    let in_order = super::view::merged(x.axes.iter().skip(1).flatten().copied()) == super::view::whole(&shape, 0);
    let groups = if x.axes.len() > 1 { x.size(1).usize() } else { None };
    let groups = groups.filter(|groups| shape[0].is_multiple_of(*groups)).ok_or_else(misfit)?;
    if x.batch_axis() != Some(0) || !x.is_whole(&shape) || !in_order {
        return Err(misfit());
    }
    let from = reader.settle(x.node)?;
    let kind = Kind::GroupStandardised { groups, eps };
    reader.push(kind, vec![from], shape, Vec::new()).map(|node| x.onto(node))
}

fn softmax(reader: &mut Reader<'_>, node: &FileNode<'_>, x: &View) -> Result<View, String> {
    let axis = super::constant::place_of_axis(node.integer("axis").unwrap_or(-1), x.axes.len())?;
    if let Some(view) = tokens::probabilities(reader, x, axis)? {
        return Ok(view);
    }
    let x = reader.arrange(x, axis)?;
    let shape = reader.shape(x.node).to_vec();
    let from = reader.settle(x.node)?;
    reader.push(Kind::Graph(Op::Softmax), vec![from], shape, Vec::new()).map(|node| x.onto(node))
}

/// A mean or maximum over axes.
fn reduce<'a>(reader: &mut Reader<'a>, node: &FileNode<'a>, operands: &[Option<Value<'a>>]) -> Result<View, String> {
    let x = live(operands)?;
    let rank = x.axes.len();
    let axes = integers(node, "axes", operands, 1)?.unwrap_or_else(|| (0..rank as i64).collect());
    let axes = axes.iter().map(|axis| super::constant::place_of_axis(*axis, rank)).collect::<Result<Vec<_>, _>>()?;
    let keep = switch(node, "keepdims", true);
    if node.op == "ReduceMax" {
        return pools::global_maximum(reader, x, &axes, keep);
    }
    if let ([axis], true) = (&axes[..], keep)
        && x.channel_axis(reader.shape(x.node)) == Some(*axis)
    {
        return channel_mean(reader, x, *axis);
    }
    mean(reader, x, &axes, keep)
}

/// The value with some axes reduced to one index, or taken away.
pub(super) fn reduced(x: &View, node: usize, axes: &[usize], keep: bool, rank: usize) -> View {
    let left = x.axes.iter().enumerate().filter(|(axis, _)| keep || !axes.contains(axis));
    let left = left.map(|(axis, atoms)| if axes.contains(&axis) { Vec::new() } else { atoms.clone() });
    View { node, axes: left.collect(), starts: vec![0; rank] }
}

/// Whether `axes` count through all positions of a value, and through nothing else.
pub(super) fn are_positions(reader: &Reader<'_>, x: &View, axes: &[usize]) -> bool {
    let is_position = |place: Place| matches!(place, Place::Axis(1..));
    let all = x.axes.iter().enumerate();
    x.is_whole(reader.shape(x.node))
        && all
            .flat_map(|(axis, atoms)| atoms.iter().map(move |atom| (axis, atom)))
            .all(|(axis, atom)| axes.contains(&axis) == is_position(atom.place))
}

/// The mean over all positions.
fn mean(reader: &mut Reader<'_>, x: &View, axes: &[usize], keep: bool) -> Result<View, String> {
    if !are_positions(reader, x, axes) {
        return Err(format!("a mean over the axes {axes:?} of {} is not one over all positions", shown(&x.sizes())));
    }
    let shape = reader.shape(x.node).to_vec();
    let from = reader.settle(x.node)?;
    let (op, after) = match shape[..] {
        [_] => return Ok(reduced(x, from, axes, keep, 1)),
        [channels, _] if !keep => (Op::TokenMean, vec![channels]),
        _ => (Op::GlobalAvgPool2d, [vec![shape[0]], vec![1; shape.len() - 1]].concat()),
    };
    let rank = after.len();
    let node = reader.push(Kind::Graph(op), vec![from], after, Vec::new())?;
    Ok(reduced(x, node, axes, keep, rank))
}

/// A mean over the channels: the beginning of a LayerNorm that is spelled out.
fn channel_mean(reader: &mut Reader<'_>, x: &View, axis: usize) -> Result<View, String> {
    let shape = reader.shape(x.node).to_vec();
    let after = [&[1], &shape[1..]].concat();
    let squares = reader.as_function(x.node, &[-3.0, 0.0, 1.0, 2.0]);
    let (kind, from) = match squares {
        Some((base, values)) if *reader.kind(base) == Kind::Centred && values == [9.0, 0.0, 1.0, 4.0] => {
            (Kind::ChannelVariance, base)
        }
        _ => (Kind::ChannelMean, x.node),
    };
    let node = reader.push(kind, vec![from], after, Vec::new())?;
    Ok(reduced(x, node, &[axis], true, shape.len()))
}

/// A sum, difference, product or quotient of two values, or of a value and a constant.
fn combine<'a>(reader: &mut Reader<'a>, node: &FileNode<'a>, operands: &[Option<Value<'a>>]) -> Result<View, String> {
    match operands {
        [Some(Value::Live(a)), Some(Value::Live(b))] => of_two(reader, node.op, a, b),
        [Some(Value::Live(x)), Some(Value::Constant(c))] => with_constant(reader, node.op, x, c),
        [Some(Value::Constant(c)), Some(Value::Live(x))] if matches!(node.op, "Add" | "Mul") => {
            with_constant(reader, node.op, x, c)
        }
        _ => Err("these operands are not read".to_owned()),
    }
}

/// A constant for each channel, or for each channel of each token.
fn with_constant<'a>(reader: &mut Reader<'a>, op: &str, x: &View, c: &Constant<'a>) -> Result<View, String> {
    let shape = reader.shape(x.node).to_vec();
    let misfit = || format!("a constant of {} meets a value of {}", shown(&c.dims), shown(&x.sizes()));
    let channels = x.channel_axis(&shape).filter(|_| x.is_whole(&shape)).ok_or_else(misfit)?;
    let rank = x.axes.len();
    let first = rank.checked_sub(c.dims.len()).ok_or_else(misfit)?;
    let own = (0..c.dims.len()).filter(|axis| c.dims[*axis] != Size::ONE).map(|axis| axis + first);
    let own: Vec<usize> = own.collect();
    if op == "Add" && own.len() == 2 {
        return tokens::positional_embedding(reader, x, c, &own);
    }
    if own != [channels] {
        return Err(misfit());
    }
    let factors = vector(c, shape[0])?;
    let Operation { kind, inputs, weights, .. } = reader.operations[x.node].clone();
    let with = |weights: Vec<Constant<'a>>| [weights, vec![factors.clone()]].concat();
    let (kind, inputs, weights) = match (op, kind) {
        ("Add", Kind::Graph(_)) => {
            if let Some(view) = with_bias(reader, x, factors.clone())? {
                return Ok(view);
            }
            return affine(reader, op, x, &factors);
        }
        ("Mul", Kind::Standardised { eps }) => (Kind::Scaled { eps }, inputs, with(weights)),
        ("Mul", Kind::GroupStandardised { groups, eps }) => (Kind::GroupScaled { groups, eps }, inputs, with(weights)),
        ("Add", Kind::Scaled { eps }) => {
            (Kind::Graph(Op::LayerNorm { features: shape[0], eps }), inputs, with(weights))
        }
        ("Add", Kind::GroupScaled { groups, eps }) => {
            let group_width = (groups > 1).then(|| shape[0] / groups);
            (Kind::Graph(Op::GroupNorm { group_width, features: shape[0], eps }), inputs, with(weights))
        }
        ("Mul", kind) if kind != Kind::Affine => {
            // As the tensor has them in the file, whatever axes it was given for the product.
            let unit_axes = match c.buffer {
                Buffer::Stored(tensor) => {
                    reader.tensors[tensor].shape.iter().rev().take_while(|axis| **axis == 1).count()
                }
                _ => 0,
            };
            let unit_axes = if unit_axes <= 2 { unit_axes } else { 0 };
            let op = Op::LayerScale { features: shape[0], unit_axes };
            let from = reader.settle(x.node)?;
            let factors = Constant {
                dims: [factors.dims.clone(), vec![Size::ONE; unit_axes]].concat(),
                strides: [factors.strides.clone(), vec![0; unit_axes]].concat(),
                ..factors
            };
            (Kind::Graph(op), vec![from], vec![factors])
        }
        _ => return affine(reader, op, x, &factors),
    };
    reader.push(kind, inputs, shape, weights).map(|node| x.onto(node))
}

/// A factor or summand for each channel, taken together with those before it.
fn affine<'a>(reader: &mut Reader<'a>, op: &str, x: &View, values: &Constant<'a>) -> Result<View, String> {
    let Operation { kind, inputs, shape, weights, .. } = reader.operations[x.node].clone();
    let values = values.floats(&reader.tensors)?;
    let count = values.len();
    let (from, mut factors, mut summands) = match kind {
        Kind::Affine => (inputs[0], weights[0].floats(&reader.tensors)?, weights[1].floats(&reader.tensors)?),
        _ => (reader.settle(x.node)?, vec![1.0; count], vec![0.0; count]),
    };
    for ((factor, summand), value) in factors.iter_mut().zip(&mut summands).zip(values) {
        match op {
            "Add" => *summand += value,
            "Sub" => *summand -= value,
            "Mul" => (*factor, *summand) = (*factor * value, *summand * value),
            "Div" => (*factor, *summand) = (*factor / value, *summand / value),
            _ => return Err(format!("{op} with a constant for each channel is not read")),
        }
    }
    let dims = || vec![Size::of(count as i64)];
    let weights = vec![Constant::of_floats("", dims(), factors)?, Constant::of_floats("", dims(), summands)?];
    reader.push(Kind::Affine, vec![from], shape, weights).map(|node| x.onto(node))
}

/// One of two values, by a condition on a third.
pub(super) fn chosen<'a>(reader: &mut Reader<'a>, operands: &[Option<Value<'a>>]) -> Result<View, String> {
    let [Some(Value::Live(condition)), Some(Value::Live(yes)), Some(Value::Live(no))] = operands else {
        return Err("a choice between these operands is not read".to_owned());
    };
    let shape = reader.shape(condition.node).to_vec();
    let alike = |view: &View| {
        view.axes == condition.axes && view.starts == condition.starts && reader.shape(view.node) == shape
    };
    if !alike(yes) || !alike(no) {
        return Err("a choice between values in different orders is not read".to_owned());
    }
    let inputs = vec![condition.node, yes.node, no.node];
    reader.push(Kind::Function(Function::Choose), inputs, shape, Vec::new()).map(|node| condition.onto(node))
}

fn of_two(reader: &mut Reader<'_>, op: &str, a: &View, b: &View) -> Result<View, String> {
    let function = Function::of_two(op).ok_or_else(|| format!("{op} of two values is not read"))?;
    let (mut a, mut b) = (a.clone(), b.clone());
    let rank = a.axes.len().max(b.axes.len());
    for view in [&mut a, &mut b] {
        let missing = rank - view.axes.len();
        view.axes.splice(0..0, vec![Vec::new(); missing]);
    }
    if let Some(view) = standardised(reader, function, &a, &b)? {
        return Ok(view);
    }
    let alike = |reader: &Reader<'_>, a: &View, b: &View| {
        a.axes == b.axes && a.starts == b.starts && reader.shape(a.node) == reader.shape(b.node)
    };
    if !alike(reader, &a, &b) {
        let channels = a.channel_axis(reader.shape(a.node)).or_else(|| b.channel_axis(reader.shape(b.node)));
        let channels = channels.ok_or_else(|| {
            format!(
                "values of {} and {} are combined, whose channels are on no axis",
                shown(&a.sizes()),
                shown(&b.sizes())
            )
        })?;
        (a, b) = (reader.arrange(&a, channels)?, reader.arrange(&b, channels)?);
    }
    if alike(reader, &a, &b) {
        let shape = reader.shape(a.node).to_vec();
        return reader.push(Kind::Function(function), vec![a.node, b.node], shape, Vec::new()).map(|node| a.onto(node));
    }
    if function != Function::Mul {
        return Err(format!("values of {} and {} are combined", shown(&a.sizes()), shown(&b.sizes())));
    }
    let single = |view: &View| reader.shape(view.node)[1..].iter().all(|axis| *axis == 1);
    let wide = if single(&b) { a.clone() } else { b.clone() };
    let shape = reader.shape(wide.node).to_vec();
    let operands = vec![reader.settle(a.node)?, reader.settle(b.node)?];
    reader.push(Kind::Graph(Op::Multiply), operands, shape, Vec::new()).map(|node| wide.onto(node))
}

/// A step of a LayerNorm that is spelled out: a value without its mean, or that over its deviation.
fn standardised(reader: &mut Reader<'_>, function: Function, a: &View, b: &View) -> Result<Option<View>, String> {
    let shape = reader.shape(a.node).to_vec();
    let Some(channels) = a.channel_axis(&shape) else { return Ok(None) };
    let mut without = a.axes.clone();
    without[channels].clear();
    if b.axes != without || !a.is_whole(&shape) || shape[0] == 1 {
        return Ok(None);
    }
    if function == Function::Sub && *reader.kind(b.node) == Kind::ChannelMean {
        let same = reader.operations[b.node].inputs == [a.node];
        let from = reader.settle(a.node)?;
        return match same {
            true => reader.push(Kind::Centred, vec![from], shape, Vec::new()).map(|node| Some(a.onto(node))),
            false => Err("the mean of another value is taken from this one".to_owned()),
        };
    }
    let xs = [0.0, 0.25, 1.0, 7.0];
    let Some((base, values)) = reader.as_function(b.node, &xs) else { return Ok(None) };
    let of_this = *reader.kind(base) == Kind::ChannelVariance && reader.operations[base].inputs == [a.node];
    if !of_this || *reader.kind(a.node) != Kind::Centred {
        return Ok(None);
    }
    let deviation: Vec<f64> = match function {
        Function::Div => values,
        Function::Mul => values.into_iter().map(|value| 1.0 / value).collect(),
        _ => return Ok(None),
    };
    let eps = (deviation[0].powi(2) * 1e12).round() / 1e12;
    let fits = xs.iter().zip(&deviation).all(|(x, value)| ((x + eps).sqrt() - value).abs() <= 1e-6 * value.abs());
    if !fits {
        return Err("what a value is divided by is not its standard deviation".to_owned());
    }
    let inputs = reader.operations[a.node].inputs.clone();
    reader.push(Kind::Standardised { eps }, inputs, shape, Vec::new()).map(|node| Some(a.onto(node)))
}

fn concat<'a>(reader: &mut Reader<'a>, node: &FileNode<'a>, operands: &[Option<Value<'a>>]) -> Result<View, String> {
    let rank = operands.iter().flatten().find_map(|operand| match operand {
        Value::Live(view) => Some(view.axes.len()),
        _ => None,
    });
    let axis = super::constant::place_of_axis(node.integer("axis").ok_or("it has no axis")?, rank.unwrap_or(0))?;
    let mut views = Vec::with_capacity(operands.len());
    for operand in operands {
        match operand {
            Some(Value::Live(view)) => views.push(view.clone()),
            _ => return tokens::class_tokens(reader, operands, axis),
        }
    }
    if let [only] = &views[..] {
        return Ok(only.clone());
    }
    let views = views.iter().map(|view| reader.arrange(view, axis)).collect::<Result<Vec<_>, _>>()?;
    let first = views[0].clone();
    let rest = reader.shape(first.node)[1..].to_vec();
    let mut channels = 0_usize;
    let mut parts = Vec::with_capacity(views.len());
    for view in &views {
        let shape = reader.shape(view.node);
        if shape[1..] != rest || view.batch_axis() != first.batch_axis() {
            return Err("its operands differ in more than their channels".to_owned());
        }
        channels = channels.saturating_add(shape[0]);
        parts.push(reader.settle(view.node)?);
    }
    let shape = [vec![channels], rest].concat();
    let result = reader.push(Kind::Graph(Op::Concat), parts, shape, Vec::new())?;
    let mut view = first.onto(result);
    view.axes[axis] = super::view::merged([super::view::Atom::new(0, 1, channels)]);
    Ok(view)
}
