//! Sums, products and lists of values, and of values and constants.

use super::constant::{Buffer, Constant, place_of_axis};
use super::file::FileNode;
use super::functions::ScalarFunction;
use super::operands::vector;
use super::operation::{OperationKind, PlacedOperation};
use super::reader::Reader;
use super::size::{AxisSize, shown};
use super::value::OnnxValue;
use super::view::{Atom, ValueView, merged};
use super::{normalise, products, responses, tokens};
use crate::model::graph::Op;

/// A sum, difference, product or quotient of two values, or of a value and a constant.
pub(super) fn combine<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<ValueView, String> {
    match operands {
        [Some(OnnxValue::Live(a)), Some(OnnxValue::Live(b))] => of_two(reader, node.op, a, b),
        [Some(OnnxValue::Live(x)), Some(OnnxValue::Constant(c))] => with_constant(reader, node.op, x, c),
        [Some(OnnxValue::Constant(c)), Some(OnnxValue::Live(x))] if matches!(node.op, "Add" | "Mul") => {
            with_constant(reader, node.op, x, c)
        }
        _ => Err("these operands are not read".to_owned()),
    }
}

/// A constant for each channel, or for each channel of each token.
fn with_constant<'a>(reader: &mut Reader<'a>, op: &str, x: &ValueView, c: &Constant<'a>) -> Result<ValueView, String> {
    let shape = reader.shape(x.node).to_vec();
    let misfit = || format!("a constant of {} meets a value of {}", shown(&c.dims), shown(&x.sizes()));
    let channels = x.channel_axis(&shape).filter(|_| x.is_whole(&shape)).ok_or_else(misfit)?;
    let rank = x.axes.len();
    let first = rank.checked_sub(c.dims.len()).ok_or_else(misfit)?;
    let own = (0..c.dims.len()).filter(|axis| c.dims[*axis] != AxisSize::ONE).map(|axis| axis + first);
    let own: Vec<usize> = own.collect();
    if op == "Add" && own.len() == 2 {
        return tokens::positional_embedding(reader, x, c, &own);
    }
    if own != [channels] {
        return Err(misfit());
    }
    let factors = vector(c, shape[0])?;
    let PlacedOperation { kind, inputs, weights, .. } = reader.operations[x.node].clone();
    let with = |weights: Vec<Constant<'a>>| [weights, vec![factors.clone()]].concat();
    let (kind, inputs, weights) = match (op, kind) {
        ("Add", OperationKind::Graph(_)) => {
            if let Some(view) = products::with_bias(reader, x, factors.clone())? {
                return Ok(view);
            }
            return affine(reader, op, x, &factors);
        }
        ("Mul", OperationKind::Standardised { eps }) => (OperationKind::Scaled { eps }, inputs, with(weights)),
        ("Mul", OperationKind::GroupStandardised { groups, eps }) => {
            (OperationKind::GroupScaled { groups, eps }, inputs, with(weights))
        }
        ("Mul", OperationKind::Responses { eps }) => (OperationKind::ScaledResponses { eps }, inputs, with(weights)),
        ("Add", OperationKind::ScaledResponses { eps }) => {
            (OperationKind::ShiftedResponses { eps }, inputs, with(weights))
        }
        ("Add", OperationKind::Scaled { eps }) => {
            (OperationKind::Graph(Op::LayerNorm { features: shape[0], eps }), inputs, with(weights))
        }
        ("Add", OperationKind::GroupScaled { groups, eps }) => {
            let group_width = (groups > 1).then(|| shape[0] / groups);
            (OperationKind::Graph(Op::GroupNorm { group_width, features: shape[0], eps }), inputs, with(weights))
        }
        ("Mul", kind) if kind != OperationKind::Affine => {
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
                dims: [factors.dims.clone(), vec![AxisSize::ONE; unit_axes]].concat(),
                strides: [factors.strides.clone(), vec![0; unit_axes]].concat(),
                ..factors
            };
            (OperationKind::Graph(op), vec![from], vec![factors])
        }
        _ => return affine(reader, op, x, &factors),
    };
    reader.push(kind, inputs, shape, weights).map(|node| x.onto(node))
}

