//! Operators of transformers: attention as exporters spell it, class tokens, positional embeddings.

use super::constant::{Buffer, Constant};
use super::file::FileNode;
use super::operation::{OperationKind, PlacedOperation};
use super::reader::Reader;
use super::size::{AxisSize, shown};
use super::value::OnnxValue;
use super::view::{Atom, ValueView, ViewAxis, merged};
use crate::model::graph::{Op, Projections};

/// The value of an operator that is a part of an attention; none where it is none of these.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<Option<ValueView>, String> {
    match (node.op, operands) {
        ("MatMul", [Some(OnnxValue::Live(a)), Some(OnnxValue::Live(b))]) => match reader.kind(a.node) {
            OperationKind::Probabilities => mixed(reader, a, b).map(Some),
            _ => scores(reader, a, b).map(Some),
        },
        (
            "Attention",
            [Some(OnnxValue::Live(query)), Some(OnnxValue::Live(key)), Some(OnnxValue::Live(value)), rest @ ..],
        ) => {
            if rest.iter().any(Option::is_some) || node.integer("is_causal").unwrap_or(0) != 0 || query.axes.len() != 4
            {
                return Err("masks, caches and operands of three axes are not read".to_owned());
            }
            let key = key.transpose(&[0, 1, 3, 2]).ok_or("its keys have not four axes")?;
            let products = scores(reader, query, &key)?;
            if let (Some(scale), OperationKind::Scores { width, starts, factor }) =
                (node.float("scale"), reader.kind(products.node).clone())
            {
                reader.operations[products.node].kind = OperationKind::Scores { width, starts, factor: factor * scale };
            } else if let OperationKind::Scores { width, starts, factor } = reader.kind(products.node).clone() {
                let factor = factor / (width as f64).sqrt();
                reader.operations[products.node].kind = OperationKind::Scores { width, starts, factor };
            }
            let weights = probabilities(reader, &products, 3)?.ok_or("its scores are not read")?;
            mixed(reader, &weights, value).map(Some)
        }
        _ => Ok(None),
    }
}

/// How one operand of a product of heads lies: number of heads, width of a head, tokens.
struct Heads {
    count: usize,
    width: usize,
    tokens: usize,
}

/// The heads of a value whose axes before the last two are examples and heads, in this order; `tokens` and `channels` are its
/// last two axes. The value may be a part of its operation's channels.
fn heads(reader: &Reader<'_>, x: &ValueView, tokens: usize, channels: usize) -> Option<Heads> {
    let [_, length] = reader.shape(x.node)[..] else { return None };
    let outer = merged(x.axes[..x.axes.len() - 2].iter().flatten().copied());
    let (examples, by_head) = outer.split_first()?;
    let width = x.size(channels).usize()?;
    let count = match by_head {
        [] => 1,
        [Atom { place: ViewAxis::Axis(0), stride, size }] if *stride == width => size.usize()?,
        _ => return None,
    };
    let fits = examples.place == ViewAxis::Batch
        && x.axes[channels] == merged([Atom::new(0, 1, width)])
        && x.axes[tokens] == merged([Atom::new(1, 1, length)])
        && x.starts[1] == 0;
    fits.then_some(Heads { count, width, tokens: length })
}

