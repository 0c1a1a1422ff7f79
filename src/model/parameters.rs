//! Which tensors of a `state_dict` belong to a node, and how a network looks whose tensors have other widths.

use crate::domain::problem::Fault;
use crate::model::graph::{Graph, GraphError, Node, NodeId, Op};
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
}

impl Role {
    /// How the tensor's name ends.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Bias => "bias",
            Self::RunningMean => "running_mean",
            Self::RunningVar => "running_var",
        }
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
    let parameter =
        |role: Role, shape: Vec<usize>| Parameter { name: format!("{}.{}", node.name, role.suffix()), role, shape };
    let with_bias = |weight: Vec<usize>, bias: bool| {
        let bias = bias.then(|| parameter(Role::Bias, vec![weight[0]]));
        std::iter::once(parameter(Role::Weight, weight)).chain(bias).collect()
    };
    match &node.op {
        Op::Linear { in_features, out_features, bias } => with_bias(vec![*out_features, *in_features], *bias),
        Op::Conv2d { in_channels, out_channels, window, bias } => {
            with_bias(vec![*out_channels, *in_channels, window.kernel[0], window.kernel[1]], *bias)
        }
        Op::BatchNorm { features, .. } => {
            let roles = [Role::Weight, Role::Bias, Role::RunningMean, Role::RunningVar];
            roles.into_iter().map(|role| parameter(role, vec![*features])).collect()
        }
        _ => Vec::new(),
    }
}

/// The float tensors of the whole network, in order of computation.
#[must_use]
pub fn of_graph(graph: &Graph) -> Vec<Parameter> {
    graph.nodes().iter().flat_map(of_node).collect()
}

/// Widths of a node with weights: (in, out); a BatchNorm has one width.
#[must_use]
pub fn widths(op: &Op) -> Option<(usize, usize)> {
    match op {
        Op::Linear { in_features, out_features, .. } => Some((*in_features, *out_features)),
        Op::Conv2d { in_channels, out_channels, .. } => Some((*in_channels, *out_channels)),
        Op::BatchNorm { features, .. } => Some((*features, *features)),
        _ => None,
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

/// Puts new widths into one operation.
fn set_widths(op: &mut Op, input: usize, output: usize) {
    match op {
        Op::Linear { in_features, out_features, .. } => (*in_features, *out_features) = (input, output),
        Op::Conv2d { in_channels, out_channels, .. } => (*in_channels, *out_channels) = (input, output),
        Op::BatchNorm { features, .. } => *features = output,
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

/// Number of trainable weights in a checkpoint: everything but running statistics and counters.
#[must_use]
pub fn count(header: &CheckpointHeader) -> usize {
    let statistics = [Role::RunningMean.suffix(), Role::RunningVar.suffix()];
    let is_trained = |name: &str| !statistics.iter().any(|suffix| name.ends_with(suffix));
    let trained = header.tensors.iter().filter(|info| info.dtype.is_float() && is_trained(&info.name));
    trained.map(crate::model::header::TensorInfo::elements).sum()
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
                "missing_tensor",
                format!("tensor `{name}`: expected shape {shape:?}, got none"),
            )),
            Some(info) if info.shape != shape => faults.push(Fault::new(
                pointer,
                "shape_mismatch",
                format!("tensor `{name}`: expected shape {shape:?}, got {:?}", info.shape),
            )),
            Some(info) if !info.dtype.is_float() => faults.push(Fault::new(
                pointer,
                "not_a_weight",
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
        Fault::new(pointer, "unexpected_tensor", detail)
    }));
    faults
}
