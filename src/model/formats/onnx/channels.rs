//! Linear maps over channels that are no layers: choices and orders of channels (splits and shuffles) and sums of neighbours (efficient
//! channel attention) become layers at every position, with matrices that are computed here.

use super::constant::Constant;
use super::file::FileNode;
use super::operation::OperationKind;
use super::reader::Reader;
use super::rims::along;
use super::size::AxisSize;
use super::view::{Atom, ValueView, ViewAxis, merged, whole};
use crate::model::graph::{Op, Window, Window1d};

/// What computed matrices are called, and layers with them.
pub(super) const CHOICE: &str = "choice";
/// What computed factors and summands are called, and layers with them.
pub(super) const AFFINE: &str = "affine";
/// Most elements of all matrices that are computed here.
const MAX_MATRICES: usize = 1 << 24;
/// Most channels of a choice.
const MAX_CHOSEN: usize = 1 << 14;

/// The channels of a value that are some of an operation's, or all of them in another order; none where it is no such value. The axis
/// `channels` is theirs.
pub(super) fn chosen(reader: &mut Reader<'_>, view: &ValueView, channels: usize) -> Result<Option<ValueView>, String> {
    let shape = reader.shape(view.node).to_vec();
    let Some(batch) = view.batch_axis().filter(|batch| *batch != channels) else { return Ok(None) };
    let positions = (0..view.axes.len()).filter(|axis| *axis != batch && *axis != channels);
    let positions = merged(positions.flat_map(|axis| view.axes[axis].iter().copied()));
    let fits = positions == whole(&shape, 1) && view.starts[1..].iter().all(|start| *start == 0);
    let Some(places) = places(view, channels, shape[0]).filter(|_| fits) else { return Ok(None) };
    count(reader, places.len().saturating_mul(shape[0]))?;
    let mut matrix = vec![0.0; places.len() * shape[0]];
    for (row, place) in matrix.chunks_exact_mut(shape[0]).zip(&places) {
        row[*place] = 1.0;
    }
    let node = layer(reader, view.node, places.len(), matrix, None)?;
    let mut chosen = view.onto(node);
    chosen.axes[channels] = merged([Atom::new(0, 1, places.len())]);
    chosen.starts.fill(0);
    reader.arrange(&chosen, channels).map(Some)
}

/// Which channel each index of an axis counts, where it counts channels and nothing else.
fn places(view: &ValueView, axis: usize, channels: usize) -> Option<Vec<usize>> {
    let atoms = view.axes.get(axis)?;
    let count = AxisSize::product(atoms.iter().map(|atom| atom.size))?.usize().filter(|count| *count <= MAX_CHOSEN)?;
    let mut places = vec![*view.starts.first()?];
    for atom in atoms {
        let size = atom.size.usize().filter(|_| atom.place == ViewAxis::Axis(0))?;
        places = places.iter().flat_map(|begin| (0..size).map(move |at| begin + at * atom.stride)).collect();
    }
    (places.len() == count && places.iter().all(|place| *place < channels)).then_some(places)
}

/// A convolution over the channels of a value with a single position, N x 1 x C: each channel's sum of its neighbours. None where it
/// is no such convolution.
pub(super) fn neighbours<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    x: &ValueView,
    kernels: &Constant<'a>,
    bias: Option<&Constant<'a>>,
) -> Result<Option<ValueView>, String> {
    let shape = reader.shape(x.node).to_vec();
    let channels = shape[0];
    let single = shape[1..].iter().all(|axis| *axis == 1) && channels > 1 && x.is_whole(&shape);
    let over_channels = x.axes.len() == 3 && x.batch_axis() == Some(0) && x.channel_axis(&shape) == Some(2);
    let sizes: Vec<Option<usize>> = kernels.dims.iter().map(|dim| dim.usize()).collect();
    let [Some(1), Some(1), Some(size)] = sizes[..] else { return Ok(None) };
    let plain = along(node, "strides", 1)? == [1]
        && along(node, "dilations", 1)? == [1]
        && node.text("auto_pad").is_none_or(|pad| pad == "NOTSET");
    let [begin, end] = along(node, "pads", 0)?;
    if !single || !over_channels || !plain || begin + end + 1 != size {
        return Ok(None);
    }
    count(reader, channels.saturating_mul(channels))?;
    let factors = kernels.floats(&reader.tensors)?;
    let mut matrix = vec![0.0; channels * channels];
    for (at, row) in matrix.chunks_exact_mut(channels).enumerate() {
        for (offset, factor) in factors.iter().enumerate() {
            if let Some(value) = (at + offset).checked_sub(begin).and_then(|place| row.get_mut(place)) {
                *value = *factor;
            }
        }
    }
    let bias = bias.map(|bias| bias.scalar(&reader.tensors).ok_or("its bias is no single number")).transpose()?;
    let node = layer(reader, x.node, channels, matrix, bias.map(|bias| vec![bias; channels]))?;
    Ok(Some(x.onto(node)))
}