/// Products of queries and keys.
fn scores(reader: &mut Reader<'_>, query: &ValueView, key: &ValueView) -> Result<ValueView, String> {
    let misfit = || {
        let (a, b) = (shown(&query.sizes()), shown(&key.sizes()));
        format!("a product of values of {a} and {b} is none of an attention's queries and keys")
    };
    let rank = query.axes.len();
    if rank < 3 || key.axes.len() != rank || query.axes[..rank - 2] != key.axes[..rank - 2] {
        return Err(misfit());
    }
    let of_query = heads(reader, query, rank - 2, rank - 1).ok_or_else(misfit)?;
    let of_key = heads(reader, key, rank - 1, rank - 2).ok_or_else(misfit)?;
    let Heads { count, width, tokens } = of_query;
    if (of_key.count, of_key.width, of_key.tokens) != (count, width, tokens) {
        return Err(misfit());
    }
    let multiple = |reader: &Reader<'_>, node: usize| {
        reader.as_multiple(node).ok_or_else(|| "queries or keys are changed before they meet".to_owned())
    };
    let ((from_query, by_query), (from_key, by_key)) = (multiple(reader, query.node)?, multiple(reader, key.node)?);
    let kind = OperationKind::Scores { width, starts: [query.starts[0], key.starts[0]], factor: by_query * by_key };
    let shape = vec![count, tokens, tokens];
    let node = reader.push(kind, vec![from_query, from_key], shape, Vec::new())?;
    let mut view = ValueView { node, axes: query.axes.clone(), starts: vec![0; 3] };
    for atom in view.axes.iter_mut().take(rank - 2).flatten().filter(|atom| atom.place != ViewAxis::Batch) {
        *atom = Atom { stride: 1, ..*atom };
    }
    view.axes[rank - 2] = merged([Atom::new(1, 1, tokens)]);
    view.axes[rank - 1] = merged([Atom::new(2, 1, tokens)]);
    Ok(view)
}

/// The softmax of scores over all keys; none where the value is no scores.
pub(super) fn probabilities(reader: &mut Reader<'_>, x: &ValueView, axis: usize) -> Result<Option<ValueView>, String> {
    let Some((base, factor)) = reader.as_multiple(x.node) else { return Ok(None) };
    let OperationKind::Scores { width, factor: inner, .. } = *reader.kind(base) else { return Ok(None) };
    let shape = reader.shape(base).to_vec();
    let expected = 1.0 / (width as f64).sqrt();
    let total = factor * inner;
    if (total - expected).abs() > 1e-6 * expected {
        return Err(format!(
            "the scores are scaled by {total}; an attention of heads of {width} channels has {expected}"
        ));
    }
    if axis + 1 != x.axes.len() || x.axes[axis] != merged([Atom::new(2, 1, shape[2])]) || !x.is_whole(&shape) {
        return Err("the softmax is not one over an attention's keys".to_owned());
    }
    reader.push(OperationKind::Probabilities, vec![base], shape, Vec::new()).map(|node| Some(x.onto(node)))
}

/// Values mixed by probabilities.
fn mixed(reader: &mut Reader<'_>, weights: &ValueView, value: &ValueView) -> Result<ValueView, String> {
    let misfit = || {
        let (a, b) = (shown(&weights.sizes()), shown(&value.sizes()));
        format!("a product of probabilities of {a} and values of {b} is no attention")
    };
    let rank = value.axes.len();
    if rank < 3 {
        return Err(misfit());
    }
    let shape = reader.shape(weights.node).to_vec();
    let Heads { count, width, tokens } = heads(reader, value, rank - 2, rank - 1).ok_or_else(misfit)?;
    let mut outer = value.axes[..rank - 2].to_vec();
    for atom in outer.iter_mut().flatten().filter(|atom| atom.place != ViewAxis::Batch) {
        *atom = Atom { stride: 1, ..*atom };
    }
    let last = |place: usize| merged([Atom::new(place, 1, tokens)]);
    let expected = [outer, vec![last(1), last(2)]].concat();
    if weights.axes != expected || shape != [count, tokens, tokens] {
        return Err(misfit());
    }
    let scores = reader.operations[weights.node].inputs[0];
    let PlacedOperation { kind: OperationKind::Scores { starts, .. }, inputs, .. } = reader.operations[scores].clone()
    else {
        return Err(misfit());
    };
    let kind = OperationKind::Mixed { heads: count, starts: [starts[0], starts[1], value.starts[0]] };
    let inputs = vec![inputs[0], inputs[1], value.node];
    let channels = count.checked_mul(width).ok_or_else(misfit)?;
    let node = reader.push(kind, inputs, vec![channels, tokens], Vec::new())?;
    let mut view = ValueView { node, starts: vec![0; 2], ..value.clone() };
    view.axes[rank - 1] = merged([Atom::new(0, 1, width)]);
    Ok(view)
}

