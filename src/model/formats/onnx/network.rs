//! From what was read to a graph: what the output depends on, in order, under the names of modules.

use std::collections::{BTreeMap, BTreeSet};

use super::OnnxModel;
use super::channels::{AFFINE, CHOICE};
use super::constant::{Buffer, Constant, row_major};
use super::error::OnnxError;
use super::file_tensor::TensorElements;
use super::names::{common, of_graph, of_module, of_scope, of_tensor};
use super::numbers::bytes;
use super::operation::{OperationKind, PlacedOperation};
use super::reader::{Reader, fault};
use crate::model::formats::layout::{TensorEntry, TensorPlace};
use crate::model::graph::{Graph, Node, NodeId, Op, Projections};
use crate::model::header::Dtype;
use crate::model::parameters;

/// The network whose output is the operation `output`.
pub(super) fn build(reader: &Reader<'_>, output: usize) -> Result<OnnxModel, OnnxError> {
    let order = needed(reader, output);
    let weights = order.iter().flat_map(|id| &reader.operations[*id].weights);
    let known = weights.filter_map(|constant| of_module(constant).or_else(|| of_tensor(constant))).collect();
    let mut namer = Namer { reader, known, taken: BTreeSet::from(["input".to_owned()]), counts: BTreeMap::new() };
    // Modules first: their tensors have names already.
    let mut names: BTreeMap<usize, (String, Op)> = BTreeMap::new();
    for id in &order {
        let operation = &reader.operations[*id];
        let OperationKind::Graph(op) = &operation.kind else { return Err(unfinished(reader, operation)) };
        if op.has_parameters() {
            names.insert(*id, namer.module(operation, op));
        }
    }
    for id in &order {
        let operation = &reader.operations[*id];
        if let (false, OperationKind::Graph(op)) = (names.contains_key(id), &operation.kind) {
            let name = if matches!(op, Op::Input { .. }) { "input".to_owned() } else { namer.plain(operation, op) };
            names.insert(*id, (name, op.clone()));
        }
    }
    let places: BTreeMap<usize, usize> = order.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let (mut nodes, mut tensors) = (Vec::with_capacity(order.len()), Vec::new());
    for id in &order {
        let operation = &reader.operations[*id];
        let Some((name, op)) = names.remove(id) else { continue };
        let inputs = operation.inputs.iter().filter_map(|input| places.get(input).copied().map(NodeId)).collect();
        let node = Node { name, op, inputs };
        let fail = |detail| fault(&reader.file.nodes[operation.origin], detail);
        let wanted = parameters::of_node(&node);
        if wanted.len() != operation.weights.len() {
            return Err(fail("its tensors are not those of the operation".to_owned()));
        }
        for (parameter, constant) in wanted.into_iter().zip(&operation.weights) {
            tensors.push(entry(reader, parameter.name, &parameter.shape, constant).map_err(fail)?);
        }
        nodes.push(node);
    }
    Ok(OnnxModel { graph: Graph::new(nodes)?, tensors })
}

/// What the output depends on, operands before their users.
fn needed(reader: &Reader<'_>, output: usize) -> Vec<usize> {
    let mut needed = BTreeSet::new();
    let mut open = vec![output];
    while let Some(id) = open.pop() {
        if needed.insert(id) {
            open.extend(&reader.operations[id].inputs);
        }
    }
    // The input may be unread, and is a network's first node all the same.
    needed.insert(0);
    needed.into_iter().collect()
}

/// A part of an operation whose other parts did not come.
fn unfinished(reader: &Reader<'_>, operation: &PlacedOperation<'_>) -> OnnxError {
    let what = match operation.kind {
        OperationKind::Padded { .. } => {
            "the rim that it puts around its operand is only read before a convolution or a pool"
        }
        OperationKind::RowMeans => "means along one axis of an image are only read before means along the other",
        OperationKind::PixelSums(_) => {
            "pixels that are taken by their indices are only read where they become the means of an adaptive pool"
        }
        OperationKind::Scores { .. } | OperationKind::Probabilities | OperationKind::Mixed { .. } => {
            "the attention that it is a part of is not one of queries, keys and values of the same tokens with an output projection"
        }
        OperationKind::Norms
        | OperationKind::NormShares { .. }
        | OperationKind::Responses { .. }
        | OperationKind::ScaledResponses { .. }
        | OperationKind::ShiftedResponses { .. } => {
            "norms over all positions are only read as the global response normalisation of ConvNeXt V2"
        }
        OperationKind::GroupStandardised { .. } | OperationKind::GroupScaled { .. } => {
            "a normalisation of groups is expected to be followed by a factor and a summand for each channel"
        }
        _ => "a normalisation of channels is expected to have a factor and a summand for each channel",
    };
    fault(&reader.file.nodes[operation.origin], what.to_owned())
}

