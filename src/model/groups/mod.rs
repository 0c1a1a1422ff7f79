//! Coupling groups: which units (channels, neurons) must be kept or dropped together, in which tensors they stand, and
//! in which order the groups are pruned.
//!
//! One algorithm serves every network. Each dense operation makes fresh units, one per output channel; operations that
//! work channel by channel hand the units of their operand on; flatten repeats each unit for every position; sums and
//! products make the units of their operands, pair by pair, the same (so a squeeze-excite gate lives and dies with what
//! it gates, while its inner width is a group of its own); a concatenation puts its operands' units one after another.
//!
//! Where channels fall into groups, the units of one such group become one unit: a grouped convolution loses whole groups,
//! inputs and outputs together, and keeps the width of the others; so does a GroupNorm of several groups. Any set of
//! units can then be dropped and what is left is a network of the same kind. In a depthwise convolution that is a channel.
//!
//! Units that come out of the same producers form a group, and an axis of a tensor is then a list of [`AxisSegment`]s of
//! groups. Where a sum meets a concatenation, one of its producers makes the units of several groups, each of which keeps
//! as many as it is to. The network's input and its outputs are in no group.
//!
//! Channels of zeros that are added to a layer's are units of that layer, in a group of their own.
//!
//! The heads of an attention are a group of their own behind all others. A head keeps its width, so a network with fewer
//! channels has fewer heads in the same proportion: the heads of a fused network follow from its channels.

mod axis;
mod owners;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::problem::{Code, Problem};
use crate::model::graph::{Graph, Node, NodeId, Op};
use crate::model::parameters::Role;
pub use axis::{Axis, AxisSegment, GroupId, Owner, Placed};
use owners::Owners;
use units::Units;

/// Most channels of all nodes together.
pub const MAX_UNITS: usize = 1 << 22;

/// Units that live and die together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Number of units.
    pub width: usize,
    /// Dense operations whose outputs are these units (each makes all of them, and some make units of other groups as
    /// well), in the order in which the walk met them.
    pub producers: Vec<NodeId>,
    /// Dense operations that read them, in order of computation.
    pub consumers: Vec<NodeId>,
    /// Operations with weights of their own for each of them, in order of computation: normalisations, depthwise and
    /// grouped convolutions, layer scales, embeddings.
    pub channelwise: Vec<NodeId>,
}

/// All coupling groups of a network and the axes of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Couplings {
    /// The groups, in pruning order.
    pub groups: Vec<Group>,
    /// Output axis of every node that does not treat channels alike and by themselves: those with weights, softmax, and channels of
    /// zeros.
    pub rows: BTreeMap<NodeId, Axis>,
    /// Input axis of every matrix, convolution and attention.
    pub columns: BTreeMap<NodeId, Axis>,
    /// For every attention the axis between its projections: its heads, each with the width of a head.
    pub attentions: BTreeMap<NodeId, Axis>,
    /// Dense operations whose outputs are the network's outputs.
    pub output_layers: Vec<NodeId>,
    /// The node up to which the mean of the members is exact: the network's output, or, where a function bends the outputs on
    /// their way there (a last ReLU), what that function reads.
    pub linear_end: NodeId,
}

/// Why a network's units cannot be separated member by member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node `{node}`: {detail}")]
pub struct CouplingError {
    /// The node at fault.
    pub node: String,
    /// What is wrong.
    pub detail: String,
}

impl Couplings {
    /// Works out the groups of `graph`.
    ///
    /// # Errors
    /// When a sum mixes hidden units with the network's input, when outputs are also read inside the network, when an
    /// operation has weights for each channel of the outputs, or for those of the input without keeping them apart, or when an output passes through a softmax, or through a nonlinear
    /// operation that is not the last but means and reshapes: such networks have no concatenation that computes the mean of the members. Nor have those whose
    /// concatenations cut through the groups of a convolution, or meet differently in a sum. Also when there are over
    /// [`MAX_UNITS`] units.
    pub fn of(graph: &Graph) -> Result<Self, CouplingError> {
        refuse_too_many(graph)?;
        let mut units = Units::trace(graph);
        let order = producers_in_walk_order(graph);
        let owners = Owners::assign(graph, &mut units, &order)?;
        let axes: Vec<Axis> = graph.iter().map(|(id, _)| owners.axis(&mut units, id)).collect();
        refuse_misfits(graph, &axes)?;
        refuse_mixed_inputs(graph, &axes)?;
        let (mut rows, mut columns) = (BTreeMap::new(), BTreeMap::new());
        for (id, node) in graph.iter() {
            if node.op.is_dense() || node.op.convolution().is_some() {
                columns.insert(id, axes[node.inputs[0].0].clone());
            }
            if node.op.has_parameters() || matches!(node.op, Op::Softmax | Op::Zeros { .. }) {
                rows.insert(id, axes[id.0].clone());
            }
        }
        let attentions = BTreeMap::new();
        let mut couplings = Self {
            groups: owners.groups,
            rows,
            columns,
            attentions,
            output_layers: owners.output_layers,
            linear_end: owners.linear_end,
        };
        couplings.attach_readers(graph)?;
        couplings.attach_heads(graph);
        Ok(couplings)
    }

