//! Which tensors of a `state_dict` belong to a node, and how a network looks whose tensors have other widths.

use crate::domain::problem::{Fault, FaultCode};
use crate::model::graph::{Graph, GraphError, Node, NodeId, Op, Projections};
use crate::model::header::CheckpointHeader;

/// What a tensor is to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Factor: a matrix, a stack of kernels, or one value per channel.
    Weight,
    /// Summand: one value per channel.
    Bias,
    /// Mean of a BatchNorm's channels.
    RunningMean,
    /// Variance of a BatchNorm's channels.
    RunningVar,
    /// Values of tokens: (1 x tokens x channels).
    Embedding,
    /// Matrix of an attention's queries, keys or values, or of all three on top of each other.
    Projection,
    /// Bias of an attention's queries, keys or values, or of all three.
    ProjectionBias,
    /// Matrix of an attention's output.
    OutputWeight,
    /// Bias of an attention's output.
    OutputBias,
}

impl Role {
    /// Whether the tensor is measured, not trained.
    #[must_use]
    pub fn is_statistic(self) -> bool {
        matches!(self, Self::RunningMean | Self::RunningVar)
    }
}

/// One float tensor of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Name in the `state_dict`.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its shape, PyTorch's order.
    pub shape: Vec<usize>,
}

/// Name of the counter that a BatchNorm called `node` may have.
#[must_use]
pub fn counter(node: &str) -> String {
    format!("{node}.num_batches_tracked")
}

/// The float tensors of `node`, weight first.
#[must_use]
pub fn of_node(node: &Node) -> Vec<Parameter> {
    let below = |suffix: &str, role, shape| Parameter { name: format!("{}.{suffix}", node.name), role, shape };
    let with_bias = |weight: Vec<usize>, bias: bool| {
        let bias = bias.then(|| below("bias", Role::Bias, vec![weight[0]]));
        std::iter::once(below("weight", Role::Weight, weight)).chain(bias).collect()
    };
    let itself = |role, shape| vec![Parameter { name: node.name.clone(), role, shape }];
    if let Some(conv) = node.op.convolution() {
        let mut kernel = conv.window.kernel.to_vec();
        if matches!(node.op, Op::Conv1d { .. }) {
            kernel.remove(0);
        }
        return with_bias([vec![conv.out_channels, conv.inputs_of_one()], kernel].concat(), conv.bias);
    }
    match &node.op {
        Op::Linear { in_features, out_features, bias } => with_bias(vec![*out_features, *in_features], *bias),
        Op::LayerNorm { features, .. } | Op::GroupNorm { features, .. } | Op::GlobalResponseNorm { features, .. } => {
            with_bias(vec![*features], true)
        }
        Op::BatchNorm { affine, features, .. } => {
            let tensors = [
                ("weight", Role::Weight),
                ("bias", Role::Bias),
                ("running_mean", Role::RunningMean),
                ("running_var", Role::RunningVar),
            ];
            let own = tensors.into_iter().filter(|(_, role)| *affine || role.is_statistic());
            own.map(|(suffix, role)| below(suffix, role, vec![*features])).collect()
        }
        Op::LayerScale { features, unit_axes } => {
            itself(Role::Weight, std::iter::once(*features).chain(vec![1; *unit_axes]).collect())
        }
        Op::ClassToken { features } => itself(Role::Embedding, vec![1, 1, *features]),
        Op::PositionalEmbedding { tokens, features } => itself(Role::Embedding, vec![1, *tokens, *features]),
        Op::Attention { .. } => of_attention(node),
        _ => Vec::new(),
    }
}

/// The tensors of an attention: projections (queries, keys, values), then the output; matrices before biases.
fn of_attention(node: &Node) -> Vec<Parameter> {
    let Op::Attention { features, projections, bias, output_bias, .. } = &node.op else { return Vec::new() };
    let (c, qkv) = (*features, features.saturating_mul(3));
    let below =
        |suffix: &str, role, shape: Vec<usize>| Parameter { name: format!("{}.{suffix}", node.name), role, shape };
    let (mut tensors, output) = match projections {
        Projections::Packed { weight, bias: vector, output } => {
            let vector = bias.then(|| below(vector, Role::ProjectionBias, vec![qkv]));
            let matrix = below(weight, Role::Projection, vec![qkv, c]);
            (std::iter::once(matrix).chain(vector).collect::<Vec<_>>(), output)
        }
        Projections::Separate { query, key, value, output } => {
            let modules = [query, key, value];
            let matrix = |module| below(&format!("{module}.weight"), Role::Projection, vec![c, c]);
            let vector = |module| below(&format!("{module}.bias"), Role::ProjectionBias, vec![c]);
            let vectors = modules.into_iter().filter(|_| *bias).map(vector);
            (modules.into_iter().map(matrix).chain(vectors).collect(), output)
        }
    };
    tensors.push(below(&format!("{output}.weight"), Role::OutputWeight, vec![c, c]));
    if *output_bias {
        tensors.push(below(&format!("{output}.bias"), Role::OutputBias, vec![c]));
    }
    tensors
}

/// The float tensors of the whole network, in order of computation.
#[must_use]
pub fn of_graph(graph: &Graph) -> Vec<Parameter> {
    graph.nodes().iter().flat_map(of_node).collect()
}

