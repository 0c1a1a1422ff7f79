//! Normalisations, whole and spelled out.

use super::constant::{Constant, place_of_axis};
use super::file::FileNode;
use super::functions::ScalarFunction;
use super::names::of_module;
use super::operands::{live, reduced, switch, vector, weight};
use super::operation::OperationKind;
use super::reader::Reader;
use super::size::{AxisSize, shown};
use super::value::OnnxValue;
use super::view::{ValueView, merged, whole};
use crate::model::graph::Op;

pub(super) fn batch_norm<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<ValueView, String> {
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
    // Without learned factors exporters write ones and zeros, which belong to no tensor of the module.
    let repeats = |index: usize, value: f64| -> Result<bool, String> {
        let own: &Constant<'_> = &weights[index];
        Ok(of_module(own).is_none() && own.floats(&reader.tensors)?.iter().all(|own| own.to_bits() == value.to_bits()))
    };
    let affine = !(repeats(0, 1.0)? && repeats(1, 0.0)?);
    if !affine {
        weights.drain(..2);
    }
    let from = reader.settle(x.node)?;
    let op = Op::BatchNorm { affine, features, eps: node.float("epsilon").unwrap_or(1e-5) };
    reader.push(OperationKind::Graph(op), vec![from], shape, weights).map(|node| x.onto(node))
}

pub(super) fn layer_norm<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<ValueView, String> {
    let x = live(operands)?;
    let last = x.axes.len().saturating_sub(1);
    if place_of_axis(node.integer("axis").unwrap_or(-1), x.axes.len())? != last {
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
    reader.push(OperationKind::Graph(op), vec![from], shape, vec![scale, bias]).map(|node| x.onto(node))
}

/// Normalisation of groups: as exporters spell it, over an axis of groups with the factors behind it, or of all channels.
pub(super) fn group_norm<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<ValueView, String> {
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
        return reader.push(OperationKind::Graph(op), vec![from], shape, weights).map(|node| map.onto(node));
    }
    let misfit = || format!("groups of the form {} are not read", shown(&x.sizes()));
    let all = |constant: &Constant<'_>, value: f64| {
        constant.floats(&reader.tensors).is_ok_and(|values| values.iter().all(|own| own.to_bits() == value.to_bits()))
    };
    if node.op != "InstanceNormalization" || !all(scale, 1.0) || !all(bias, 0.0) {
        return Err(misfit());
    }
    // N x groups x everything of a group, in its order.
    let in_order = merged(x.axes.iter().skip(1).flatten().copied()) == whole(&shape, 0);
    let groups = if x.axes.len() > 1 { x.size(1).usize() } else { None };
    let groups = groups.filter(|groups| shape[0].is_multiple_of(*groups)).ok_or_else(misfit)?;
    if x.batch_axis() != Some(0) || !x.is_whole(&shape) || !in_order {
        return Err(misfit());
    }
    let from = reader.settle(x.node)?;
    let kind = OperationKind::GroupStandardised { groups, eps };
    reader.push(kind, vec![from], shape, Vec::new()).map(|node| x.onto(node))
}

/// A mean over the channels: the beginning of a LayerNorm that is spelled out.
pub(super) fn channel_mean(reader: &mut Reader<'_>, x: &ValueView, axis: usize) -> Result<ValueView, String> {
    let shape = reader.shape(x.node).to_vec();
    let after = [&[1], &shape[1..]].concat();
    let xs: [f64; 8] = [-3.0, 0.0, 1.0, 2.0, 1e-3, 500.0, -1e5, 1e12];
    let squares = reader.as_function(x.node, &xs);
    let are_squares = |values: &[f64]| xs.iter().zip(values).all(|(x, value)| (value - x * x).abs() <= 1e-9 * x * x);
    let (kind, from) = match squares {
        Some((base, values)) if *reader.kind(base) == OperationKind::Centred && are_squares(&values) => {
            (OperationKind::ChannelVariance, base)
        }
        _ => (OperationKind::ChannelMean, x.node),
    };
    let node = reader.push(kind, vec![from], after, Vec::new())?;
    Ok(reduced(x, node, &[axis], true, shape.len()))
}

/// A step of a LayerNorm that is spelled out: a value without its mean, or that over its deviation.
pub(super) fn standardised(
    reader: &mut Reader<'_>,
    function: ScalarFunction,
    a: &ValueView,
    b: &ValueView,
) -> Result<Option<ValueView>, String> {
    let shape = reader.shape(a.node).to_vec();
    let Some(channels) = a.channel_axis(&shape) else { return Ok(None) };
    let mut without = a.axes.clone();
    without[channels].clear();
    if b.axes != without || !a.is_whole(&shape) || shape[0] == 1 {
        return Ok(None);
    }
    if function == ScalarFunction::Sub && *reader.kind(b.node) == OperationKind::ChannelMean {
        let same = reader.operations[b.node].inputs == [a.node];
        let from = reader.settle(a.node)?;
        if !same {
            return Err("the mean of another value is taken from this one".to_owned());
        }
        return reader.push(OperationKind::Centred, vec![from], shape, Vec::new()).map(|node| Some(a.onto(node)));
    }
    let xs = [0.0, 1e-4, 0.25, 1.0, 7.0, 1e6, 1e12];
    let Some((base, values)) = reader.as_function(b.node, &xs) else { return Ok(None) };
    let of_this = *reader.kind(base) == OperationKind::ChannelVariance && reader.operations[base].inputs == [a.node];
    if !of_this || *reader.kind(a.node) != OperationKind::Centred {
        return Ok(None);
    }
    let deviation: Vec<f64> = match function {
        ScalarFunction::Div => values,
        ScalarFunction::Mul => values.into_iter().map(|value| 1.0 / value).collect(),
        _ => return Ok(None),
    };
    let eps = (deviation[0].powi(2) * 1e12).round() / 1e12;
    let fits = xs.iter().zip(&deviation).all(|(x, value)| ((x + eps).sqrt() - value).abs() <= 1e-6 * value.abs());
    if !fits {
        return Err("what a value is divided by is not its standard deviation".to_owned());
    }
    let inputs = reader.operations[a.node].inputs.clone();
    reader.push(OperationKind::Standardised { eps }, inputs, shape, Vec::new()).map(|node| Some(a.onto(node)))
}

/// One value for each of `channels`, all the same.
fn filled<'a>(channels: usize, value: f64) -> Result<Constant<'a>, String> {
    let one = Constant::of_floats("", vec![AxisSize::ONE], vec![value])?;
    one.reshape(&[])?.expand(&[AxisSize::of(channels as i64)])
}
