//! Members side by side, and their virtual concatenation.

mod consensus;
mod padded;
mod shares;
pub(in crate::fusion) mod sides;
mod weights;

pub use consensus::{Consensus, Mixture, class_shares, mean_probabilities, spread};
pub use padded::PaddedMember;
pub use shares::Shares;
pub use weights::{fit as fit_weights, fit_by_class};

use crate::fusion::FusionError;
use crate::model::graph::{Graph, NodeId, Op};
use crate::model::groups::{Axis, CouplingError, Couplings, GroupId};
use crate::model::parameters;
use crate::tensors::Weights;

/// One trained network.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// What it computes.
    pub graph: &'a Graph,
    /// With which weights.
    pub weights: &'a dyn Weights,
}

impl std::fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("graph", self.graph).finish_non_exhaustive()
    }
}

/// Members of one topology, each with widths of its own.
#[derive(Debug)]
pub struct Ensemble<'a> {
    members: Vec<Member<'a>>,
    couplings: Vec<Couplings>,
    consensus: Consensus,
}

impl<'a> Ensemble<'a> {
    /// Lays the members side by side.
    ///
    /// # Errors
    /// When there are none, when their networks differ in more than their widths, or have no concatenation.
    pub fn new(members: Vec<Member<'a>>) -> Result<Self, FusionError> {
        let couplings: Vec<Couplings> =
            members.iter().map(|member| Couplings::of(member.graph)).collect::<Result<_, _>>()?;
        let Some(first) = couplings.first() else { return Err(FusionError::Empty) };
        for (index, other) in couplings.iter().enumerate().skip(1) {
            let differs = |detail| FusionError::Topology { member: index, detail };
            same_operations(members[0].graph, members[index].graph).map_err(differs)?;
            same_couplings(first, other).map_err(differs)?;
        }
        let classes = members[0].graph.classes();
        let shares = Shares::of_members(shares(&couplings));
        Ok(Self { members, couplings, consensus: Consensus { mixture: Mixture::Logits, shares, classes } })
    }

    /// The same members with other weights in the mean of the outputs, one for each; their sum counts as 1. Weights that do
    /// not fit change nothing.
    #[must_use]
    pub fn weighted(mut self, weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        if weights.len() == self.members.len() && total > 0.0 && total.is_finite() {
            self.consensus.shares = Shares::of_members(weights.iter().map(|weight| weight / total).collect());
        }
        self
    }

    /// The same members with another rule for the ensemble's outputs. Factors of classes need a [linear output layer](Self::output_layer).
    #[must_use]
    pub fn with_consensus(self, consensus: Consensus) -> Self {
        Self { consensus, ..self }
    }

    /// The rule by which the members' outputs become the ensemble's.
    #[must_use]
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// The layer whose rows are the classes; none where the network ends in something else than one linear layer.
    #[must_use]
    pub fn output_layer(&self) -> Option<NodeId> {
        let (graph, layers) = (self.graph(), &self.couplings[0].output_layers);
        let last = graph.output();
        let linear = matches!(graph.node(last).op, Op::Linear { .. }) && graph.is_classifier();
        (linear && layers.len() == 1 && layers.contains(&last)).then_some(last)
    }

    /// The node up to which the concatenation is the mean of the members; see [`Couplings::linear_end`].
    #[must_use]
    pub fn linear_end(&self) -> NodeId {
        self.couplings[0].linear_end
    }

