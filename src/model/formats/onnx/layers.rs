//! Operators that are layers, each in a room of its own; here what they share, and means and maxima.

use super::constant::place_of_axis;
use super::file::FileNode;
use super::operands::{are_positions, integers, live, reduced, switch};
use super::operation::OperationKind;
use super::reader::Reader;
use super::size::shown;
use super::value::OnnxValue;
use super::view::ValueView;
use super::{adaptive, combine, normalise, pools, products, responses, tokens};
use crate::model::graph::Op;

/// The value of an operator that is a layer.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<ValueView, String> {
    match node.op {
        "Gemm" => products::gemm(reader, node, operands),
        "MatMul" => match operands {
            [Some(OnnxValue::Live(x)), Some(OnnxValue::Constant(matrix))] => {
                if let Some(means) = adaptive::along_rows(reader, x, matrix)? {
                    return Ok(means);
                }
                let weight = matrix.transpose(&[1, 0])?;
                products::linear(reader, x, weight)
            }
            [Some(OnnxValue::Constant(matrix)), Some(OnnxValue::Live(x))] => {
                let means = adaptive::along_columns(reader, matrix, x)?;
                means.ok_or_else(|| "a product with a matrix before a value is not read".to_owned())
            }
            _ => Err("a product of these operands is not read".to_owned()),
        },
        "Conv" => products::convolution(reader, node, operands),
        "BatchNormalization" => normalise::batch_norm(reader, node, operands),
        "LayerNormalization" => normalise::layer_norm(reader, node, operands),
        "InstanceNormalization" | "GroupNormalization" => normalise::group_norm(reader, node, operands),
        "MaxPool" | "AveragePool" => pools::windows(reader, node, live(operands)?),
        "GlobalAveragePool" => {
            let x = reader.feature_map(live(operands)?)?;
            mean(reader, &x, &(2..x.axes.len()).collect::<Vec<_>>(), true)
        }
        "GlobalMaxPool" => {
            let x = reader.feature_map(live(operands)?)?;
            pools::global_maximum(reader, &x, &(2..x.axes.len()).collect::<Vec<_>>(), true)
        }
        "ReduceMean" | "ReduceMax" | "ReduceL2" => reduce(reader, node, operands),
        "Pad" => pools::pad(reader, node, operands),
        "Softmax" => softmax(reader, node, live(operands)?),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" => combine::combine(reader, node, operands),
        "Concat" => combine::concat(reader, node, operands),
        op => Err(format!("the operator {op} is not one that is read")),
    }
}

fn softmax(reader: &mut Reader<'_>, node: &FileNode<'_>, x: &ValueView) -> Result<ValueView, String> {
    let axis = place_of_axis(node.integer("axis").unwrap_or(-1), x.axes.len())?;
    if let Some(view) = tokens::probabilities(reader, x, axis)? {
        return Ok(view);
    }
    let x = reader.arrange(x, axis)?;
    let shape = reader.shape(x.node).to_vec();
    let from = reader.settle(x.node)?;
    reader.push(OperationKind::Graph(Op::Softmax), vec![from], shape, Vec::new()).map(|node| x.onto(node))
}

/// A mean, maximum or norm over axes.
fn reduce<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<ValueView, String> {
    let x = live(operands)?;
    let rank = x.axes.len();
    let axes = integers(node, "axes", operands, 1)?.unwrap_or_else(|| (0..rank as i64).collect());
    let axes = axes.iter().map(|axis| place_of_axis(*axis, rank)).collect::<Result<Vec<_>, _>>()?;
    let keep = switch(node, "keepdims", true);
    if x.batch_axis().is_some_and(|batch| axes.contains(&batch)) {
        let detail = "it sums over the examples of a batch, as a BatchNorm without running statistics does: what is computed of one \
                      example would depend on the others";
        return Err(detail.to_owned());
    }
    if node.op == "ReduceL2" {
        return responses::norms(reader, x, &axes, keep);
    }
    if node.op == "ReduceMax" {
        return pools::global_maximum(reader, x, &axes, keep);
    }
    if let ([axis], true) = (&axes[..], keep)
        && x.channel_axis(reader.shape(x.node)) == Some(*axis)
    {
        return normalise::channel_mean(reader, x, *axis);
    }
    mean(reader, x, &axes, keep)
}

/// The mean over all positions.
fn mean(reader: &mut Reader<'_>, x: &ValueView, axes: &[usize], keep: bool) -> Result<ValueView, String> {
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
    let node = reader.push(OperationKind::Graph(op), vec![from], after, Vec::new())?;
    Ok(reduced(x, node, axes, keep, rank))
}