/// A tensor of the network, where its elements lie.
fn entry(reader: &Reader<'_>, name: String, shape: &[usize], constant: &Constant<'_>) -> Result<TensorEntry, String> {
    let own: Option<Vec<usize>> = constant.dims.iter().map(|dim| dim.usize()).collect();
    if own.as_deref() != Some(shape) {
        return Err(format!("its tensor `{}` has the shape {own:?}; expected {shape:?}", constant.name));
    }
    let shape_of_entry = shape.iter().map(|axis| *axis as u64).collect();
    let Buffer::Stored(index) = constant.buffer else {
        let values = match &constant.buffer {
            // A matrix that was computed here, however large.
            Buffer::Floats(values) if constant.name == CHOICE => values.to_vec(),
            _ => constant.floats(&reader.tensors)?,
        };
        let bytes = values.into_iter().flat_map(|value| (value as f32).to_le_bytes()).collect();
        return Ok(TensorEntry { name, dtype: Dtype::F32, shape: shape_of_entry, place: TensorPlace::Owned(bytes) });
    };
    let tensor = reader.tensors[index];
    let size = tensor.dtype.size();
    let strides = row_major(&constant.dims).ok_or("its shape overflows")?;
    let dense = strides.iter().zip(&constant.strides).zip(shape).all(|((dense, own), axis)| dense == own || *axis == 1);
    let begin = constant.offset * size;
    let len = shape.iter().product::<usize>() * size;
    let place = match (&tensor.data, dense) {
        (TensorElements::Span(piece), true) => {
            TensorPlace::Span { begin: (piece.begin + begin) as u64, end: (piece.begin + begin + len) as u64 }
        }
        (TensorElements::Span(piece), false) => {
            let strides = constant.strides.iter().zip(shape);
            let strides = strides.map(|(stride, axis)| if *axis == 1 { 0 } else { *stride as u64 }).collect();
            TensorPlace::Strided { begin: (piece.begin + begin) as u64, strides }
        }
        (TensorElements::Owned(_), true) => {
            let part = bytes(tensor).get(begin..begin + len).ok_or("its elements are not all there")?;
            TensorPlace::Owned(part.to_vec())
        }
        (TensorElements::Owned(_), false) => {
            return Err(format!("tensor `{}` is written number by number and used in another order", tensor.name));
        }
    };
    Ok(TensorEntry { name, dtype: tensor.dtype, shape: shape_of_entry, place })
}

/// Gives every node a name of its own.
struct Namer<'a, 'b> {
    reader: &'b Reader<'a>,
    /// Names of modules that have tensors in the file.
    known: BTreeSet<&'a str>,
    taken: BTreeSet<String>,
    counts: BTreeMap<&'static str, usize>,
}

impl Namer<'_, '_> {
    /// The module's name of a node with weights; names of projections become part of the operation.
    fn module(&mut self, operation: &PlacedOperation<'_>, op: &Op) -> (String, Op) {
        if let Op::Attention { .. } = op {
            return self.attention(operation, op);
        }
        let computed =
            operation.weights.first().and_then(|weight| [CHOICE, AFFINE].into_iter().find(|name| *name == weight.name));
        if let Some(name) = computed {
            return (self.counted(name), op.clone());
        }
        let wishes = match op {
            Op::LayerScale { .. } | Op::ClassToken { .. } | Op::PositionalEmbedding { .. } => {
                operation.weights.first().and_then(of_tensor).map(str::to_owned).into_iter().collect()
            }
            _ => self.wishes(operation),
        };
        for wish in wishes {
            if self.taken.insert(wish.clone()) {
                return (wish, op.clone());
            }
        }
        (self.counted(kind_of(op)), op.clone())
    }

    /// What a node with weights may be called, the surest first.
    fn wishes(&self, operation: &PlacedOperation<'_>) -> Vec<String> {
        let alone = |constant: &&Constant<'_>| self.reader.uses.get(constant.name).is_none_or(|uses| *uses <= 1);
        let by_tensor = |constant: &Constant<'_>| of_module(constant).map(str::to_owned);
        let own = operation.weights.iter().filter(alone).find_map(by_tensor);
        let scope = of_scope(&self.reader.file.nodes[operation.origin]);
        // Equal tensors are one in some files, under the name of the first that had them.
        let shared = operation.weights.iter().find_map(by_tensor);
        own.into_iter().chain(scope).chain(shared).collect()
    }