/// Counts elements of matrices that are computed.
fn count(reader: &mut Reader<'_>, elements: usize) -> Result<(), String> {
    reader.matrices = reader.matrices.saturating_add(elements);
    if reader.matrices <= MAX_MATRICES {
        return Ok(());
    }
    Err(format!(
        "choices and neighbours of so many channels would be matrices of more than {MAX_MATRICES} elements together"
    ))
}

/// A layer at every position of the operation `from`, with a matrix of as many columns as that has channels.
fn layer(
    reader: &mut Reader<'_>,
    from: usize,
    outputs: usize,
    matrix: Vec<f64>,
    bias: Option<Vec<f64>>,
) -> Result<usize, String> {
    let from = reader.settle(from)?;
    let shape = reader.shape(from).to_vec();
    let (inputs, has_bias) = (shape[0], bias.is_some());
    let size = |size: usize| AxisSize::of(size as i64);
    let dims = [vec![size(outputs), size(inputs)], vec![AxisSize::ONE; shape.len() - 1]].concat();
    let line = Window1d { kernel: 1, stride: 1, padding: 0, dilation: 1 };
    let op = match shape.len() {
        1 => Op::Linear { in_features: inputs, out_features: outputs, bias: has_bias },
        2 => Op::Conv1d { in_channels: inputs, out_channels: outputs, group_width: None, window: line, bias: has_bias },
        _ => Op::conv2d(inputs, outputs, Window::square(1, 1, 0), has_bias),
    };
    let bias = bias.map(|bias| Constant::of_floats(CHOICE, vec![size(outputs)], bias)).transpose()?;
    let weights = std::iter::once(Constant::of_floats(CHOICE, dims, matrix)?).chain(bias).collect();
    reader.push(OperationKind::Graph(op), vec![from], [&[outputs], &shape[1..]].concat(), weights)
}

/// Every so many positions of a value: a mean over windows of one position. None where a Slice takes anything else.
pub(super) fn every_few(
    reader: &mut Reader<'_>,
    x: &ValueView,
    slices: &[(usize, i64, i64, i64)],
) -> Result<Option<ValueView>, String> {
    let rank = x.axes.len();
    let mut strides = vec![1; rank];
    for (axis, begin, end, step) in slices {
        let Some(size) = x.size(*axis).usize() else {
            if (*begin, *step) == (0, 1) && *end >= i64::from(i32::MAX) {
                continue;
            }
            return Ok(None);
        };
        let covers =
            *begin == 0 && *step >= 1 && (*end >= size as i64 || (*end > 0 && *end > (size as i64 - 1) / step * step));
        match usize::try_from(*step) {
            Ok(step) if covers && (*axis > 1 || step == 1) => strides[*axis] = step,
            _ => return Ok(None),
        }
    }
    if strides.iter().all(|stride| *stride == 1) || x.batch_axis() != Some(0) {
        return Ok(None);
    }
    let map = reader.feature_map(x)?;
    let mut from = reader.settle(map.node)?;
    let op = match strides[2..] {
        [stride] => {
            let window = Window1d { kernel: 1, stride, padding: 0, dilation: 1 };
            Op::AvgPool1d { window, ceil_mode: false, count_include_pad: true }
        }
        [height, width] => {
            let mut stride = [height, width];
            // One axis after the other is both at once.
            if let OperationKind::Graph(Op::AvgPool2d {
                window: Window { kernel: [1, 1], padding: [0, 0], stride: first, .. },
                ..
            }) = reader.kind(from)
            {
                stride = [0, 1].map(|axis| stride[axis].saturating_mul(first[axis]));
                from = reader.operations[from].inputs[0];
            }
            Op::avg_pool2d(Window { kernel: [1, 1], stride, padding: [0, 0], dilation: [1, 1] })
        }
        _ => return Ok(None),
    };
    let shape = reader.shape(from).to_vec();
    let window = op.pool().ok_or("it is no pool")?.window;
    let after = super::pools::after(&shape, shape[0], &window, false)?;
    let node = reader.push(OperationKind::Graph(op), vec![from], after, Vec::new())?;
    Ok(Some(reader.view(node)))
}