    /// The group with this id.
    #[must_use]
    pub fn group(&self, id: GroupId) -> &Group {
        &self.groups[id.0]
    }

    /// The groups whose units a node with weights hands on, in the order of its channels.
    #[must_use]
    pub fn groups_of(&self, node: NodeId) -> Vec<GroupId> {
        let mut groups = Vec::new();
        for group in self.rows.get(&node).into_iter().flat_map(Axis::groups) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        groups
    }

    /// A group's name: that of the first layer that makes its units and no others; without one, those of all its layers.
    #[must_use]
    pub fn name(&self, graph: &Graph, id: GroupId) -> String {
        if let Some(attention) = self.attention_of(id) {
            return format!("{} (heads)", graph.node(attention).name);
        }
        let producers = &self.group(id).producers;
        let own = producers.iter().find(|producer| self.groups_of(**producer).len() == 1);
        let names = own.map_or(&producers[..], std::slice::from_ref).iter();
        names.map(|producer| graph.node(*producer).name.as_str()).collect::<Vec<_>>().join(" & ")
    }

    /// Whether the node's inputs or outputs are units of `group`.
    #[must_use]
    pub fn touches(&self, group: GroupId, node: NodeId) -> bool {
        let Group { producers, consumers, channelwise, .. } = self.group(group);
        producers.iter().chain(consumers).chain(channelwise).any(|id| *id == node)
    }

    /// The attention whose heads are the units of `group`, if there is one.
    #[must_use]
    pub fn attention_of(&self, group: GroupId) -> Option<NodeId> {
        self.attentions.iter().find(|(_, axis)| axis.holds(Owner::Group(group))).map(|(id, _)| *id)
    }

    /// Whether units of `group` are heads of an attention, or channels that one reads or writes.
    #[must_use]
    pub fn meets_attention(&self, group: GroupId) -> bool {
        let holds = |axis: &Axis| axis.holds(Owner::Group(group));
        let on = |id: &NodeId| holds(&self.rows[id]) || holds(&self.columns[id]);
        self.attentions.iter().any(|(id, axis)| holds(axis) || on(id))
    }

    /// The axes of a tensor with this role at `node`: that of its rows and, where it has columns, that of these.
    #[must_use]
    pub fn axes(&self, node: NodeId, role: Role, separate: bool) -> (Axis, Option<Axis>) {
        let rows = || self.rows.get(&node).cloned().unwrap_or_default();
        let heads = || self.attentions.get(&node).cloned().unwrap_or_default();
        // Queries, keys and values are one tensor, or one each.
        let projection = || heads().repeated(if separate { 1 } else { 3 });
        match role {
            Role::Projection => (projection(), self.columns.get(&node).cloned()),
            Role::ProjectionBias => (projection(), None),
            Role::OutputWeight => (rows(), Some(heads())),
            Role::Weight => (rows(), self.columns.get(&node).cloned()),
            _ => (rows(), None),
        }
    }

    /// Whether a node with weights works on the input's channels one by one. They stay as they are, so a fused network has one
    /// such node in the place of each member's own.
    #[must_use]
    pub fn is_on_input(&self, node: NodeId) -> bool {
        self.rows.get(&node).is_some_and(|axis| axis.holds(Owner::Input))
    }

    /// Opens a group for the heads of every attention.
    fn attach_heads(&mut self, graph: &Graph) {
        for (id, node) in graph.iter() {
            let Op::Attention { features, heads, .. } = node.op else { continue };
            let owner = Owner::Group(GroupId(self.groups.len()));
            let (producers, consumers, channelwise) = (Vec::new(), Vec::new(), Vec::new());
            self.groups.push(Group { width: heads, producers, consumers, channelwise });
            let heads = AxisSegment { owner, first: 0, units: heads, repeat: features / heads };
            self.attentions.insert(id, Axis::from_iter([heads]));
        }
    }

