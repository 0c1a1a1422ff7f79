//! Coupling groups: which units (channels, neurons) must be kept or dropped together, in which tensors they stand, and
//! in which order the groups are pruned.
//!
//! One algorithm serves every network. Each dense operation makes fresh units, one per output channel; operations that
//! work channel by channel hand the units of their operand on; flatten repeats each unit for every position; a sum
//! makes the units of its operands, pair by pair, the same. Producers that share a unit form a group, and an axis of a
//! tensor is then a list of [`Segment`]s of groups. The network's input and its outputs are in no group.

mod owners;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::problem::{Code, Problem};
use crate::model::graph::{Graph, Node, NodeId, Op};
use owners::Owners;
use units::Units;

/// Most channels of all nodes together.
pub const MAX_UNITS: usize = 1 << 23;

/// A group's position in the pruning order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub usize);

/// Whose units a stretch of an axis holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The network's input: the same for all members.
    Input,
    /// The network's outputs: the same for all members.
    Output,
    /// Units of a group.
    Group(GroupId),
}

/// A stretch of an axis: `units` units from `first` on, each at `repeat` neighbouring positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Whose units.
    pub owner: Owner,
    /// Index of the first unit in its group (for input and output: the channel).
    pub first: usize,
    /// Number of units.
    pub units: usize,
    /// Positions per unit.
    pub repeat: usize,
}

impl Segment {
    /// Number of positions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.units * self.repeat
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An axis of a tensor, from its first position to its last.
pub type Axis = Vec<Segment>;

/// Units that live and die together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Number of units.
    pub width: usize,
    /// Dense operations whose outputs are these units, in the order in which the walk met them.
    pub producers: Vec<NodeId>,
    /// Dense operations that read them, in order of computation.
    pub consumers: Vec<NodeId>,
    /// Normalisations that act on them, in order of computation.
    pub norms: Vec<NodeId>,
}

/// All coupling groups of a network and the axes of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Couplings {
    /// The groups, in pruning order.
    pub groups: Vec<Group>,
    /// Output axis of every node with weights.
    pub rows: BTreeMap<NodeId, Axis>,
    /// Input axis of every dense node.
    pub columns: BTreeMap<NodeId, Axis>,
    /// Dense operations whose outputs are the network's outputs.
    pub heads: Vec<NodeId>,
}

/// Why a network's units cannot be told apart member by member.
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
    /// When a sum mixes hidden units with the network's input, when outputs are also read inside the network, when a
    /// normalisation acts on the input or the outputs, or when an output passes through a nonlinear operation: such
    /// networks have no concatenation that computes the mean of the members. Also when there are over [`MAX_UNITS`] units.
    pub fn of(graph: &Graph) -> Result<Self, CouplingError> {
        refuse_too_many(graph)?;
        refuse_unknown(graph)?;
        let mut units = Units::trace(graph);
        let order = producers_in_walk_order(graph);
        let owners = Owners::assign(graph, &mut units, &order)?;
        let mut couplings = Self {
            groups: owners.groups.clone(),
            rows: BTreeMap::new(),
            columns: BTreeMap::new(),
            heads: owners.heads.clone(),
        };
        for (id, node) in graph.iter() {
            if node.op.is_dense() {
                couplings.columns.insert(id, owners.axis(&mut units, node.inputs[0]));
            }
            if node.op.has_parameters() {
                couplings.rows.insert(id, owners.axis(&mut units, id));
            }
        }
        couplings.attach_readers(graph)?;
        Ok(couplings)
    }

    /// The group with this id.
    #[must_use]
    pub fn group(&self, id: GroupId) -> &Group {
        &self.groups[id.0]
    }

    /// Enters consumers and normalisations into their groups and refuses what has no concatenation.
    fn attach_readers(&mut self, graph: &Graph) -> Result<(), CouplingError> {
        for (id, node) in graph.iter().filter(|(_, node)| node.op.has_parameters()) {
            let dense = node.op.is_dense();
            let axis = if dense { &self.columns[&id] } else { &self.rows[&id] };
            let owners: BTreeSet<Owner> = axis.iter().map(|segment| segment.owner).collect();
            for owner in owners {
                match owner {
                    Owner::Group(group) if dense => self.groups[group.0].consumers.push(id),
                    Owner::Group(group) => self.groups[group.0].norms.push(id),
                    Owner::Input if dense => {}
                    Owner::Input => {
                        return Err(refuse(node, "it normalises the network's input, which the members share"));
                    }
                    Owner::Output => {
                        return Err(refuse(
                            node,
                            "it reads the network's outputs, which are averaged over the members",
                        ));
                    }
                }
            }
        }
        Ok(())
    }
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

/// Refuses operations whose units cannot be told apart yet.
fn refuse_unknown(graph: &Graph) -> Result<(), CouplingError> {
    let known = |op: &Op| {
        let dense = matches!(op, Op::Linear { .. } | Op::Conv2d { group_width: None, .. });
        let pool = matches!(op, Op::MaxPool2d { .. } | Op::AvgPool2d { .. } | Op::GlobalAvgPool2d);
        dense || pool || matches!(op, Op::Input { .. } | Op::BatchNorm { .. } | Op::Relu | Op::Flatten | Op::Add)
    };
    let unknown = graph.nodes().iter().find(|node| !known(&node.op));
    unknown.map_or(Ok(()), |node| Err(refuse(node, "fusing networks with this operation is not supported yet")))
}

impl From<CouplingError> for Problem {
    fn from(error: CouplingError) -> Self {
        Self::new(Code::NotSupportedYet, error.to_string())
    }
}

fn refuse(node: &Node, detail: &str) -> CouplingError {
    CouplingError { node: node.name.clone(), detail: detail.to_owned() }
}

/// Dense nodes in the order in which a walk from the output meets them: pop a node, register its operands in order and
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
    registered.retain(|id| graph.node(*id).op.is_dense());
    registered
}

#[cfg(test)]
mod tests;