/// An attention, from its mixed values and the matrix of its output, without that matrix's bias.
pub(super) fn attention<'a>(
    reader: &mut Reader<'a>,
    mixed: usize,
    output: Constant<'a>,
    outputs: usize,
) -> Result<usize, String> {
    let PlacedOperation { kind: OperationKind::Mixed { heads, starts }, inputs, shape, .. } =
        reader.operations[mixed].clone()
    else {
        return Err("it is no attention".to_owned());
    };
    let features = shape[0];
    let misfit = || {
        "queries, keys and values of an attention are expected to be products of the same value with matrices of as many \
         channels as it has"
            .to_owned()
    };
    let mut sources = Vec::with_capacity(3);
    let mut projections: Vec<(Constant<'a>, Option<Constant<'a>>)> = Vec::with_capacity(3);
    for (node, start) in inputs.iter().zip(starts) {
        let PlacedOperation {
            kind: OperationKind::Graph(Op::Linear { in_features, bias, .. }), inputs, weights, ..
        } = &reader.operations[*node]
        else {
            return Err(misfit());
        };
        if *in_features != features {
            return Err(misfit());
        }
        sources.push(inputs[0]);
        let rows = |constant: &Constant<'a>| constant.slice(0, start, features).ok_or_else(misfit);
        let vector = if *bias { Some(rows(&weights[1])?) } else { None };
        projections.push((rows(&weights[0])?, vector));
    }
    let biased = projections[0].1.is_some();
    if sources.iter().any(|source| *source != sources[0])
        || projections.iter().any(|(_, bias)| bias.is_some() != biased)
        || outputs != features
        || reader.shape(sources[0]) != shape
    {
        return Err(misfit());
    }
    let packed = inputs.iter().all(|node| *node == inputs[0])
        && starts == [0, features, 2 * features]
        && reader.shape(inputs[0])[0] == 3 * features;
    let (mut weights, parts, names) = if packed {
        (reader.operations[inputs[0]].weights.clone(), vec![inputs[0]], Projections::torch())
    } else {
        let (matrices, vectors): (Vec<_>, Vec<_>) = projections.into_iter().unzip();
        let vectors: Vec<_> = vectors.into_iter().flatten().collect();
        match (rejoined(&matrices), rejoined(&vectors)) {
            (Some(matrix), Some(vector)) => (vec![matrix, vector], vec![inputs[0]], Projections::torch()),
            (Some(matrix), None) if vectors.is_empty() => (vec![matrix], vec![inputs[0]], Projections::torch()),
            _ => ([matrices, vectors].concat(), inputs.clone(), Projections::hugging_face()),
        }
    };
    weights.push(output);
    let op = Op::Attention { features, heads, projections: names, bias: biased, output_bias: false };
    let node = reader.push(OperationKind::Graph(op), vec![sources[0]], shape, weights)?;
    reader.operations[node].parts = parts;
    Ok(node)
}

/// The tensor whose rows these three are, one after another.
fn rejoined<'a>(thirds: &[Constant<'a>]) -> Option<Constant<'a>> {
    let [first, second, third] = thirds else { return None };
    let rows = first.dims.first()?;
    let step = rows.usize()?.checked_mul(*first.strides.first()?)?;
    let follows = |next: &Constant<'_>, times: usize| {
        (&next.dims, &next.strides, &next.buffer) == (&first.dims, &first.strides, &first.buffer)
            && Some(next.offset) == step.checked_mul(times).and_then(|step| first.offset.checked_add(step))
    };
    let mut whole = first.clone();
    whole.dims[0] = rows.times(AxisSize::of(3))?;
    (matches!(first.buffer, Buffer::Stored(_)) && follows(second, 1) && follows(third, 2)).then_some(whole)
}

