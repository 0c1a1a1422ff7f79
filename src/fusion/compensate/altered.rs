//! Which layers of a fused network compute something else than the members' layers that their rows come from.

use crate::fusion::calibration::mixes;
use crate::fusion::{Ensemble, Selection};
use crate::model::graph::{Graph, NodeId, Op};
use crate::model::groups::{Axis, GroupId};

/// Layers with a matrix or kernels, some of whose rows read something else in the fused network than in their member: units are
/// missing, or are computed from others. In order of computation.
pub(super) fn altered_layers(ensemble: &Ensemble<'_>, selection: &Selection) -> Vec<NodeId> {
    let graph = ensemble.graph();
    let members = ensemble.members().len();
    // For each node and member: whether the member's units there have other values than in the member.
    let mut altered: Vec<Vec<bool>> = Vec::with_capacity(graph.nodes().len());
    let mut layers = Vec::new();
    for (id, node) in graph.iter() {
        let read = groups_read(ensemble, id);
        let over_channels = over_channels(&node.op);
        let of_member = |member: usize| {
            let lost = |group: &GroupId| selection.kept(*group, member).len() < ensemble.widths(*group)[member];
            let joined = |group: &GroupId| selection.width(*group) > selection.kept(*group, member).len();
            node.inputs.iter().any(|input| altered[input.0][member])
                || read.iter().any(lost)
                // It sees the channels of all members together, where each member saw its own.
                || over_channels && read.iter().any(joined)
                // All members have one in the fused network.
                || members > 1 && ensemble.couplings()[0].is_on_input(id)
        };
        let differs: Vec<bool> = (0..members).map(of_member).collect();
        if mixes(&node.op) && (0..members).any(|member| differs[member] && has_rows(ensemble, selection, id, member)) {
            layers.push(id);
        }
        altered.push(differs);
    }
    layers
}

/// Whether the layer's output has something of the member.
fn has_rows(ensemble: &Ensemble<'_>, selection: &Selection, id: NodeId, member: usize) -> bool {
    if ensemble.is_output_layer(id) {
        return ensemble.shares().members()[member] > 0.0;
    }
    ensemble.rows(0, id).groups().any(|group| !selection.kept(group, member).is_empty())
}

/// The groups whose units decide what one unit of the node computes.
fn groups_read(ensemble: &Ensemble<'_>, id: NodeId) -> Vec<GroupId> {
    let graph: &Graph = ensemble.graph();
    let op = &graph.node(id).op;
    let axis = if op.is_dense() {
        Some(ensemble.columns(0, id))
    } else if over_channels(op) {
        Some(ensemble.rows(0, id))
    } else {
        None
    };
    let heads = ensemble.couplings()[0].attentions.get(&id);
    axis.into_iter().chain(heads).flat_map(Axis::groups).collect()
}

/// Whether the operation compares all channels of a position with each other.
fn over_channels(op: &Op) -> bool {
    let norm = matches!(op, Op::LayerNorm { .. } | Op::GroupNorm { group_width: None, .. });
    norm || matches!(op, Op::GlobalResponseNorm { .. } | Op::Softmax)
}
