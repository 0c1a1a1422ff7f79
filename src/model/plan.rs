//! How large everything is and becomes: widths of the fused network, its costs and those of the members.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::problem::{Code, Fault, Problem};
use crate::model::graph::{Graph, Node, NodeId, Op};
use crate::model::groups::{Axis, Couplings, Owner};
use crate::model::parameters::{self, Role};

/// Bytes of a weight in memory, and in the files that are written.
const WEIGHT_BYTES: u64 = 4;

/// How large the fused network becomes.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Target {
    /// Total width divided by the number of members.
    #[default]
    Member,
    /// The widths of the member with this index.
    WidthsOf(usize),
    /// A factor of the member width, above 0.
    Factor(f64),
}

/// What a network costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Costs {
    /// Trainable weights; running statistics are not counted.
    pub parameters: u64,
    /// Multiply-accumulate operations of matrices, convolutions and attentions for one example.
    pub macs: u64,
    /// Bytes of all float tensors at four bytes each.
    pub bytes: u64,
}

impl std::ops::Add for Costs {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            parameters: self.parameters.saturating_add(other.parameters),
            macs: self.macs.saturating_add(other.macs),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl Costs {
    /// Costs of one network.
    #[must_use]
    pub fn of(graph: &Graph) -> Self {
        graph.iter().fold(Self::default(), |costs, (id, node)| costs + Self::of_node(graph, id, node))
    }

    fn of_node(graph: &Graph, id: NodeId, node: &Node) -> Self {
        let mut costs = Self::default();
        let product = |shape: &[usize]| shape.iter().fold(1_u64, |all, &axis| all.saturating_mul(axis as u64));
        for parameter in parameters::of_node(node) {
            let elements = product(&parameter.shape);
            costs.bytes = costs.bytes.saturating_add(elements.saturating_mul(WEIGHT_BYTES));
            if !parameter.role.is_statistic() {
                costs.parameters = costs.parameters.saturating_add(elements);
            }
            let multiplies = match parameter.role {
                Role::Weight => node.op.is_dense() || node.op.convolution().is_some(),
                role => matches!(role, Role::Projection | Role::OutputWeight),
            };
            if multiplies {
                let positions = product(&graph.shape(id)[1..]);
                costs.macs = costs.macs.saturating_add(elements.saturating_mul(positions));
            }
        }
        if let (Op::Attention { features, .. }, [_, tokens]) = (&node.op, &graph.shape(id)[..]) {
            // Queries with keys, and scores with values.
            costs.macs = costs.macs.saturating_add(product(&[2, *tokens, *tokens, *features]));
        }
        costs
    }
}

/// One layer before and after fusion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerPlan {
    /// Name of the layer's module.
    pub name: String,
    /// The coupling group that its outputs are in, named after the group's first producer; none for the output layer.
    pub group: Option<String>,
    /// Units of all members together.
    pub width_before: usize,
    /// Units of the fused network.
    pub width_after: usize,
}

/// The fused network before it is computed.
#[derive(Debug, Clone, PartialEq)]
pub struct FusionPlan {
    /// Units that each coupling group keeps, in pruning order.
    pub targets: Vec<usize>,
    /// The fused network.
    pub fused: Graph,
    /// Every dense layer, in order of computation.
    pub layers: Vec<LayerPlan>,
    /// Costs of the concatenated network, if it were built.
    pub concatenated: Costs,
}

impl FusionPlan {
    /// Plans the fusion of networks of one topology.
    ///
    /// # Errors
    /// `not_supported_yet` where a network has no concatenation; a fault at `/target/width` for widths beyond the members'.
    pub fn new(graphs: &[Graph], target: &Target) -> Result<Self, Problem> {
        let couplings: Result<Vec<Couplings>, _> = graphs.iter().map(Couplings::of).collect();
        let couplings = couplings.map_err(|error| Problem::new(Code::NotSupportedYet, error.to_string()))?;
        let totals: Vec<usize> = (0..couplings[0].groups.len()).map(|group| total(&couplings, group)).collect();
        let targets = targets(&couplings, &totals, target);
        let names: Vec<String> = couplings[0].groups.iter().map(|group| name(&graphs[0], group.producers[0])).collect();
        let faults = beyond(&names, &targets, &totals);
        if !faults.is_empty() {
            return Err(Problem::faults(faults));
        }
        let build = |widths: &[usize]| {
            let graph = with_group_widths(&graphs[0], &couplings[0], widths);
            graph.map_err(|error| Problem::new(Code::Internal, error.to_string()))
        };
        let fused = build(&targets)?;
        let layers = layers(&graphs[0], &couplings[0], &names, &totals, &targets);
        Ok(Self { fused, layers, concatenated: Costs::of(&build(&totals)?), targets })
    }
}

fn total(couplings: &[Couplings], group: usize) -> usize {
    couplings.iter().map(|member| member.groups[group].width).sum()
}

fn name(graph: &Graph, id: NodeId) -> String {
    graph.node(id).name.clone()
}

