//! Operators that are pools, and the rims around what they and convolutions read.

use super::constant::Constant;
use super::file::FileNode;
use super::operands::{are_positions, integers, live, reduced, switch};
use super::operation::{OperationKind, Rim};
use super::reader::Reader;
use super::rims::{Rims, along, among_zeros, rims};
use super::size::shown;
use super::value::OnnxValue;
use super::view::ValueView;
use crate::model::graph::{Op, Window, Window1d};

/// Shape behind a window over an example of `shape`.
pub(super) fn after(shape: &[usize], channels: usize, window: &Window, ceil: bool) -> Result<Vec<usize>, String> {
    let (sequence, before) = match shape[1..] {
        [length] => (true, [1, length]),
        [height, width] => (false, [height, width]),
        _ => return Err(format!("expected a sequence or an image, got an example of {shape:?}")),
    };
    let after = window.output_with(before, ceil).ok_or_else(|| format!("its window does not fit into {before:?}"))?;
    Ok(if sequence { vec![channels, after[1]] } else { vec![channels, after[0], after[1]] })
}

/// A pool over windows.
pub(super) fn windows(reader: &mut Reader<'_>, node: &FileNode<'_>, x: &ValueView) -> Result<ValueView, String> {
    let x = reader.feature_map(x)?;
    match windows_of(reader, node, &x) {
        // Zeros that a pool cannot take in stay around what it reads.
        Err(_) if matches!(reader.kind(x.node), OperationKind::Padded { rim: Rim::Zeros, .. }) => {
            let padded = reader.settle(x.node)?;
            windows_of(reader, node, &reader.view(padded))
        }
        read => read,
    }
}

fn windows_of(reader: &mut Reader<'_>, node: &FileNode<'_>, x: &ValueView) -> Result<ValueView, String> {
    let maximum = node.op == "MaxPool";
    if switch(node, "storage_order", false) {
        return Err("column-major indices are not read".to_owned());
    }
    let counted = switch(node, "count_include_pad", false);
    let ceil = switch(node, "ceil_mode", false);
    let rims = rims(reader, node, x, if maximum { Rim::Lowest } else { Rim::Zeros })?;
    let (from, begin, end) = (rims.from, rims.total(0), rims.total(1));
    let count_include_pad = maximum || counts(&rims, counted, ceil)?;
    let shape = reader.shape(from).to_vec();
    let window = match shape.len() {
        2 => {
            let ([kernel], [stride]) = (along(node, "kernel_shape", 0)?, along(node, "strides", 1)?);
            let [dilation] = along(node, "dilations", 1)?;
            Window::from(Window1d { kernel, stride, padding: begin[0], dilation })
        }
        3 => Window {
            kernel: along(node, "kernel_shape", 0)?,
            stride: along(node, "strides", 1)?,
            padding: [begin[0], begin[1]],
            dilation: along(node, "dilations", 1)?,
        },
        _ => return Err("only one or two axes are pooled".to_owned()),
    };
    // A window that reaches further behind than the rim before is wide is one that hangs over.
    let ceil_mode = ceil || end.iter().zip(&begin).any(|(end, begin)| end > begin);
    let result = after(&shape, shape[0], &window, ceil_mode)?;
    if result[1..] != outputs(&shape[1..], &window, &begin, &end, ceil)? {
        return Err(format!("a rim of {begin:?} before and {end:?} behind is not read"));
    }
    let line = Window1d {
        kernel: window.kernel[1],
        stride: window.stride[1],
        padding: window.padding[1],
        dilation: window.dilation[1],
    };
    let op = match (maximum, shape.len()) {
        (true, 2) => Op::MaxPool1d { window: line, ceil_mode },
        (true, _) => Op::MaxPool2d { window, ceil_mode },
        (false, 2) => Op::AvgPool1d { window: line, ceil_mode, count_include_pad },
        (false, _) => Op::AvgPool2d { window, ceil_mode, count_include_pad },
    };
    let from = reader.settle(from)?;
    let result = reader.push(OperationKind::Graph(op), vec![from], result, Vec::new())?;
    Ok(reader.view(result))
}