/// Widths of a node with weights, or with channels of zeros: (in, out); an operation that works channel by channel has one
/// width.
#[must_use]
pub fn widths(op: &Op) -> Option<(usize, usize)> {
    if let Some(conv) = op.convolution() {
        return Some((conv.in_channels, conv.out_channels));
    }
    match op {
        Op::Linear { in_features, out_features, .. } => Some((*in_features, *out_features)),
        Op::Zeros { features } => Some((0, *features)),
        Op::BatchNorm { features, .. }
        | Op::LayerNorm { features, .. }
        | Op::GroupNorm { features, .. }
        | Op::GlobalResponseNorm { features, .. }
        | Op::LayerScale { features, .. }
        | Op::ClassToken { features }
        | Op::PositionalEmbedding { features, .. }
        | Op::Attention { features, .. } => Some((*features, *features)),
        _ => None,
    }
}

/// Widths of `node` as the tensors of a checkpoint have them: (in, out). `None` where the node has no widths or the
/// checkpoint lacks its tensors.
#[must_use]
pub fn widths_in(header: &CheckpointHeader, node: &Node) -> Option<(usize, usize)> {
    let (input, output) = widths(&node.op)?;
    let shape = &header.get(&of_node(node).first()?.name)?.shape[..];
    let channels = |of_one: Option<usize>| match (of_one, output.checked_mul(of_one.unwrap_or(1))) {
        // All groups have as many outputs as in `node`; their number follows from the rows.
        (Some(of_one), Some(all)) if input > 0 => {
            shape.first()?.checked_mul(of_one)?.checked_mul(input)?.checked_div(all)
        }
        _ => shape.get(1).copied(),
    };
    match (&node.op, node.op.convolution()) {
        (_, Some(conv)) => Some((channels(conv.group_width)?, *shape.first()?)),
        (Op::Linear { .. }, _) => Some((*shape.get(1)?, *shape.first()?)),
        (Op::ClassToken { .. } | Op::PositionalEmbedding { .. }, _) => shape.last().map(|&c| (c, c)),
        (Op::Attention { .. }, _) => shape.get(1).map(|&c| (c, c)),
        _ => shape.first().map(|&c| (c, c)),
    }
}

/// The same network with other widths: `new` gives (in, out) for every node that [`widths`] knows.
///
/// # Errors
/// When the new widths do not fit each other.
pub fn with_widths(graph: &Graph, mut new: impl FnMut(NodeId, &Node) -> (usize, usize)) -> Result<Graph, GraphError> {
    let nodes = graph.iter().map(|(id, node)| {
        let mut node = node.clone();
        if widths(&node.op).is_some() {
            let (input, output) = new(id, &node);
            set_widths(&mut node.op, input, output);
        }
        node
    });
    Graph::new(nodes.collect())
}

/// The same operation with other widths, as in [`with_widths`].
#[must_use]
pub fn resized(node: &Node, input: usize, output: usize) -> Node {
    let mut node = node.clone();
    set_widths(&mut node.op, input, output);
    node
}

/// Puts new widths into one operation.
fn set_widths(op: &mut Op, input: usize, output: usize) {
    match op {
        Op::Linear { in_features, out_features, .. } => (*in_features, *out_features) = (input, output),
        Op::Conv1d { in_channels, out_channels, .. } | Op::Conv2d { in_channels, out_channels, .. } => {
            (*in_channels, *out_channels) = (input, output);
        }
        Op::BatchNorm { features, .. }
        | Op::LayerNorm { features, .. }
        | Op::GroupNorm { features, .. }
        | Op::GlobalResponseNorm { features, .. }
        | Op::LayerScale { features, .. }
        | Op::ClassToken { features }
        | Op::PositionalEmbedding { features, .. }
        | Op::Zeros { features } => *features = output,
        Op::Attention { features, heads, .. } => {
            // A head keeps its width.
            let width = (*features / (*heads).max(1)).max(1);
            (*features, *heads) = (output, output / width);
        }
        _ => {}
    }
}

/// Whether two operations differ at most in their widths.
#[must_use]
pub fn same_but_widths(a: &Op, b: &Op) -> bool {
    let without_widths = |op: &Op| {
        let mut op = op.clone();
        set_widths(&mut op, 0, 0);
        op
    };
    without_widths(a) == without_widths(b)
}

/// Compares the network's tensors with those of a checkpoint: every tensor that is missing, left over, of another
/// shape or of an integer type, as a fault at `pointer`.
#[must_use]
pub fn compare(graph: &Graph, header: &CheckpointHeader, pointer: &str) -> Vec<Fault> {
    let mut rest: std::collections::BTreeMap<&str, _> =
        header.tensors.iter().map(|info| (info.name.as_str(), info)).collect();
    let mut faults = Vec::new();
    for parameter in of_graph(graph) {
        let Parameter { name, shape, .. } = parameter;
        match rest.remove(name.as_str()) {
            None => faults.push(Fault::new(
                pointer,
                FaultCode::MissingTensor,
                format!("tensor `{name}`: expected shape {shape:?}, got none"),
            )),
            Some(info) if info.shape != shape => faults.push(Fault::new(
                pointer,
                FaultCode::ShapeMismatch,
                format!("tensor `{name}`: expected shape {shape:?}, got {:?}", info.shape),
            )),
            Some(info) if !info.dtype.is_float() => faults.push(Fault::new(
                pointer,
                FaultCode::NotAWeight,
                format!("tensor `{name}`: expected a float type, got {:?}", info.dtype),
            )),
            Some(_) => {}
        }
    }
    for node in graph.nodes().iter().filter(|node| matches!(node.op, Op::BatchNorm { .. })) {
        rest.remove(counter(&node.name).as_str());
    }
    faults.extend(rest.values().map(|info| {
        let detail = format!("tensor `{}`: expected none of this name, got shape {:?}", info.name, info.shape);
        Fault::new(pointer, FaultCode::UnexpectedTensor, detail)
    }));
    faults
}
