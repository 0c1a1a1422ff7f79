//! Adaptive mean pools as PyTorch's newer exporter writes them where parts overlap or differ in size: the pixels of each part are taken by
//! their indices (`GatherND`), those that are too many become 0, the rest are summed and divided by their number. Read as what it
//! computes: for each place a sum of an image's pixels with factors, the same for all channels.

use std::rc::Rc;

use super::constant::{Constant, MAX_AXES, MAX_SMALL, place_of_axis};
use super::file::FileNode;
use super::operands::{integers, switch};
use super::operation::OperationKind;
use super::reader::Reader;
use super::size::AxisSize;
use super::sums::{PixelSums, Sum, reduced};
use super::value::OnnxValue;
use super::view::{Atom, ValueView, ViewAxis, merged};
use crate::model::graph::Op;

/// An operator that takes pixels, or computes with those that were taken; none where it is no such.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<Option<ValueView>, String> {
    if let ("GatherND", [Some(OnnxValue::Live(x)), Some(OnnxValue::Constant(indices))]) = (node.op, operands) {
        return taken(reader, node, x, indices).map(Some);
    }
    let of = |operand: &Option<OnnxValue<'a>>| match operand {
        Some(OnnxValue::Live(view)) => pixels_of(reader, view),
        _ => None,
    };
    let (image, result) = match (node.op, operands) {
        ("Where", [Some(OnnxValue::Constant(mask)), Some(OnnxValue::Constant(zero)), x]) => {
            let Some((image, pixels)) = of(x) else { return Ok(None) };
            if zero.scalar(&reader.tensors) != Some(0.0) {
                return Err("pixels are only replaced by 0".to_owned());
            }
            let mask = along(&pixels, mask, reader)?;
            let kept = |(sum, hidden): (&Sum, f64)| if hidden == 0.0 { sum.clone() } else { Vec::new() };
            let sums = pixels.sums.iter().zip(mask).map(kept).collect();
            (image, PixelSums { sums, ..(*pixels).clone() })
        }
        ("Gather", [x, Some(OnnxValue::Constant(index))]) => {
            let Some((image, pixels)) = of(x) else { return Ok(None) };
            let axis = position(place_of_axis(node.integer("axis").unwrap_or(0), pixels.dims.len() + 2)?)?;
            let [index] = index.integers()?[..] else { return Err("it takes several indices of an axis".to_owned()) };
            let index = place_of_axis(index, pixels.dims[axis])?;
            (image, reduced(&pixels, &[axis], |_| index..index + 1, 1.0))
        }
        ("ReduceMean", [x, ..]) => {
            let Some((image, pixels)) = of(x) else { return Ok(None) };
            let axes = integers(node, "axes", operands, 1)?.ok_or("it takes the mean over the channels too")?;
            let axes = axes.iter().map(|axis| position(place_of_axis(*axis, pixels.dims.len() + 2)?));
            let axes = axes.collect::<Result<Vec<_>, _>>()?;
            if switch(node, "keepdims", true) {
                return Err("means of pixels are only read where their axes go".to_owned());
            }
            let count: usize = axes.iter().map(|axis| pixels.dims[*axis]).product();
            let dims = pixels.dims.clone();
            (image, reduced(&pixels, &axes, move |axis| 0..dims[axis], 1.0 / count.max(1) as f64))
        }
        ("Add", [a, b]) => {
            let (Some((image, pixels)), Some((other_image, others))) = (of(a), of(b)) else { return Ok(None) };
            if image != other_image || pixels.dims != others.dims {
                return Err("pixels of different images or places are summed".to_owned());
            }
            let sums = pixels.sums.iter().zip(&others.sums).map(|(a, b)| [&a[..], b].concat()).collect();
            (image, PixelSums { sums, ..(*pixels).clone() })
        }
        ("Div", [x, Some(OnnxValue::Constant(count))]) => {
            let Some((image, pixels)) = of(x) else { return Ok(None) };
            let counts = along(&pixels, count, reader)?;
            let divided = |(sum, count): (&Sum, f64)| sum.iter().map(|(pixel, own)| (*pixel, own / count)).collect();
            let sums = pixels.sums.iter().zip(counts).map(divided).collect();
            (image, PixelSums { sums, ..(*pixels).clone() })
        }
        _ => return Ok(None),
    };
    placed(reader, image, result).map(Some)
}