/// Whether a mean counts the zeros of its rim, which is as wide behind as before. What lies further behind must not count.
fn counts(rims: &Rims, counted: bool, ceil: bool) -> Result<bool, String> {
    let none = |rim: &[usize]| rim.iter().all(|size| *size == 0);
    let within = |[begin, end]: &[Vec<usize>; 2]| {
        if ceil { begin == end } else { begin.iter().zip(end).all(|(begin, end)| end <= begin) }
    };
    let [outer, own] = [&rims.outer, &rims.own];
    let fits = if none(&outer[0]) && none(&outer[1]) {
        !counted || within(own)
    } else if none(&own[0]) && none(&own[1]) {
        within(outer)
    } else {
        none(&own[0]) && outer[0] == outer[1] && !counted
    };
    if !fits {
        return Err("a rim that counts on one side only is not read".to_owned());
    }
    // Without a rim it is the same, and PyTorch's default.
    Ok(counted || !none(&outer[0]) || none(&own[0]))
}

/// Positions behind a window by ONNX's formula, with rims of their own before and behind each axis.
fn outputs(input: &[usize], window: &Window, begin: &[usize], end: &[usize], ceil: bool) -> Result<Vec<usize>, String> {
    let skipped = 2 - input.len();
    let along = |axis: usize| {
        let (kernel, stride) = (window.kernel[axis + skipped], window.stride[axis + skipped]);
        let span = window.dilation[axis + skipped].checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
        let room = input[axis].checked_add(begin[axis])?.checked_add(end[axis])?.checked_sub(span)?;
        let all = room.checked_div(stride)? + 1;
        // A last window must not begin in the rim behind.
        let more = ceil && !room.is_multiple_of(stride) && all.checked_mul(stride)? < input[axis] + begin[axis];
        Some(all + usize::from(more))
    };
    let all: Option<Vec<usize>> = (0..input.len()).map(along).collect();
    all.ok_or_else(|| "its window does not fit".to_owned())
}

/// The maximum over all positions.
pub(super) fn global_maximum(
    reader: &mut Reader<'_>,
    x: &ValueView,
    axes: &[usize],
    keep: bool,
) -> Result<ValueView, String> {
    let shape = reader.shape(x.node).to_vec();
    if !are_positions(reader, x, axes) || shape.len() != 3 {
        let sizes = shown(&x.sizes());
        return Err(format!("a maximum over the axes {axes:?} of {sizes} is not one over all positions of an image"));
    }
    let from = reader.settle(x.node)?;
    let op = Op::AdaptiveMaxPool2d { output: [1, 1] };
    let node = reader.push(OperationKind::Graph(op), vec![from], vec![shape[0], 1, 1], Vec::new())?;
    Ok(reduced(x, node, axes, keep, 3))
}

/// A value with as many zeros before as behind each axis, and how many there are: what is wider on one side becomes a rim of its own.
pub(super) fn evened(
    reader: &mut Reader<'_>,
    from: usize,
    begin: &[usize],
    end: &[usize],
) -> Result<(usize, Vec<usize>), String> {
    let even: Vec<usize> = begin.iter().zip(end).map(|(begin, end)| *begin.min(end)).collect();
    let rest = |side: &[usize]| -> Vec<usize> { side.iter().zip(&even).map(|(side, even)| side - even).collect() };
    let (begin, end) = (rest(begin), rest(end));
    if begin.iter().chain(&end).all(|pad| *pad == 0) {
        return Ok((from, even));
    }
    let from = reader.settle(from)?;
    let mut shape = reader.shape(from).to_vec();
    for (size, (begin, end)) in shape[1..].iter_mut().zip(begin.iter().zip(&end)) {
        *size = size.checked_add(begin.saturating_add(*end)).ok_or("its pads overflow")?;
    }
    let node = reader.push(OperationKind::Graph(Op::ZeroPad { begin, end }), vec![from], shape, Vec::new())?;
    Ok((node, even))
}

