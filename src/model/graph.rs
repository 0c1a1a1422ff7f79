//! A network as data: operations, their order, and the shapes between them.
//!
//! A [`Graph`] can only be made by [`Graph::new`], which checks names, order, operands and shapes; whoever holds one
//! need not check again. Weights are not part of it: a node with parameters is named after its module in the
//! `state_dict`, and its tensors are `{name}.weight`, `{name}.bias`, `{name}.running_mean`, ….

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::problem::{Code, Problem};

/// Position of a node in [`Graph::nodes`]; operands come before their users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub usize);

/// Shape of one example, without the batch axis: `[D]` or `[C, H, W]`.
pub type Shape = Vec<usize>;

/// Most nodes of a network.
pub const MAX_NODES: usize = 20_000;
/// Most elements of one example at any node.
pub const MAX_ELEMENTS: usize = 1 << 28;

/// A window that slides over an image; each pair is (height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Step between two windows.
    pub stride: [usize; 2],
    /// Zeros (for maxima: minus infinity) around the image, on each side.
    pub padding: [usize; 2],
}

impl Window {
    /// A square window.
    #[must_use]
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] }
    }

    /// Output height and width for an input of height and width `input`; `None` where no window fits.
    #[must_use]
    pub fn output(&self, input: [usize; 2]) -> Option<[usize; 2]> {
        let axis = |i: usize| {
            let padded = input[i].checked_add(self.padding[i].checked_mul(2)?)?;
            Some(padded.checked_sub(self.kernel[i])?.checked_div(self.stride[i])? + 1)
        };
        Some([axis(0)?, axis(1)?])
    }
}

/// What a node computes. Axes as in PyTorch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// The network's input.
    Input {
        /// Shape of one example.
        shape: Shape,
    },
    /// `y = x Wᵀ + b`, W of shape (out x in).
    Linear {
        /// Width of the input.
        in_features: usize,
        /// Width of the output.
        out_features: usize,
        /// Whether there is a bias.
        bias: bool,
    },
    /// Cross-correlation, W of shape (out x in x kh x kw).
    Conv2d {
        /// Channels of the input.
        in_channels: usize,
        /// Channels of the output.
        out_channels: usize,
        /// The window.
        #[serde(flatten)]
        window: Window,
        /// Whether there is a bias.
        bias: bool,
    },
    /// Per-channel normalisation with running statistics (1d on `[D]`, 2d on `[C, H, W]`).
    BatchNorm {
        /// Number of channels.
        features: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// `max(x, 0)`.
    Relu,
    /// Maximum over windows.
    MaxPool2d {
        /// The window.
        #[serde(flatten)]
        window: Window,
    },
    /// Mean over windows (padding counts, as in PyTorch's default).
    AvgPool2d {
        /// The window.
        #[serde(flatten)]
        window: Window,
    },
    /// Mean over all positions: `[C, H, W]` to `[C, 1, 1]`.
    GlobalAvgPool2d,
    /// `[C, H, W]` to `[C*H*W]`, channel first; `[D]` stays.
    Flatten,
    /// Sum of two operands of one shape.
    Add,
}

impl Op {
    /// How many operands the operation takes.
    #[must_use]
    pub fn arity(&self) -> usize {
        match self {
            Self::Input { .. } => 0,
            Self::Add => 2,
            _ => 1,
        }
    }

    /// Whether the operation owns tensors in the `state_dict`.
    #[must_use]
    pub fn has_parameters(&self) -> bool {
        matches!(self, Self::Linear { .. } | Self::Conv2d { .. } | Self::BatchNorm { .. })
    }

    /// Shape of the output, from the shapes of as many operands as [`Self::arity`] says.
    fn output(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let image = |shape: &Shape| match shape[..] {
            [c, h, w] => Ok((c, [h, w])),
            _ => Err(format!("expected an input of shape [C, H, W], got {shape:?}")),
        };
        let width = |what: &str, expected: usize, got: usize| {
            if expected == got { Ok(()) } else { Err(format!("expected {expected} {what}, got {got}")) }
        };
        let slide = |window: &Window, [h, w]: [usize; 2]| {
            if window.stride.contains(&0) || window.kernel.contains(&0) {
                return Err("kernel and stride must be at least 1".to_owned());
            }
            let pools = !matches!(self, Self::Conv2d { .. });
            if pools && window.kernel.iter().zip(window.padding).any(|(kernel, padding)| padding > kernel / 2) {
                return Err(format!(
                    "padding {:?} is more than half of the window {:?}",
                    window.padding, window.kernel
                ));
            }
            window.output([h, w]).ok_or_else(|| format!("the window {:?} does not fit into {h} x {w}", window.kernel))
        };
        match self {
            Self::Input { shape } => match shape[..] {
                [d] if d > 0 => Ok(shape.clone()),
                [c, h, w] if c > 0 && h > 0 && w > 0 => Ok(shape.clone()),
                _ => Err(format!("expected [D] or [C, H, W] with positive sizes, got {shape:?}")),
            },
            Self::Linear { in_features, out_features, .. } => match inputs[0][..] {
                [d] => width("input features", *in_features, d).map(|()| vec![*out_features]),
                _ => Err(format!("expected an input of shape [{in_features}], got {:?}", inputs[0])),
            },
            Self::Conv2d { in_channels, out_channels, window, .. } => {
                let (c, size) = image(inputs[0])?;
                width("input channels", *in_channels, c)?;
                let [h, w] = slide(window, size)?;
                Ok(vec![*out_channels, h, w])
            }
            Self::BatchNorm { features, .. } => {
                width("channels", *features, inputs[0][0])?;
                Ok(inputs[0].clone())
            }
            Self::Relu => Ok(inputs[0].clone()),
            Self::MaxPool2d { window } | Self::AvgPool2d { window } => {
                let (c, size) = image(inputs[0])?;
                let [h, w] = slide(window, size)?;
                Ok(vec![c, h, w])
            }
            Self::GlobalAvgPool2d => image(inputs[0]).map(|(c, _)| vec![c, 1, 1]),
            Self::Flatten => Ok(vec![inputs[0].iter().product()]),
            Self::Add if inputs[0] == inputs[1] => Ok(inputs[0].clone()),
            Self::Add => Err(format!("expected operands of one shape, got {:?} and {:?}", inputs[0], inputs[1])),
        }
    }
}

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
        let mut names = BTreeSet::new();
        let mut shapes: Vec<Shape> = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let fail = |detail: String| GraphError { node: node.name.clone(), detail };
            if !names.insert(node.name.as_str()) {
                return Err(fail("the name is taken by an earlier node".to_owned()));
            }
            if (index == 0) != matches!(node.op, Op::Input { .. }) {
                return Err(fail("the first node, and only the first, must be the input".to_owned()));
            }
            if node.inputs.len() != node.op.arity() {
                return Err(fail(format!("expected {} operands, got {}", node.op.arity(), node.inputs.len())));
            }
            let operands = node.inputs.iter().map(|id| shapes.get(id.0)).collect::<Option<Vec<_>>>();
            let operands = operands.ok_or_else(|| fail("an operand is not an earlier node".to_owned()))?;
            let shape = node.op.output(&operands).map_err(fail)?;
            let elements = shape.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis));
            if elements.is_none_or(|elements| elements == 0 || elements > MAX_ELEMENTS) {
                return Err(fail(format!("its output {shape:?} is empty or has more than {MAX_ELEMENTS} elements")));
            }
            shapes.push(shape);
        }
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

    /// Number of outputs (classes).
    #[must_use]
    pub fn classes(&self) -> usize {
        self.shapes.last().map_or(0, |shape| shape.iter().product())
    }
}
