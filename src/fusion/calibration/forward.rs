//! One network, its weights in the layouts of [`crate::kernels`], computing node after node.

use super::layer::{Computation, mix, project};
use super::value::NodeValue;
use crate::fusion::{FusionError, Member};
use crate::kernels::Workspace;
use crate::model::graph::{Graph, Node, NodeId};
use crate::tensors::Weights;

/// A network ready to run.
#[derive(Debug)]
pub(in crate::fusion) struct LayerwiseNetwork<'a> {
    graph: &'a Graph,
    /// By node.
    layers: Vec<Computation<'a>>,
    last_use: Vec<usize>,
}

impl<'a> LayerwiseNetwork<'a> {
    /// Reads a member's weights.
    pub(in crate::fusion) fn of(member: Member<'a>) -> Result<Self, FusionError> {
        let graph = member.graph;
        let layers =
            graph.iter().map(|(id, _)| Computation::of(graph, id, member.weights)).collect::<Result<_, _>>()?;
        Ok(Self { graph, layers, last_use: last_uses(graph) })
    }

    pub(in crate::fusion) fn graph(&self) -> &'a Graph {
        self.graph
    }

    /// For every node, the last node that reads it.
    pub(super) fn last_use(&self, node: NodeId) -> usize {
        self.last_use[node.0]
    }

    /// Takes new weights for the node `id`.
    pub(in crate::fusion) fn reload(&mut self, id: NodeId, weights: &dyn Weights) -> Result<(), FusionError> {
        self.layers[id.0] = Computation::of(self.graph, id, weights)?.into_owned();
        Ok(())
    }

    /// The weight of a node that has one: matrix (out x in) or kernels (out x kh x kw x in; of depthwise convolutions
    /// kh x kw x channels).
    pub(in crate::fusion) fn weight(&self, id: NodeId) -> &[f32] {
        match &self.layers[id.0] {
            Computation::Weighted { tensors, .. } => &tensors.weight,
            Computation::Input | Computation::Plain(_) | Computation::Attention { .. } => &[],
        }
    }

    /// Computes the node `id` from its operands.
    pub(super) fn compute(&self, id: NodeId, operands: &[&NodeValue], work: &mut Workspace<f32>) -> NodeValue {
        let Some(x) = operands.first() else { return NodeValue { values: Vec::new(), channels: 0, size: [1, 1] } };
        let mut y = self.empty_output(id, x);
        self.layers[id.0].compute(operands, &mut y, work);
        y
    }

    /// Queries, keys and values of the attention `id`, side by side, from what it reads.
    pub(in crate::fusion) fn projected(&self, id: NodeId, x: &NodeValue, work: &mut Workspace<f32>) -> NodeValue {
        let Computation::Attention { projection, .. } = &self.layers[id.0] else { return x.clone() };
        project(projection, x, projection.weight.len() / x.channels.max(1), work)
    }

    /// What the output projection of the attention `id` reads: the outputs of its heads, side by side.
    pub(in crate::fusion) fn mixed(&self, id: NodeId, x: &NodeValue, work: &mut Workspace<f32>) -> NodeValue {
        let Computation::Attention { sizes, .. } = &self.layers[id.0] else { return x.clone() };
        mix(*sizes, &self.projected(id, x, work), work)
    }

    fn empty_output(&self, id: NodeId, x: &NodeValue) -> NodeValue {
        let (channels, size) = channels_and_size(self.graph, id);
        let examples = x.values.len() / (x.channels * x.positions()).max(1);
        NodeValue { values: vec![0.0; examples * channels * size[0] * size[1]], channels, size }
    }
}

/// Channels and size of a node's output.
pub(in crate::fusion) fn channels_and_size(graph: &Graph, id: NodeId) -> (usize, [usize; 2]) {
    match graph.shape(id)[..] {
        [channels, h, w] => (channels, [h, w]),
        [channels, ref tokens @ ..] => (channels, [1, tokens.iter().product()]),
        [] => (1, [1, 1]),
    }
}

fn last_uses(graph: &Graph) -> Vec<usize> {
    let mut last = vec![0; graph.nodes().len()];
    for (id, Node { inputs, .. }) in graph.iter() {
        for input in inputs {
            last[input.0] = id.0;
        }
    }
    last
}
