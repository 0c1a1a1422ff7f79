//! Networks cut into segments.

use std::collections::BTreeMap;

use super::can_be_identity;
use crate::model::graph::{Graph, Node, NodeId, Op};
use crate::model::parameters;

/// Nodes between two cuts; all that they read from before is the node of the first cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The node before the first.
    before: usize,
    /// The node behind the last.
    end: usize,
}

/// When a segment can hand its input on unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    Never,
    Always,
    /// Where no value is below zero.
    IfNotNegative,
}

/// The segments of a network, in order; the input belongs to none.
pub(super) fn segments(graph: &Graph) -> Vec<Segment> {
    let mut reach = vec![0; graph.nodes().len()];
    for (id, node) in graph.iter() {
        node.inputs.iter().for_each(|input| reach[input.0] = id.0);
    }
    let (mut segments, mut before, mut furthest) = (Vec::new(), 0, reach[0]);
    for (node, reach) in reach.into_iter().enumerate().skip(1) {
        if furthest <= node {
            segments.push(Segment { before, end: node + 1 });
            before = node;
        }
        furthest = furthest.max(reach);
    }
    segments
}

impl Segment {
    /// The nodes, in order.
    pub(super) fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator + use<> {
        (self.before + 1..self.end).map(NodeId)
    }

    /// The node through which all values leave.
    pub(super) fn last(&self) -> NodeId {
        NodeId(self.end - 1)
    }

    /// Whether both do the same, widths aside.
    pub(super) fn matches(&self, graph: &Graph, other: &Self, other_graph: &Graph) -> bool {
        self.nodes().len() == other.nodes().len()
            && self.nodes().zip(other.nodes()).all(|(a, b)| {
                let (a, b) = (graph.node(a), other_graph.node(b));
                let from = |node: &Node, before: usize| -> Vec<usize> {
                    node.inputs.iter().map(|input| input.0 - before).collect()
                };
                parameters::same_but_widths(&a.op, &b.op) && from(a, self.before) == from(b, other.before)
            })
    }

    /// When the segment can hand its input on.
    pub(super) fn skip(&self, graph: &Graph) -> Skip {
        let op = &graph.node(self.last()).op;
        if self.nodes().len() > 1 {
            return if self.branch_end(graph).is_some() { Skip::Always } else { Skip::Never };
        }
        match op {
            Op::Relu => Skip::IfNotNegative,
            Op::Dropout { .. } => Skip::Always,
            op if can_be_identity(op) => Skip::Always,
            _ => Skip::Never,
        }
    }

    /// The last dense node of a residual block's branch, where the block is `input + branch` and what stands between that
    /// node and the sum keeps zeros.
    fn branch_end(&self, graph: &Graph) -> Option<NodeId> {
        let sum = graph.node(self.last());
        let branch = match (&sum.op, &sum.inputs[..]) {
            (Op::Add, &[a, b]) if a.0 == self.before => b,
            (Op::Add, &[a, b]) if b.0 == self.before => a,
            _ => return None,
        };
        let mut at = branch;
        while at.0 > self.before {
            let node = graph.node(at);
            match node.op {
                Op::Linear { .. } | Op::Conv1d { .. } | Op::Conv2d { .. } => return Some(at),
                Op::BatchNorm { .. } | Op::LayerScale { .. } | Op::Dropout { .. } => at = node.inputs[0],
                _ => return None,
            }
        }
        None
    }

    /// Widths (in, out) of the segment's nodes with weights when it hands on a value of so many channels; what lies inside
    /// a block keeps its width.
    pub(super) fn padded_widths(&self, graph: &Graph, channels: usize) -> Vec<(NodeId, (usize, usize))> {
        let end = if self.nodes().len() == 1 { Some(self.last()) } else { self.branch_end(graph) };
        let mut of: BTreeMap<usize, usize> = BTreeMap::from([(self.before, channels)]);
        let mut widths = Vec::new();
        for id in self.nodes() {
            let node = graph.node(id);
            let input = node.inputs.first().and_then(|input| of.get(&input.0)).copied().unwrap_or(channels);
            let output = match parameters::widths(&node.op) {
                Some(_) if Some(id) == end => channels,
                Some((_, output)) if node.op.is_dense() => output,
                _ => input,
            };
            if parameters::widths(&node.op).is_some() {
                widths.push((id, (input, output)));
            }
            of.insert(id.0, output);
        }
        widths
    }
}

/// Whether no value of the node's output can be below zero.
pub(super) fn not_negative(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    match node.op {
        Op::Relu | Op::Relu6 | Op::Sigmoid | Op::Hardsigmoid | Op::Softplus | Op::Softmax => true,
        Op::MaxPool1d { .. }
        | Op::MaxPool2d { .. }
        | Op::AvgPool1d { .. }
        | Op::AvgPool2d { .. }
        | Op::AdaptiveAvgPool2d { .. }
        | Op::AdaptiveMaxPool2d { .. }
        | Op::GlobalAvgPool2d
        | Op::BlurPool2d { .. }
        | Op::Flatten
        | Op::Reshape { .. }
        | Op::ZeroPad { .. }
        | Op::Dropout { .. } => not_negative(graph, node.inputs[0]),
        _ => false,
    }
}