/// A rim around the positions, which what reads it takes in.
pub(super) fn pad<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<ValueView, String> {
    let x = reader.feature_map(live(operands)?)?;
    let shape = reader.shape(x.node).to_vec();
    let rank = x.axes.len();
    let pads = integers(node, "pads", operands, 1)?.ok_or("it has no pads")?;
    let axes = integers(node, "axes", operands, 3)?.unwrap_or_else(|| (0..rank as i64).collect());
    if pads.len() != 2 * axes.len() {
        return Err("its pads are not two for each axis".to_owned());
    }
    let (mut begin, mut end) = (vec![0; rank], vec![0; rank]);
    for (index, axis) in axes.iter().enumerate() {
        let axis = super::constant::place_of_axis(*axis, rank)?;
        let of = |pad: i64| usize::try_from(pad).map_err(|_| "negative pads are not read".to_owned());
        (begin[axis], end[axis]) = (of(pads[index])?, of(pads[index + axes.len()])?);
    }
    if begin.iter().chain(&end).all(|pad| *pad == 0) {
        return Ok(x);
    }
    if [begin[0], end[0]] != [0; 2] {
        return Err("it pads the batch".to_owned());
    }
    let value = match operands.get(2) {
        Some(Some(OnnxValue::Constant(value))) => {
            value.scalar(&reader.tensors).ok_or("its value is no single number")?
        }
        Some(Some(_)) => return Err("its value depends on the input".to_owned()),
        _ => 0.0,
    };
    let rim = match node.text("mode").unwrap_or("constant") {
        "constant" if value == 0.0 => Rim::Zeros,
        "constant" if value == f64::NEG_INFINITY => Rim::Lowest,
        "reflect" => Rim::Reflected,
        mode => return Err(format!("a rim by mode `{mode}` of {value} is not read")),
    };
    let (begin, end, channels) = (begin.split_off(2), end.split_off(2), [begin[1], end[1]]);
    if channels != [0; 2] {
        if rim != Rim::Zeros || begin.iter().chain(&end).any(|pad| *pad > 0) {
            return Err("it pads channels by something else than zeros, or positions with them".to_owned());
        }
        return among_zeros(reader, &x, channels);
    }
    let wide = shape[1..].iter().enumerate().map(|(axis, size)| {
        let sum = size.checked_add(begin[axis]).and_then(|sum| sum.checked_add(end[axis]));
        sum.ok_or("its pads overflow")
    });
    let shape = [vec![shape[0]], wide.collect::<Result<Vec<_>, _>>()?].concat();
    let from = reader.settle(x.node)?;
    let node = reader.push(OperationKind::Padded { begin, end, rim }, vec![from], shape, Vec::new())?;
    Ok(reader.view(node))
}

/// A blur pool: a binomial filter over each channel of an image with a reflected rim. None where the convolution is no such.
pub(super) fn blur<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    x: &ValueView,
    kernels: &Constant<'a>,
) -> Result<Option<ValueView>, String> {
    let OperationKind::Padded { begin, end, rim: Rim::Reflected } = reader.kind(x.node).clone() else {
        return Ok(None);
    };
    let misfit = || "the rim that a Pad reflects around its operand is only read before a binomial filter".to_owned();
    let from = reader.operations[x.node].inputs[0];
    let shape = reader.shape(from).to_vec();
    let sizes: Vec<Option<usize>> = kernels.dims.iter().map(|dim| dim.usize()).collect();
    let [Some(channels), Some(1), Some(kernel), Some(width)] = sizes[..] else { return Err(misfit()) };
    let ([stride, other], dilation) = (along(node, "strides", 1)?, along(node, "dilations", 1)?);
    let rimless = node.integers("pads").is_none_or(|pads| pads.iter().all(|pad| *pad == 0));
    let depthwise = channels == shape[0] && node.integer("group") == Some(channels as i64);
    let op = Op::BlurPool2d { kernel, stride };
    let padding = op.blur().map_or(0, |blur| blur.padding);
    let square = kernel == width && stride == other && dilation == [1, 1] && (2..=64).contains(&kernel);
    let even = begin == [padding; 2] && end == [padding; 2];
    if !(square && even && rimless && depthwise && node.inputs.len() == 2) {
        return Err(misfit());
    }
    let choose = |k: usize| (1..=k).fold(1.0, |all, i| all * (kernel - i) as f64 / i as f64);
    let line: Vec<f64> = (0..kernel).map(|k| choose(k) / 2.0_f64.powi(kernel as i32 - 1)).collect();
    let filter: Vec<f64> = line.iter().flat_map(|a| line.iter().map(move |b| a * b)).collect();
    let own = kernels.floats(&reader.tensors)?;
    if !own.chunks(filter.len()).all(|one| one.iter().zip(&filter).all(|(a, b)| (a - b).abs() <= 1e-6 * b)) {
        return Err(misfit());
    }
    let window = Window::square(kernel, stride, padding);
    let shape = after(&shape, channels, &window, false)?;
    let node = reader.push(OperationKind::Graph(op), vec![from], shape, Vec::new())?;
    Ok(Some(reader.view(node)))
}
