//! Parts of values: slices, splits, and axes that go.

use super::constant::place_of_axis;
use super::file::FileNode;
use super::operands::{integers, switch};
use super::size::{AxisSize, shown};
use super::value::OnnxValue;
use super::view::ValueView;

/// Most parts that a value is split into.
const MAX_PARTS: usize = 1 << 10;

/// Begins, ends and steps of a Slice, by axis.
pub(super) fn slices(
    node: &FileNode<'_>,
    operands: &[Option<OnnxValue<'_>>],
    rank: usize,
) -> Result<Vec<(usize, i64, i64, i64)>, String> {
    let list = |name: &str, index: usize| integers(node, name, operands, index);
    let missing = || "it does not say what to take".to_owned();
    let (begins, ends) = (list("starts", 1)?.ok_or_else(missing)?, list("ends", 2)?.ok_or_else(missing)?);
    let axes = list("axes", 3)?.unwrap_or_else(|| (0..begins.len() as i64).collect());
    let steps = list("steps", 4)?.unwrap_or_else(|| vec![1; begins.len()]);
    if begins.len() != ends.len() || begins.len() != axes.len() || begins.len() != steps.len() {
        return Err("its lists differ in length".to_owned());
    }
    let each = axes.iter().enumerate();
    each.map(|(index, axis)| Ok((place_of_axis(*axis, rank)?, begins[index], ends[index], steps[index]))).collect()
}

/// Sizes of the parts of a Split.
pub(super) fn parts(
    node: &FileNode<'_>,
    operands: &[Option<OnnxValue<'_>>],
    size: usize,
) -> Result<Vec<usize>, String> {
    let count = node.outputs.len().max(1);
    let sizes: Option<Vec<usize>> = if let Some(sizes) = integers(node, "split", operands, 1)? {
        sizes.iter().map(|size| usize::try_from(*size).ok()).collect()
    } else {
        let each = size.div_ceil(count);
        (0..count).map(|part| size.checked_sub(part * each).map(|rest| rest.min(each))).collect()
    };
    let fits = |sizes: &Vec<usize>| {
        sizes.len() == count && sizes.iter().try_fold(0_usize, |sum, size| sum.checked_add(*size)) == Some(size)
    };
    sizes.filter(fits).ok_or_else(|| format!("its parts do not make the axis of {size}"))
}

/// The parts that a `SplitToSequence` makes.
pub(super) fn parts_of<'a>(
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<Vec<OnnxValue<'a>>, String> {
    let sizes = match operands.first() {
        Some(Some(OnnxValue::Live(view))) => view.sizes(),
        Some(Some(OnnxValue::Constant(constant))) => constant.dims.clone(),
        _ => return Err("it has nothing to split".to_owned()),
    };
    let axis = place_of_axis(node.integer("axis").unwrap_or(0), sizes.len())?;
    let size = sizes[axis].usize().ok_or("the axis depends on the batch")?;
    let split = integers(node, "split", operands, 1)?;
    let too_many = || format!("more than {MAX_PARTS} parts are not read");
    let each = match (split.as_deref(), operands.get(1)) {
        (None, _) if size > MAX_PARTS => return Err(too_many()),
        (None, _) => vec![1; size],
        (Some([one]), Some(Some(OnnxValue::Constant(own)))) if own.dims.is_empty() => {
            let one = usize::try_from(*one).ok().filter(|one| *one > 0).ok_or("a part is empty")?;
            if size.div_ceil(one) > MAX_PARTS {
                return Err(too_many());
            }
            (0..size.div_ceil(one)).map(|part| one.min(size - part * one)).collect()
        }
        (Some(sizes), _) => {
            let sizes: Option<Vec<usize>> = sizes.iter().map(|size| usize::try_from(*size).ok()).collect();
            sizes.ok_or("a part is empty")?
        }
    };
    if each.len() > MAX_PARTS {
        return Err(too_many());
    }
    let drop_axis = split.is_none() && !switch(node, "keepdims", true);
    let mut begin = 0;
    let mut parts = Vec::with_capacity(each.len());
    for size in each {
        let end = begin + size;
        let outside = || "its parts do not make the axis".to_owned();
        parts.push(match &operands[0] {
            Some(OnnxValue::Live(view)) => {
                let part = view.slice(axis, begin, end).ok_or_else(outside)?;
                OnnxValue::Live(if drop_axis { squeeze(&part, Some(vec![axis as i64]))? } else { part })
            }
            Some(OnnxValue::Constant(constant)) => {
                let part = constant.slice(axis, begin, size).ok_or_else(outside)?;
                OnnxValue::Constant(if drop_axis { part.squeeze(Some(&[axis as i64]))? } else { part })
            }
            _ => return Err(outside()),
        });
        begin = end;
    }
    Ok(parts)
}

/// A value without axes of size 1; none named are all of them.
pub(super) fn squeeze(x: &ValueView, axes: Option<Vec<i64>>) -> Result<ValueView, String> {
    let rank = x.axes.len();
    let gone = match axes {
        Some(axes) => axes.iter().map(|axis| place_of_axis(*axis, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).filter(|axis| x.size(*axis) == AxisSize::ONE).collect(),
    };
    if let Some(axis) = gone.iter().find(|axis| !x.axes[**axis].is_empty()) {
        return Err(format!(
            "axis {axis} of {} is taken away, but it is the batch or larger than 1",
            shown(&x.sizes())
        ));
    }
    let kept = x.axes.iter().enumerate().filter(|(axis, _)| !gone.contains(axis)).map(|(_, atoms)| atoms.clone());
    Ok(ValueView { axes: kept.collect(), ..x.clone() })
}
