//! Global response normalisation (ConvNeXt V2), which is always spelled out: norms over all positions, over their mean, as factors of the
//! value itself, with a factor and a summand for each channel, and the value added.

use super::functions::ScalarFunction;
use super::operands::{are_positions, reduced};
use super::operation::OperationKind;
use super::reader::Reader;
use super::size::shown;
use super::view::ValueView;
use crate::model::graph::Op;

/// The L2 norm of each channel over all positions.
pub(super) fn norms(reader: &mut Reader<'_>, x: &ValueView, axes: &[usize], keep: bool) -> Result<ValueView, String> {
    let shape = reader.shape(x.node).to_vec();
    if !are_positions(reader, x, axes) || shape.len() < 2 {
        let sizes = shown(&x.sizes());
        return Err(format!("a norm over the axes {axes:?} of {sizes} is not one over all positions"));
    }
    let after = [vec![shape[0]], vec![1; shape.len() - 1]].concat();
    let node = reader.push(OperationKind::Norms, vec![x.node], after, Vec::new())?;
    Ok(reduced(x, node, axes, keep, shape.len()))
}

/// A step of the normalisation between two values; none where it is no such step.
pub(super) fn step(
    reader: &mut Reader<'_>,
    function: ScalarFunction,
    a: &ValueView,
    b: &ValueView,
) -> Result<Option<ValueView>, String> {
    match function {
        ScalarFunction::Div => shares(reader, a, b),
        ScalarFunction::Mul => Ok(responses(reader, a, b)?.or(responses(reader, b, a)?)),
        ScalarFunction::Add => Ok(sum(reader, a, b)?.or(sum(reader, b, a)?)),
        _ => Ok(None),
    }
}

/// Norms over their mean plus eps.
fn shares(reader: &mut Reader<'_>, norms: &ValueView, mean: &ValueView) -> Result<Option<ValueView>, String> {
    if *reader.kind(norms.node) != OperationKind::Norms {
        return Ok(None);
    }
    let xs = [0.0, 1.0, 0.25, 1e3];
    let Some((base, values)) = reader.as_function(mean.node, &xs) else { return Ok(None) };
    let of_these = *reader.kind(base) == OperationKind::ChannelMean && reader.operations[base].inputs == [norms.node];
    let eps = values[0];
    let fits = xs.iter().zip(&values).all(|(x, value)| (x + eps - value).abs() <= 1e-9 * value.abs());
    if !of_these || !fits || eps < 0.0 {
        return Ok(None);
    }
    // As it was written, in 32 bits.
    let eps = super::file::shortest(eps as f32);
    let (inputs, shape) = (reader.operations[norms.node].inputs.clone(), reader.shape(norms.node).to_vec());
    reader.push(OperationKind::NormShares { eps }, inputs, shape, Vec::new()).map(|node| Some(norms.onto(node)))
}

/// A value times the shares of its own norms.
fn responses(reader: &mut Reader<'_>, x: &ValueView, shares: &ValueView) -> Result<Option<ValueView>, String> {
    let OperationKind::NormShares { eps } = *reader.kind(shares.node) else { return Ok(None) };
    if reader.operations[shares.node].inputs != [x.node] {
        return Ok(None);
    }
    let shape = reader.shape(x.node).to_vec();
    reader.push(OperationKind::Responses { eps }, vec![x.node], shape, Vec::new()).map(|node| Some(x.onto(node)))
}

/// The whole normalisation, where what it is of is added at last.
fn sum(reader: &mut Reader<'_>, x: &ValueView, shifted: &ValueView) -> Result<Option<ValueView>, String> {
    let OperationKind::ShiftedResponses { eps } = *reader.kind(shifted.node) else { return Ok(None) };
    if reader.operations[shifted.node].inputs != [x.node] || x.axes != shifted.axes {
        return Ok(None);
    }
    let (weights, shape) = (reader.operations[shifted.node].weights.clone(), reader.shape(x.node).to_vec());
    let from = reader.settle(x.node)?;
    let op = Op::GlobalResponseNorm { features: shape[0], eps };
    let node = reader.push(OperationKind::Graph(op), vec![from], shape, weights)?;
    // Where the weights came in says more of the module.
    reader.operations[node].origin = reader.operations[shifted.node].origin;
    Ok(Some(x.onto(node)))
}
