//! The first layer of fused networks: its rows are those of members, and so are its outputs, which need not be computed again.

use super::forward::LayerwiseNetwork;
use super::value::NodeValue;
use crate::fusion::assemble::routes::Routes;
use crate::fusion::{Ensemble, Selection};
use crate::model::graph::{Graph, NodeId, Op};
use crate::model::parameters;

/// A layer of fused networks that reads what the members' layers read, and before which nothing has weights.
#[derive(Debug)]
pub(in crate::fusion) struct CopiedLayer {
    pub(super) node: NodeId,
    /// For each fused network, which of the members' channels it has.
    pub(super) routes: Vec<Routes>,
}

impl CopiedLayer {
    /// The first layer with weights of the networks of shape `fused` that are gathered from `selections`, if it is none of the `altered` ones.
    pub(in crate::fusion) fn of<'s>(
        ensemble: &Ensemble<'_>,
        fused: &LayerwiseNetwork<'_>,
        selections: impl Iterator<Item = &'s Selection>,
        altered: &[Vec<NodeId>],
    ) -> Option<Self> {
        let graph: &Graph = fused.graph();
        let (node, first) = graph.iter().find(|(_, node)| !parameters::of_node(node).is_empty())?;
        let is_copied = matches!(first.op, Op::Linear { .. }) || first.op.convolution().is_some();
        let is_altered = ensemble.is_output_layer(node) || altered.iter().any(|layers| layers.contains(&node));
        let ends_here = (0..node.0).all(|before| fused.last_use(NodeId(before)) <= node.0);
        let routes = || selections.map(|selection| Routes::rows(ensemble, node, selection)).collect();
        (is_copied && !is_altered && ends_here).then(|| Self { node, routes: routes() })
    }

    /// The outputs of the layer in a fused network with these `routes`, out of those of the `members`.
    pub(super) fn outputs(routes: &Routes, members: &[&NodeValue]) -> NodeValue {
        let (rows, size) =
            members.first().map_or((0, [1, 1]), |first| (first.values.len() / first.channels.max(1), first.size));
        let mut values = vec![0.0; rows * routes.len];
        for (member, runs) in members.iter().zip(&routes.runs) {
            let sources = member.values.chunks_exact(member.channels.max(1));
            for (target, source) in values.chunks_exact_mut(routes.len.max(1)).zip(sources) {
                for run in runs {
                    target[run.target..run.target + run.len].copy_from_slice(&source[run.source..run.source + run.len]);
                }
            }
        }
        NodeValue { values, channels: routes.len, size }
    }
}