/// A value as tokens, N x T x C in some order: one axis of tokens.
fn as_tokens(reader: &mut Reader<'_>, x: &ValueView) -> Result<(ValueView, usize), String> {
    let channels = x.channel_axis(reader.shape(x.node));
    let channels =
        channels.ok_or_else(|| format!("the channels of a value of {} are on no axis", shown(&x.sizes())))?;
    let x = reader.arrange(x, channels)?;
    if reader.shape(x.node).len() != 2 {
        return Err(format!("expected tokens, N x T x C, got a value of {}", shown(&x.sizes())));
    }
    Ok((x, channels))
}

/// Whether a constant is the same for each index of an axis.
fn is_same_for_all(reader: &Reader<'_>, constant: &Constant<'_>, axis: usize) -> bool {
    if constant.strides[axis] == 0 || constant.dims[axis] == AxisSize::ONE {
        return true;
    }
    let values = |at: usize| constant.slice(axis, at, 1).and_then(|one| one.floats(&reader.tensors).ok());
    let first = values(0);
    first.is_some() && constant.dims[axis].usize().is_some_and(|count| (1..count).all(|at| values(at) == first))
}

/// Learned tokens before the others.
pub(super) fn class_tokens<'a>(
    reader: &mut Reader<'a>,
    operands: &[Option<OnnxValue<'a>>],
    axis: usize,
) -> Result<ValueView, String> {
    let misfit = || "constants are only put before tokens, one at a time, for each example alike".to_owned();
    let [constants @ .., Some(OnnxValue::Live(x))] = operands else { return Err(misfit()) };
    let (mut x, channels) = as_tokens(reader, x)?;
    if axis == channels || Some(axis) == x.batch_axis() {
        return Err(misfit());
    }
    for constant in constants.iter().rev() {
        let Some(OnnxValue::Constant(token)) = constant else { return Err(misfit()) };
        let [features, tokens] = [0, 1].map(|axis: usize| reader.shape(x.node)[axis]);
        let fits = token.dims.len() == 3
            && (0..3).all(|own| match own {
                own if own == channels => token.dims[own] == AxisSize::of(features as i64),
                own if own == axis => token.dims[own] == AxisSize::ONE,
                own => token.dims[own] == x.size(own) && is_same_for_all(reader, token, own),
            });
        if !fits {
            return Err(misfit());
        }
        let values = Constant {
            dims: vec![AxisSize::ONE, AxisSize::ONE, AxisSize::of(features as i64)],
            strides: vec![0, 0, token.strides[channels]],
            ..token.clone()
        };
        let from = reader.settle(x.node)?;
        let op = Op::ClassToken { features };
        let node = reader.push(OperationKind::Graph(op), vec![from], vec![features, tokens + 1], vec![values])?;
        x = x.onto(node);
        x.axes[axis] = merged([Atom::new(1, 1, tokens + 1)]);
    }
    Ok(x)
}

/// A learned value for each channel of each token; `own` are the two axes of the value that it has.
pub(super) fn positional_embedding<'a>(
    reader: &mut Reader<'a>,
    x: &ValueView,
    c: &Constant<'a>,
    own: &[usize],
) -> Result<ValueView, String> {
    let (x, channels) = as_tokens(reader, x)?;
    let misfit = || format!("a constant of {} is added to tokens of {}", shown(&c.dims), shown(&x.sizes()));
    let first = x.axes.len() - c.dims.len();
    let tokens = own.iter().copied().find(|axis| *axis != channels).ok_or_else(misfit)?;
    if !own.contains(&channels)
        || Some(tokens) == x.batch_axis()
        || own.iter().any(|axis| c.dims[*axis - first] != x.size(*axis))
    {
        return Err(misfit());
    }
    let shape = reader.shape(x.node).to_vec();
    let values = Constant {
        dims: vec![AxisSize::ONE, AxisSize::of(shape[1] as i64), AxisSize::of(shape[0] as i64)],
        strides: vec![0, c.strides[tokens - first], c.strides[channels - first]],
        ..c.clone()
    };
    let from = reader.settle(x.node)?;
    let op = Op::PositionalEmbedding { tokens: shape[1], features: shape[0] };
    reader.push(OperationKind::Graph(op), vec![from], shape, vec![values]).map(|node| x.onto(node))
}