/// Units to keep: the members' mean width rounded down (exactly total / n, unlike the reference implementation, which
/// loses one to float rounding for some n), a member's, or a factor of the mean.
fn targets(couplings: &[Couplings], totals: &[usize], target: &Target) -> Vec<usize> {
    let mean = |total: usize| (total / couplings.len()).max(1);
    let width = |(group, &total): (usize, &usize)| match target {
        Target::Member => mean(total),
        Target::WidthsOf(member) => couplings[*member].groups[group].width,
        Target::Factor(factor) => ((mean(total) as f64 * factor).round() as usize).max(1),
    };
    totals.iter().enumerate().map(width).collect()
}

/// A fault for each group that cannot grow so large.
fn beyond(names: &[String], targets: &[usize], totals: &[usize]) -> Vec<Fault> {
    let too_wide = names.iter().zip(targets.iter().zip(totals)).filter(|(_, (target, total))| target > total);
    too_wide
        .map(|(name, (target, total))| {
            let detail = format!("layer `{name}` would keep {target} units, the members have {total} together");
            Fault::new("/target/width", "too_wide", detail)
        })
        .collect()
}

/// The network with `widths[i]` units in group i.
fn with_group_widths(
    graph: &Graph,
    couplings: &Couplings,
    widths: &[usize],
) -> Result<Graph, crate::model::graph::GraphError> {
    let length = |axis: &Axis| -> usize {
        let segment = axis.iter().map(|segment| match segment.owner {
            Owner::Group(group) => widths[group.0] * segment.repeat,
            Owner::Input | Owner::Output => segment.len(),
        });
        segment.sum()
    };
    let empty = Axis::new();
    let of = |axes: &BTreeMap<NodeId, Axis>, id| length(axes.get(&id).unwrap_or(&empty));
    parameters::with_widths(graph, |id, _| (of(&couplings.columns, id), of(&couplings.rows, id)))
}

fn layers(
    graph: &Graph,
    couplings: &Couplings,
    names: &[String],
    totals: &[usize],
    targets: &[usize],
) -> Vec<LayerPlan> {
    couplings
        .columns
        .keys()
        .map(|&id| {
            let group = couplings.groups.iter().position(|group| group.producers.contains(&id));
            let outputs = couplings.rows[&id].iter().map(crate::model::groups::Segment::len).sum();
            LayerPlan {
                name: name(graph, id),
                group: group.map(|group| names[group].clone()),
                width_before: group.map_or(outputs, |group| totals[group]),
                width_after: group.map_or(outputs, |group| targets[group]),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::Window;

    /// conv (3 -> width, 5x5 on 8x8), relu, pool, flatten, linear (-> 10).
    fn small(width: usize) -> Graph {
        let ops = [
            Op::Input { shape: vec![3, 8, 8] },
            Op::conv2d(3, width, Window::square(5, 1, 0), true),
            Op::Relu,
            Op::max_pool2d(Window::square(2, 2, 0)),
            Op::Flatten,
            Op::Linear { in_features: width * 4, out_features: 10, bias: false },
        ];
        let names = ["input", "conv", "relu", "pool", "flatten", "fc"];
        let node = |(index, (name, op)): (usize, (&str, Op))| {
            let inputs = index.checked_sub(1).map(NodeId).into_iter().collect();
            Node { name: name.to_owned(), op, inputs }
        };
        Graph::new(names.into_iter().zip(ops).enumerate().map(node).collect()).expect("a valid network")
    }

    #[test]
    fn costs_are_counted_by_hand() {
        let costs = Costs::of(&small(6));
        assert_eq!(costs.parameters, 6 * 3 * 25 + 6 + 10 * 24);
        assert_eq!(costs.macs, 6 * 3 * 25 * 16 + 10 * 24);
        assert_eq!(costs.bytes, 4 * costs.parameters);
    }

    #[test]
    fn targets_are_whole_shares_members_or_factors() {
        let graphs = [small(5), small(6), small(6)];
        let widths = |target: &Target| FusionPlan::new(&graphs, target).map(|plan| plan.targets);
        assert_eq!(widths(&Target::Member), Ok(vec![5]));
        assert_eq!(widths(&Target::WidthsOf(1)), Ok(vec![6]));
        assert_eq!(widths(&Target::Factor(0.5)), Ok(vec![3]));
        assert_eq!(widths(&Target::Factor(1e-3)), Ok(vec![1]));
        let problem = widths(&Target::Factor(4.0)).expect_err("20 of 17 units");
        assert_eq!(problem.errors[0].pointer, "/target/width");
    }

    #[test]
    fn the_plan_shows_every_layer_before_and_after() {
        let plan = FusionPlan::new(&[small(4), small(4)], &Target::Member).expect("a plan");
        assert_eq!(plan.fused, small(4));
        assert_eq!(plan.concatenated, Costs::of(&small(8)));
        let conv = LayerPlan { name: "conv".into(), group: Some("conv".into()), width_before: 8, width_after: 4 };
        let head = LayerPlan { name: "fc".into(), group: None, width_before: 10, width_after: 10 };
        assert_eq!(plan.layers, [conv, head]);
    }
}