    fn attention(&mut self, operation: &PlacedOperation<'_>, op: &Op) -> (String, Op) {
        let Op::Attention { features, heads, bias, output_bias, .. } = *op else {
            return (self.counted(kind_of(op)), op.clone());
        };
        let with = |projections| Op::Attention { features, heads, projections, bias, output_bias };
        let parts: Vec<&PlacedOperation<'_>> =
            operation.parts.iter().map(|part| &self.reader.operations[*part]).collect();
        let output_weights = operation.weights.len() - 1 - usize::from(output_bias)..;
        let output = PlacedOperation { weights: operation.weights[output_weights].to_vec(), ..operation.clone() };
        let packed_prefix = |part: &&PlacedOperation<'_>| {
            part.weights.iter().find_map(|constant| {
                let name = of_tensor(constant)?;
                name.strip_suffix(".in_proj_weight").or_else(|| name.strip_suffix(".in_proj_bias")).map(str::to_owned)
            })
        };
        let scopes: Option<Vec<String>> = parts
            .iter()
            .map(|part| self.wishes(part).into_iter().next())
            .chain([self.wishes(&output).into_iter().next()])
            .collect();
        if let [packed] = parts[..] {
            let by_tensors = packed_prefix(&packed);
            let by_scope = scopes.as_deref().filter(|scopes| {
                // The packed matrix is the attention's own, and so without a module.
                scopes[0] == scopes[1] || scopes[1].strip_prefix(scopes[0].as_str()) == Some(".out_proj")
            });
            let wish = by_tensors.or_else(|| by_scope.map(|scopes| scopes[0].clone()));
            if let Some(wish) = wish.filter(|wish| self.taken.insert(wish.clone())) {
                return (wish, with(Projections::torch()));
            }
        }
        if let Some((prefix, rests)) = scopes.as_deref().and_then(common)
            && self.taken.insert(prefix.clone())
        {
            let projections = match &rests[..] {
                [packed, output] => Projections::Packed {
                    weight: format!("{packed}.weight"),
                    bias: format!("{packed}.bias"),
                    output: output.clone(),
                },
                [query, key, value, output] => Projections::Separate {
                    query: query.clone(),
                    key: key.clone(),
                    value: value.clone(),
                    output: output.clone(),
                },
                _ => Projections::torch(),
            };
            return (prefix, with(projections));
        }
        let projections = if parts.len() == 1 {
            Projections::torch()
        } else {
            let [query, key, value, output] = ["query", "key", "value", "output"].map(str::to_owned);
            Projections::Separate { query, key, value, output }
        };
        let scope = of_scope(&self.reader.file.nodes[operation.origin]);
        let name = match scope.filter(|scope| self.taken.insert(scope.clone())) {
            Some(scope) => scope,
            None => self.counted("attention"),
        };
        (name, with(projections))
    }

    /// The name of a node without weights.
    fn plain(&mut self, operation: &PlacedOperation<'_>, op: &Op) -> String {
        let kind = kind_of(op);
        let node = &self.reader.file.nodes[operation.origin];
        let wishes = [of_graph(node).map(str::to_owned), of_scope(node).map(|scope| format!("{scope}.{kind}"))];
        let free = |name: &String| !self.known.contains(name.as_str()) && self.taken.insert(name.clone());
        match wishes.into_iter().flatten().find(free) {
            Some(name) => name,
            None => self.counted(kind),
        }
    }

    /// `conv1`, `conv2`, ….
    fn counted(&mut self, kind: &'static str) -> String {
        loop {
            let count = self.counts.entry(kind).or_default();
            *count += 1;
            let name = format!("{kind}{count}");
            if !self.known.contains(name.as_str()) && self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// A short name for operations of this kind.
fn kind_of(op: &Op) -> &'static str {
    match op {
        Op::Input { .. } => "input",
        Op::Linear { .. } => "linear",
        Op::Conv1d { .. } | Op::Conv2d { .. } => "conv",
        Op::BatchNorm { .. } => "bn",
        Op::LayerNorm { .. } | Op::GroupNorm { .. } | Op::GlobalResponseNorm { .. } => "norm",
        Op::Relu => "relu",
        Op::Relu6
        | Op::LeakyRelu { .. }
        | Op::Gelu { .. }
        | Op::Silu
        | Op::Hardswish
        | Op::Sigmoid
        | Op::Hardsigmoid
        | Op::Tanh
        | Op::Elu { .. }
        | Op::Selu
        | Op::Mish
        | Op::Softplus => "act",
        Op::Scale { .. } => "scale",
        Op::Softmax => "softmax",
        Op::MaxPool1d { .. }
        | Op::MaxPool2d { .. }
        | Op::AvgPool1d { .. }
        | Op::AvgPool2d { .. }
        | Op::AdaptiveAvgPool2d { .. }
        | Op::AdaptiveMaxPool2d { .. }
        | Op::GlobalAvgPool2d
        | Op::BlurPool2d { .. } => "pool",
        Op::Flatten => "flatten",
        Op::Reshape { .. } => "reshape",
        Op::ZeroPad { .. } => "pad",
        Op::Zeros { .. } => "zeros",
        Op::Add => "add",
        Op::Multiply => "multiply",
        Op::Concat => "concat",
        Op::Dropout { .. } => "dropout",
        Op::LayerScale { .. } => "layer_scale",
        Op::ClassToken { .. } => "class_token",
        Op::PositionalEmbedding { .. } => "positional_embedding",
        Op::Attention { .. } => "attention",
        Op::TokenMean => "mean",
        Op::TokenSelect { .. } => "token",
    }
}