    /// Enters consumers and channel-wise operations into their groups and refuses what has no concatenation.
    fn attach_readers(&mut self, graph: &Graph) -> Result<(), CouplingError> {
        for (id, node) in graph.iter().filter(|(_, node)| node.op.has_parameters()) {
            let dense = node.op.is_dense();
            let axis = if dense { &self.columns[&id] } else { &self.rows[&id] };
            let owners: BTreeSet<Owner> = axis.segments().iter().map(|segment| segment.owner).collect();
            for owner in owners {
                match owner {
                    Owner::Group(group) if dense => self.groups[group.0].consumers.push(id),
                    Owner::Group(group) => self.groups[group.0].channelwise.push(id),
                    Owner::Input if dense || keeps_channels(&node.op) => {}
                    Owner::Input => {
                        let detail = "it has weights for each channel of the network's input, which the members share";
                        return Err(refuse(node, detail));
                    }
                    Owner::Output => return Err(refuse(node, READS_OUTPUTS)),
                }
            }
        }
        Ok(())
    }
}

/// Why nothing may read outputs.
const READS_OUTPUTS: &str = "it reads the network's outputs, which are averaged over the members";

/// Refuses operations whose operands would not be stacked in a way that suits them.
fn refuse_misfits(graph: &Graph, axes: &[Axis]) -> Result<(), CouplingError> {
    for (id, node) in graph.iter() {
        let operand = |index: usize| &axes[node.inputs[index].0];
        let positions = |id: NodeId| graph.shape(id)[1..].iter().product::<usize>();
        // Values of a unit that stand side by side, and how many of them belong together.
        let (side_by_side, width) = match node.op {
            Op::Add | Op::Multiply if operand(0) != operand(1) => {
                return Err(refuse(node, "its operands are concatenated in different ways"));
            }
            Op::GroupNorm { group_width: Some(width), .. } => (1, width),
            Op::Reshape { .. } => (positions(node.inputs[0]), positions(id)),
            _ => match node.op.convolution().and_then(|conv| conv.group_width) {
                Some(width) => (1, width),
                None => continue,
            },
        };
        if operand(0).segments().iter().any(|segment| !(segment.repeat * side_by_side).is_multiple_of(width)) {
            return Err(refuse(node, "a concatenation cuts through what belongs together here"));
        }
    }
    Ok(())
}

/// Whether the operation has weights for each channel and takes each by itself: such may also stand before the first layer.
fn keeps_channels(op: &Op) -> bool {
    let alone =
        op.convolution().is_some_and(|conv| conv.group_width == Some(1) && conv.in_channels == conv.out_channels);
    alone || matches!(op, Op::BatchNorm { .. } | Op::LayerScale { .. })
}

/// Refuses operations that put what the members make of the input's channels beside units of layers: the former are not stacked.
fn refuse_mixed_inputs(graph: &Graph, axes: &[Axis]) -> Result<(), CouplingError> {
    let mut own = vec![false; axes.len()];
    for (id, node) in graph.iter() {
        let on_input = node.op.has_parameters() && axes[id.0].holds(Owner::Input);
        own[id.0] = !node.op.is_dense() && (on_input || node.inputs.iter().any(|input| own[input.0]));
        if own[id.0] && axes[id.0].segments().iter().any(|segment| segment.owner != Owner::Input) {
            return Err(refuse(node, "it puts channels of the input that were normalised beside those of a layer"));
        }
    }
    Ok(())
}

/// Keeps the memory that groups take within bounds.
fn refuse_too_many(graph: &Graph) -> Result<(), CouplingError> {
    let mut units = 0;
    for (id, node) in graph.iter() {
        units += graph.shape(id)[0];
        if units > MAX_UNITS {
            return Err(refuse(node, &format!("the layers up to here have more than {MAX_UNITS} channels together")));
        }
    }
    Ok(())
}

impl From<CouplingError> for Problem {
    fn from(error: CouplingError) -> Self {
        Self::new(Code::NotSupportedYet, error.to_string())
    }
}

fn refuse(node: &Node, detail: &str) -> CouplingError {
    CouplingError { node: node.name.clone(), detail: detail.to_owned() }
}

/// Matrices, convolutions, attentions and channels of zeros in the order in which a walk from the output meets them: pop a node, register its operands in order and
/// push them, so that the last operand's branch is walked first (the order of the reference implementation).
fn producers_in_walk_order(graph: &Graph) -> Vec<NodeId> {
    let mut registered = vec![graph.output()];
    let mut seen = BTreeSet::from([graph.output()]);
    let mut walked = BTreeSet::new();
    let mut stack = vec![graph.output()];
    while let Some(id) = stack.pop() {
        if !walked.insert(id) {
            continue;
        }
        for &input in &graph.node(id).inputs {
            if seen.insert(input) {
                registered.push(input);
            }
            stack.push(input);
        }
    }
    let makes = |op: &Op| op.is_dense() || op.convolution().is_some() || matches!(op, Op::Zeros { .. });
    registered.retain(|id| makes(&graph.node(*id).op));
    registered
}

#[cfg(test)]
mod tests;
