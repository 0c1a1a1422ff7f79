//! Operands of operators: live ones, weights, and axes that are positions.

use super::constant::Constant;
use super::file::FileNode;
use super::reader::Reader;
use super::size::{AxisSize, shown};
use super::value::OnnxValue;
use super::view::{ValueView, ViewAxis};

/// The first operand, which depends on the input.
pub(super) fn live<'b>(operands: &'b [Option<OnnxValue<'_>>]) -> Result<&'b ValueView, String> {
    match operands.first() {
        Some(Some(OnnxValue::Live(view))) => Ok(view),
        _ => Err("its first operand does not depend on the input, but another does".to_owned()),
    }
}

/// The constant operand at `index`; none where there is none.
pub(super) fn weight<'b, 'a>(
    operands: &'b [Option<OnnxValue<'a>>],
    index: usize,
) -> Result<Option<&'b Constant<'a>>, String> {
    match operands.get(index) {
        None | Some(None) => Ok(None),
        Some(Some(OnnxValue::Constant(constant))) => Ok(Some(constant)),
        Some(Some(_)) => Err(format!("its operand {index} depends on the input; expected weights")),
    }
}

/// A constant as one value for each of `channels`.
pub(super) fn vector<'a>(constant: &Constant<'a>, channels: usize) -> Result<Constant<'a>, String> {
    let size = AxisSize::of(channels as i64);
    let own = constant.dims.iter().zip(&constant.strides).filter(|(dim, _)| **dim != AxisSize::ONE);
    let own: Vec<_> = own.collect();
    let stride = match own[..] {
        [(dim, stride)] if *dim == size => *stride,
        [] if channels == 1 => 0,
        _ => return Err(format!("expected {channels} values, got {}", shown(&constant.dims))),
    };
    Ok(Constant { dims: vec![size], strides: vec![stride], ..constant.clone() })
}

/// The value with some axes reduced to one index, or taken away.
pub(super) fn reduced(x: &ValueView, node: usize, axes: &[usize], keep: bool, rank: usize) -> ValueView {
    let left = x.axes.iter().enumerate().filter(|(axis, _)| keep || !axes.contains(axis));
    let left = left.map(|(axis, atoms)| if axes.contains(&axis) { Vec::new() } else { atoms.clone() });
    ValueView { node, axes: left.collect(), starts: vec![0; rank] }
}

/// Whether `axes` count through all positions of a value, and through nothing else.
pub(super) fn are_positions(reader: &Reader<'_>, x: &ValueView, axes: &[usize]) -> bool {
    let is_position = |place: ViewAxis| matches!(place, ViewAxis::Axis(1..));
    let all = x.axes.iter().enumerate();
    x.is_whole(reader.shape(x.node))
        && all
            .flat_map(|(axis, atoms)| atoms.iter().map(move |atom| (axis, atom)))
            .all(|(axis, atom)| axes.contains(&axis) == is_position(atom.place))
}

/// Integers of an attribute, or of the constant operand at `index`; none where there is neither.
pub(super) fn integers(
    node: &FileNode<'_>,
    attribute: &str,
    operands: &[Option<OnnxValue<'_>>],
    index: usize,
) -> Result<Option<Vec<i64>>, String> {
    match (node.integers(attribute), operands.get(index)) {
        (Some(values), _) => Ok(Some(values.to_vec())),
        (None, Some(Some(OnnxValue::Constant(values)))) => values.integers().map(Some),
        (None, Some(Some(_))) => Err(format!("its `{attribute}` depend on the input")),
        (None, _) => Ok(None),
    }
}

/// Whether an attribute that is a switch is on.
pub(super) fn switch(node: &FileNode<'_>, name: &str, default: bool) -> bool {
    node.integer(name).map_or(default, |value| value != 0)
}
