//! Sizes of windows and the rims around what they slide over.

use super::file::FileNode;
use super::operation::{OperationKind, Rim};
use super::reader::Reader;
use super::view::ValueView;
use crate::model::graph::Op;

/// The sizes of a window's attribute along each of `axes` axes.
pub(super) fn along<const N: usize>(node: &FileNode<'_>, name: &str, default: usize) -> Result<[usize; N], String> {
    let Some(sizes) = node.integers(name) else { return Ok([default; N]) };
    let sizes: Option<Vec<usize>> = sizes.iter().map(|size| usize::try_from(*size).ok()).collect();
    let sizes = sizes.and_then(|sizes| <[usize; N]>::try_from(sizes).ok());
    sizes.ok_or_else(|| format!("expected {N} sizes as `{name}`"))
}

/// The rims, before and behind each axis, that make as many positions as steps fit into `input`.
fn same<const N: usize>(node: &FileNode<'_>, input: [usize; N], upper: bool) -> Result<[Vec<usize>; 2], String> {
    if node.integers("kernel_shape").is_none() {
        return Err("it has `auto_pad` and no `kernel_shape`".to_owned());
    }
    let kernel: [usize; N] = along(node, "kernel_shape", 1)?;
    let (strides, dilations): ([usize; N], [usize; N]) = (along(node, "strides", 1)?, along(node, "dilations", 1)?);
    let (mut begin, mut end) = (Vec::with_capacity(N), Vec::with_capacity(N));
    for axis in 0..N {
        let steps =
            input[axis].checked_add(strides[axis].saturating_sub(1)).and_then(|all| all.checked_div(strides[axis]));
        let reach = steps.and_then(|steps| steps.checked_sub(1)).and_then(|steps| steps.checked_mul(strides[axis]));
        let span = kernel[axis].checked_sub(1).and_then(|taps| taps.checked_mul(dilations[axis]));
        let all = reach.zip(span).and_then(|(reach, span)| reach.checked_add(span)?.checked_add(1));
        let all = all.ok_or("its window is empty or too large")?.saturating_sub(input[axis]);
        let (less, more) = (all / 2, all.div_ceil(2));
        let (before, behind) = if upper { (less, more) } else { (more, less) };
        begin.push(before);
        end.push(behind);
    }
    Ok([begin, end])
}

/// The rims around the positions that an operator reads.
pub(super) struct Rims {
    /// The value without the rim that a Pad has put around it.
    pub(super) from: usize,
    /// Before and behind each axis, of the Pad.
    pub(super) outer: [Vec<usize>; 2],
    /// The same, of the operator itself.
    pub(super) own: [Vec<usize>; 2],
}

impl Rims {
    /// Both together.
    pub(super) fn total(&self, side: usize) -> Vec<usize> {
        self.outer[side].iter().zip(&self.own[side]).map(|(outer, own)| outer.saturating_add(*own)).collect()
    }
}

/// The rims that an operator reads; a Pad's must be of the kind `accepted`.
pub(super) fn rims(reader: &Reader<'_>, node: &FileNode<'_>, x: &ValueView, accepted: Rim) -> Result<Rims, String> {
    let axes = reader.shape(x.node).len() - 1;
    let pads: Option<Vec<usize>> = match node.text("auto_pad") {
        Some("VALID") => Some(Vec::new()),
        None | Some("NOTSET" | "") => {
            let pads = node.integers("pads").unwrap_or_default();
            pads.iter().map(|pad| usize::try_from(*pad).ok()).collect()
        }
        Some(side @ ("SAME_UPPER" | "SAME_LOWER")) => {
            let upper = side == "SAME_UPPER";
            Some(match reader.shape(x.node)[1..] {
                [length] => same(node, [length], upper)?.concat(),
                [height, width] => same(node, [height, width], upper)?.concat(),
                _ => return Err("expected a sequence or an image".to_owned()),
            })
        }
        Some(other) => return Err(format!("auto_pad `{other}` is not read; export with explicit pads")),
    };
    let own = match pads {
        Some(pads) if pads.is_empty() => [vec![0; axes], vec![0; axes]],
        Some(pads) if pads.len() == 2 * axes => [pads[..axes].to_vec(), pads[axes..].to_vec()],
        _ => return Err("its pads are negative or not two for each axis".to_owned()),
    };
    match reader.kind(x.node) {
        OperationKind::Padded { begin, end, rim } if *rim == accepted => {
            Ok(Rims { from: reader.operations[x.node].inputs[0], outer: [begin.clone(), end.clone()], own })
        }
        OperationKind::Padded { .. } => {
            Err("the rim that a Pad has put around its operand is not read here".to_owned())
        }
        _ => Ok(Rims { from: x.node, outer: [vec![0; axes], vec![0; axes]], own }),
    }
}

/// A value with channels of zeros before and behind its own.
pub(super) fn among_zeros(
    reader: &mut Reader<'_>,
    x: &ValueView,
    [before, behind]: [usize; 2],
) -> Result<ValueView, String> {
    let from = reader.settle(x.node)?;
    let shape = reader.shape(from).to_vec();
    let mut zeros = |features: usize| -> Result<Option<usize>, String> {
        let shape = [&[features], &shape[1..]].concat();
        let kind = OperationKind::Graph(Op::Zeros { features });
        (features > 0).then(|| reader.push(kind, vec![from], shape, Vec::new())).transpose()
    };
    let parts: Vec<usize> = zeros(before)?.into_iter().chain([from]).chain(zeros(behind)?).collect();
    let channels = [before, shape[0], behind].iter().try_fold(0_usize, |sum, part| sum.checked_add(*part));
    let shape = [&[channels.ok_or("its pads overflow")?], &shape[1..]].concat();
    let node = reader.push(OperationKind::Graph(Op::Concat), parts, shape, Vec::new())?;
    Ok(reader.view(node))
}