/// A factor or summand for each channel, taken together with those before it.
fn affine<'a>(reader: &mut Reader<'a>, op: &str, x: &ValueView, values: &Constant<'a>) -> Result<ValueView, String> {
    let PlacedOperation { kind, inputs, shape, weights, .. } = reader.operations[x.node].clone();
    let values = values.floats(&reader.tensors)?;
    let count = values.len();
    let (from, mut factors, mut summands) = match kind {
        OperationKind::Affine => (inputs[0], weights[0].floats(&reader.tensors)?, weights[1].floats(&reader.tensors)?),
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
    let dims = || vec![AxisSize::of(count as i64)];
    let weights = vec![Constant::of_floats("", dims(), factors)?, Constant::of_floats("", dims(), summands)?];
    reader.push(OperationKind::Affine, vec![from], shape, weights).map(|node| x.onto(node))
}

/// One of two values, by a condition on a third.
pub(super) fn chosen<'a>(reader: &mut Reader<'a>, operands: &[Option<OnnxValue<'a>>]) -> Result<ValueView, String> {
    let [Some(OnnxValue::Live(condition)), Some(OnnxValue::Live(yes)), Some(OnnxValue::Live(no))] = operands else {
        return Err("a choice between these operands is not read".to_owned());
    };
    let shape = reader.shape(condition.node).to_vec();
    let alike = |view: &ValueView| {
        view.axes == condition.axes && view.starts == condition.starts && reader.shape(view.node) == shape
    };
    if !alike(yes) || !alike(no) {
        return Err("a choice between values in different orders is not read".to_owned());
    }
    let inputs = vec![condition.node, yes.node, no.node];
    reader
        .push(OperationKind::ScalarFunction(ScalarFunction::Choose), inputs, shape, Vec::new())
        .map(|node| condition.onto(node))
}

fn of_two(reader: &mut Reader<'_>, op: &str, a: &ValueView, b: &ValueView) -> Result<ValueView, String> {
    let function = ScalarFunction::of_two(op).ok_or_else(|| format!("{op} of two values is not read"))?;
    let (mut a, mut b) = (a.clone(), b.clone());
    let rank = a.axes.len().max(b.axes.len());
    for view in [&mut a, &mut b] {
        let missing = rank - view.axes.len();
        view.axes.splice(0..0, vec![Vec::new(); missing]);
    }
    if function == ScalarFunction::Mul {
        // A factor that is repeated along an axis is one for the whole axis.
        let repeats = |atoms: &Vec<Atom>| !atoms.is_empty() && atoms.iter().all(|atom| atom.stride == 0);
        for (a, b) in a.axes.iter_mut().zip(&mut b.axes) {
            match (repeats(a), repeats(b)) {
                (true, false) => a.clear(),
                (false, true) => b.clear(),
                _ => {}
            }
        }
    }
    if let Some(view) = responses::step(reader, function, &a, &b)? {
        return Ok(view);
    }
    if let Some(view) = normalise::standardised(reader, function, &a, &b)? {
        return Ok(view);
    }
    let alike = |reader: &Reader<'_>, a: &ValueView, b: &ValueView| {
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
        return reader
            .push(OperationKind::ScalarFunction(function), vec![a.node, b.node], shape, Vec::new())
            .map(|node| a.onto(node));
    }
    if function != ScalarFunction::Mul {
        return Err(format!("values of {} and {} are combined", shown(&a.sizes()), shown(&b.sizes())));
    }
    let single = |view: &ValueView| reader.shape(view.node)[1..].iter().all(|axis| *axis == 1);
    let wide = if single(&b) { a.clone() } else { b.clone() };
    let shape = reader.shape(wide.node).to_vec();
    let operands = vec![reader.settle(a.node)?, reader.settle(b.node)?];
    reader.push(OperationKind::Graph(Op::Multiply), operands, shape, Vec::new()).map(|node| wide.onto(node))
}

pub(super) fn concat<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<ValueView, String> {
    let rank = operands.iter().flatten().find_map(|operand| match operand {
        OnnxValue::Live(view) => Some(view.axes.len()),
        _ => None,
    });
    let axis = place_of_axis(node.integer("axis").ok_or("it has no axis")?, rank.unwrap_or(0))?;
    let mut views = Vec::with_capacity(operands.len());
    for operand in operands {
        match operand {
            Some(OnnxValue::Live(view)) => views.push(view.clone()),
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
    let result = reader.push(OperationKind::Graph(Op::Concat), parts, shape, Vec::new())?;
    let mut view = first.onto(result);
    view.axes[axis] = merged([Atom::new(0, 1, channels)]);
    Ok(view)
}