    /// The members.
    #[must_use]
    pub fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    /// The topology that all members share, with the widths of the first.
    #[must_use]
    pub fn graph(&self) -> &'a Graph {
        self.members[0].graph
    }

    /// Whether all members have the same widths.
    #[must_use]
    pub fn has_one_shape(&self) -> bool {
        self.couplings
            .windows(2)
            .all(|pair| pair[0].groups.iter().zip(&pair[1].groups).all(|(a, b)| a.width == b.width))
    }

    /// Groups and axes of each member; the same but for the widths.
    #[must_use]
    pub fn couplings(&self) -> &[Couplings] {
        &self.couplings
    }

    /// Number of coupling groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.couplings[0].groups.len()
    }

    /// Units of a group, member by member.
    #[must_use]
    pub fn widths(&self, group: GroupId) -> Vec<usize> {
        self.couplings.iter().map(|couplings| couplings.group(group).width).collect()
    }

    /// The groups from the input to the output, each where its first units are computed.
    #[must_use]
    pub fn groups_by_depth(&self) -> Vec<GroupId> {
        let couplings = &self.couplings[0];
        let first = |group: &GroupId| {
            let producers = couplings.group(*group).producers.iter().copied();
            producers.chain(couplings.attention_of(*group)).min()
        };
        let mut groups: Vec<GroupId> = (0..self.groups()).map(GroupId).collect();
        groups.sort_by_key(first);
        groups
    }

    /// A group's name.
    #[must_use]
    pub fn group_name(&self, group: GroupId) -> String {
        self.couplings[0].name(self.graph(), group)
    }

    /// How much each member counts in the outputs: by default by its share of the units that the output layer reads.
    #[must_use]
    pub fn shares(&self) -> &Shares {
        &self.consensus.shares
    }

    /// The members' shares.
    #[must_use]
    pub fn member_shares(&self) -> Vec<f32> {
        self.shares().members().iter().map(|share| *share as f32).collect()
    }

    /// Output axis of `node`, as `member` has it.
    pub(super) fn rows(&self, member: usize, node: NodeId) -> &Axis {
        &self.couplings[member].rows[&node]
    }

    /// Input axis of the dense `node`, as `member` has it.
    pub(super) fn columns(&self, member: usize, node: NodeId) -> &Axis {
        &self.couplings[member].columns[&node]
    }

    /// Checks that the heads of every attention have one width in all members: only then can some of them be kept.
    ///
    /// # Errors
    /// Where they do not.
    pub(super) fn check_heads(&self) -> Result<(), CouplingError> {
        for (id, axis) in &self.couplings[0].attentions {
            if self.couplings.iter().any(|couplings| width(&couplings.attentions[id]) != width(axis)) {
                let detail = "the members' heads have different widths; heads of one width are fused";
                return Err(CouplingError { node: self.graph().node(*id).name.clone(), detail: detail.to_owned() });
            }
        }
        Ok(())
    }

    /// Elements of a unit of `group` where it stands: the width of a head for heads of an attention, else 1.
    pub(super) fn elements(&self, group: GroupId) -> usize {
        let attention = self.couplings[0].attention_of(group);
        attention.map_or(1, |id| width(&self.couplings[0].attentions[&id]))
    }

    /// Whether the units that `node` writes are the network's outputs.
    pub(super) fn is_output_layer(&self, node: NodeId) -> bool {
        self.couplings[0].output_layers.contains(&node)
    }
}

/// The width of a head on the axis of an attention's heads.
fn width(heads: &Axis) -> usize {
    heads.segments()[0].repeat
}

/// Checks that two networks do the same, widths aside.
fn same_operations(first: &Graph, other: &Graph) -> Result<(), String> {
    if first.nodes().len() != other.nodes().len() {
        return Err(format!("expected {} nodes, got {}", first.nodes().len(), other.nodes().len()));
    }
    if first.input_shape() != other.input_shape() || first.classes() != other.classes() {
        let ends = |graph: &Graph| format!("input {:?} and {} outputs", graph.input_shape(), graph.classes());
        return Err(format!("expected {}, got {}", ends(first), ends(other)));
    }
    for (a, b) in first.nodes().iter().zip(other.nodes()) {
        if a.name != b.name || a.inputs != b.inputs || !parameters::same_but_widths(&a.op, &b.op) {
            return Err(format!("expected node `{}` ({:?}), got `{}` ({:?})", a.name, a.op, b.name, b.op));
        }
    }
    Ok(())
}

/// Checks that two networks couple their units in the same way.
fn same_couplings(first: &Couplings, other: &Couplings) -> Result<(), String> {
    let owners =
        |axis: &Axis| axis.segments().iter().map(|segment| (segment.owner, segment.repeat)).collect::<Vec<_>>();
    let axes = |couplings: &Couplings| {
        let all = couplings.rows.values().chain(couplings.columns.values());
        all.map(owners).collect::<Vec<_>>()
    };
    if first.groups.len() == other.groups.len() && axes(first) == axes(other) {
        Ok(())
    } else {
        Err("its layers are coupled differently".to_owned())
    }
}

/// Shares of the members by the width of what the output layer reads (algorithms: equal widths give 1/n).
fn shares(couplings: &[Couplings]) -> Vec<f64> {
    let read = |couplings: &Couplings| {
        let axis = couplings.output_layers.first().map(|layer| &couplings.columns[layer]);
        let hidden = axis.into_iter().flat_map(Axis::segments).filter(|segment| segment.owner.group().is_some());
        hidden.map(|segment| segment.units).sum::<usize>()
    };
    let widths: Vec<usize> = couplings.iter().map(read).collect();
    let total: usize = widths.iter().sum();
    let share = |width: usize| if total == 0 { 1.0 / widths.len() as f64 } else { width as f64 / total as f64 };
    widths.iter().map(|&width| share(width)).collect()
}
