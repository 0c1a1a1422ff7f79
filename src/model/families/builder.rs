//! Puts graphs together, node after node.

use std::collections::BTreeSet;

use crate::model::families::modules::{Module, ModuleKind};
use crate::model::graph::{Approximate, Graph, GraphError, Node, NodeId, Op, Shape, Window};
use crate::settings::Activation;

/// PyTorch's default of BatchNorm's `eps`.
pub(super) const EPS: f64 = 1e-5;

/// A graph in the making.
#[derive(Debug)]
pub(super) struct Builder {
    nodes: Vec<Node>,
    taken: BTreeSet<String>,
}

impl Builder {
    /// A graph that so far only reads examples of `shape`; the names in `taken` are kept free for modules.
    pub(super) fn new(shape: &Shape, taken: BTreeSet<String>) -> Self {
        let mut builder = Self { nodes: Vec::new(), taken };
        builder.add("input", Op::Input { shape: shape.clone() }, &[]);
        builder
    }

    /// The last node.
    pub(super) fn last(&self) -> NodeId {
        NodeId(self.nodes.len() - 1)
    }

    /// Adds an operation without weights, under `name` or, where that is taken, one like it.
    pub(super) fn add(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> NodeId {
        let mut name = name.to_owned();
        while !self.taken.insert(name.clone()) {
            name.push('_');
        }
        self.nodes.push(Node { name, op, inputs: inputs.to_vec() });
        self.last()
    }

    /// Adds an operation without weights behind the last node.
    pub(super) fn then(&mut self, name: &str, op: Op) -> NodeId {
        self.add(name, op, &[self.last()])
    }

    /// Adds a module behind `input`; a convolution moves its kernel as `window` does, a normalisation has this `eps`.
    pub(super) fn module(&mut self, module: &Module, input: NodeId, window: Window, eps: f64) -> NodeId {
        let bias = module.bias;
        let op = match module.kind {
            ModuleKind::Linear { input, output } => Op::Linear { in_features: input, out_features: output, bias },
            ModuleKind::Conv { input, output, kernel } => Op::conv2d(input, output, Window { kernel, ..window }, bias),
            ModuleKind::Norm { features } => Op::BatchNorm { affine: bias, features, eps },
            ModuleKind::LayerNorm { features } => Op::LayerNorm { features, eps },
        };
        self.weighted(&module.name, op, input)
    }

    /// Adds an operation under exactly this name: that of its weights.
    pub(super) fn weighted(&mut self, name: &str, op: Op, input: NodeId) -> NodeId {
        self.nodes.push(Node { name: name.to_owned(), op, inputs: vec![input] });
        self.last()
    }

    /// The finished graph.
    pub(super) fn build(self) -> Result<Graph, GraphError> {
        Graph::new(self.nodes)
    }
}

/// The function as an operation; none where there is none.
pub(super) fn function(activation: Activation) -> Option<Op> {
    Some(match activation {
        Activation::Relu => Op::Relu,
        Activation::Relu6 => Op::Relu6,
        Activation::LeakyRelu(negative_slope) => Op::LeakyRelu { negative_slope },
        Activation::Gelu => Op::Gelu { approximate: Approximate::None },
        Activation::GeluTanh => Op::Gelu { approximate: Approximate::Tanh },
        Activation::Silu => Op::Silu,
        Activation::Hardswish => Op::Hardswish,
        Activation::Elu => Op::Elu { alpha: 1.0 },
        Activation::Selu => Op::Selu,
        Activation::Mish => Op::Mish,
        Activation::Softplus => Op::Softplus,
        Activation::Tanh => Op::Tanh,
        Activation::Sigmoid => Op::Sigmoid,
        Activation::None => return None,
    })
}
