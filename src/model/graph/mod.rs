//! A network as data: operations, their order, and the shapes between them.
//!
//! A [`Graph`] can only be made by [`Graph::new`], which checks names, order, operands and shapes; whoever holds one
//! need not check again. Weights are not part of it: a node with parameters is named after its module in the
//! `state_dict`, and its tensors are `{name}.weight`, `{name}.bias`, `{name}.running_mean`, ….

pub mod json;
mod op;
mod projections;
mod shape;
mod views;
mod window;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::problem::{Code, Problem};
use crate::model::parameters;

pub use op::{Approximate, Op};
pub use projections::Projections;
pub use views::{BlurWindow, Convolution, PoolKind, Pooling};
pub use window::{Window, Window1d};

/// Position of a node in [`Graph::nodes`]; operands come before their users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub usize);

/// Shape of one example, without the batch axis, channels first: `[D]`, `[C, L]` or `[C, H, W]`.
pub type Shape = Vec<usize>;

/// Most nodes of a network.
pub const MAX_NODES: usize = 20_000;
/// Most elements of one example at any node.
pub const MAX_ELEMENTS: usize = 1 << 28;
/// Most elements of one tensor of weights.
pub const MAX_WEIGHTS: usize = 1 << 36;

/// One operation with its operands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique; for nodes with parameters the module's name in the `state_dict`.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Its operands, in order.
    pub inputs: Vec<NodeId>,
}

/// Why a list of nodes is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node `{node}`: {detail}")]
pub struct GraphError {
    /// Name of the node at fault.
    pub node: String,
    /// What is wrong with it.
    pub detail: String,
}

impl From<GraphError> for Problem {
    fn from(error: GraphError) -> Self {
        Self::new(Code::InvalidRequest, error.to_string())
    }
}

/// A checked network: the first node is its only input, the last one its output.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    shapes: Vec<Shape>,
}

impl Graph {
    /// Checks `nodes` (in order of computation) and infers every shape.
    ///
    /// # Errors
    /// Names the first node that has a duplicate name, a missing or later operand, the wrong number of operands,
    /// an operand of the wrong shape, or that nobody reads.
    pub fn new(nodes: Vec<Node>) -> Result<Self, GraphError> {
        if let Some(node) = nodes.get(MAX_NODES) {
            let detail = format!("a network may have at most {MAX_NODES} nodes, this one has {}", nodes.len());
            return Err(GraphError { node: node.name.clone(), detail });
        }
        let (mut names, mut tensors) = (BTreeSet::new(), BTreeSet::new());
        let mut shapes: Vec<Shape> = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let fail = |detail: String| GraphError { node: node.name.clone(), detail };
            if !names.insert(node.name.as_str()) {
                return Err(fail("the name is taken by an earlier node".to_owned()));
            }
            if (index == 0) != matches!(node.op, Op::Input { .. }) {
                return Err(fail("the first node, and only the first, must be the input".to_owned()));
            }
            if !node.op.arity().contains(&node.inputs.len()) {
                let at_least = if node.op == Op::Concat { "at least " } else { "" };
                let expected = *node.op.arity().start();
                return Err(fail(format!("expected {at_least}{expected} operands, got {}", node.inputs.len())));
            }
            let operands = node.inputs.iter().map(|id| shapes.get(id.0)).collect::<Option<Vec<_>>>();
            let operands = operands.ok_or_else(|| fail("an operand is not an earlier node".to_owned()))?;
            let shape = shape::output(&node.op, &operands).map_err(fail)?;
            let elements = shape.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis));
            if elements.is_none_or(|elements| elements == 0 || elements > MAX_ELEMENTS) {
                return Err(fail(format!("its output {shape:?} is empty or has more than {MAX_ELEMENTS} elements")));
            }
            shapes.push(shape);
            check_tensors(node, &mut tensors)?;
        }
        refuse_bare_zeros(&nodes)?;
        let read: BTreeSet<usize> = nodes.iter().flat_map(|node| node.inputs.iter().map(|id| id.0)).collect();
        match nodes.iter().enumerate().rev().skip(1).find(|(index, _)| !read.contains(index)) {
            Some((_, node)) => {
                Err(GraphError { node: node.name.clone(), detail: "nobody reads its output".to_owned() })
            }
            None if nodes.is_empty() => {
                Err(GraphError { node: String::new(), detail: "the network is empty".to_owned() })
            }
            None => Ok(Self { nodes, shapes }),
        }
    }

    /// The nodes, in order of computation.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index), node))
    }

    /// The node `id`.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Output shape of the node `id`.
    #[must_use]
    pub fn shape(&self, id: NodeId) -> &Shape {
        &self.shapes[id.0]
    }

    /// Shape of one input example.
    #[must_use]
    pub fn input_shape(&self) -> &Shape {
        &self.shapes[0]
    }

    /// The output node.
    #[must_use]
    pub fn output(&self) -> NodeId {
        NodeId(self.nodes.len() - 1)
    }

    /// Whether the output is a vector, one logit per class; axes of length 1 behind it do no harm. Only such a network can
    /// be trained or measured on labelled examples.
    #[must_use]
    pub fn is_classifier(&self) -> bool {
        self.shape(self.output()).iter().skip(1).all(|&axis| axis == 1)
    }

    /// Number of outputs (classes).
    #[must_use]
    pub fn classes(&self) -> usize {
        self.shapes.last().map_or(0, |shape| shape.iter().product())
    }
}

/// Channels of zeros are a part of a concatenation with other channels, and nothing else.
fn refuse_bare_zeros(nodes: &[Node]) -> Result<(), GraphError> {
    let is_zeros = |id: &NodeId| matches!(nodes[id.0].op, Op::Zeros { .. });
    let bare =
        |node: &&Node| node.inputs.iter().any(is_zeros) && (node.op != Op::Concat || node.inputs.iter().all(is_zeros));
    let last = nodes.last().filter(|node| matches!(node.op, Op::Zeros { .. }));
    match nodes.iter().find(bare).or(last) {
        Some(node) => {
            let detail = "channels of zeros are only read by a concatenation with other channels".to_owned();
            Err(GraphError { node: node.name.clone(), detail })
        }
        None => Ok(()),
    }
}

/// Checks the sizes of a node's tensors, and that no other node has tensors of their names.
fn check_tensors(node: &Node, taken: &mut BTreeSet<String>) -> Result<(), GraphError> {
    let fail = |detail| Err(GraphError { node: node.name.clone(), detail });
    for parameter in parameters::of_node(node) {
        let elements = parameter.shape.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis));
        if elements.is_none_or(|elements| elements > MAX_WEIGHTS) {
            return fail(format!("its tensor of shape {:?} has more than {MAX_WEIGHTS} elements", parameter.shape));
        }
        if let Some(name) = taken.replace(parameter.name) {
            return fail(format!("an earlier node has a tensor `{name}`, too"));
        }
    }
    Ok(())
}