/// The sums that a value is, and their image, where it is such in its own order.
fn pixels_of(reader: &Reader<'_>, view: &ValueView) -> Option<(usize, Rc<PixelSums>)> {
    let OperationKind::PixelSums(pixels) = reader.kind(view.node) else { return None };
    (*view == reader.view(view.node)).then(|| (reader.operations[view.node].inputs[0], Rc::clone(pixels)))
}

/// The axis of positions that `axis` is, behind the batch and the channels.
fn position(axis: usize) -> Result<usize, String> {
    axis.checked_sub(2).ok_or_else(|| "pixels are taken apart by examples or channels".to_owned())
}

/// A constant's value at each place.
fn along(pixels: &PixelSums, constant: &Constant<'_>, reader: &Reader<'_>) -> Result<Vec<f64>, String> {
    let dims: Vec<AxisSize> = pixels.dims.iter().map(|len| AxisSize::of(*len as i64)).collect();
    if constant.dims.len() > dims.len() {
        return Err("a constant of examples or channels meets pixels".to_owned());
    }
    constant.expand(&dims)?.floats(&reader.tensors)
}

/// Pixels of an image, whose rows and columns are the first axes, by their indices.
fn taken<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    x: &ValueView,
    indices: &Constant<'a>,
) -> Result<ValueView, String> {
    let misfit = || "it takes something else than the pixels of an image by constant rows and columns".to_owned();
    let shape = reader.shape(x.node).to_vec();
    let [channels, height, width] = shape[..] else { return Err(misfit()) };
    let axis = |axis: usize, size: usize| merged([Atom::new(axis, 1, size)]);
    let [rows, columns, examples, own] = &x.axes[..] else { return Err(misfit()) };
    let is_image = *rows == axis(1, height) && *columns == axis(2, width) && *own == axis(0, channels);
    let is_batch = matches!(examples[..], [Atom { place: ViewAxis::Batch, .. }]);
    let dims: Option<Vec<usize>> = indices.dims.iter().map(|dim| dim.usize()).collect();
    let dims = dims.and_then(|dims| Some((dims.last().copied()?, dims[..dims.len() - 1].to_vec())));
    let Some((2, dims)) = dims.filter(|_| is_image && is_batch && node.integer("batch_dims").unwrap_or(0) == 0) else {
        return Err(misfit());
    };
    if dims.len() + 2 > MAX_AXES || dims.contains(&0) {
        return Err(misfit());
    }
    let pixel = |pair: &[f64]| {
        let place =
            |at: f64, size: usize| if at.fract() == 0.0 { place_of_axis(at as i64, size) } else { Err(misfit()) };
        Ok(vec![(place(pair[0], height)? * width + place(pair[1], width)?, 1.0)])
    };
    let sums = indices.floats(&reader.tensors)?.chunks_exact(2).map(pixel).collect::<Result<_, String>>()?;
    let rank = dims.len();
    let image = reader.settle(x.node)?;
    let view = placed(reader, image, PixelSums { dims, sums })?;
    let order: Vec<usize> = (2..rank + 2).chain([0, 1]).collect();
    view.transpose(&order).ok_or_else(misfit)
}

/// The value of sums of an image's pixels.
fn placed(reader: &mut Reader<'_>, image: usize, pixels: PixelSums) -> Result<ValueView, String> {
    let [channels, height, width] = reader.shape(image)[..] else { return Err("it is no image".to_owned()) };
    reader.take(pixels.terms() + pixels.sums.len())?;
    if pixels.terms() > MAX_SMALL {
        return Err(format!("more than {MAX_SMALL} pixels are summed"));
    }
    let shape = [&[channels], &pixels.dims[..]].concat();
    let kind = match pixels.dims[..] {
        [rows, columns] if pixels.are_means(height, width) => {
            OperationKind::Graph(Op::AdaptiveAvgPool2d { output: [rows, columns] })
        }
        _ => OperationKind::PixelSums(Rc::new(pixels)),
    };
    let node = reader.push(kind, vec![image], shape, Vec::new())?;
    Ok(reader.view(node))
}
