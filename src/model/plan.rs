//! How large everything is and becomes: widths of the fused network, its costs and those of the members.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::model::allocate::{self, Curve, Ledger};
use crate::model::costs::Costs;
use crate::model::graph::{Graph, GraphError, NodeId};
use crate::model::groups::{Axis, Couplings, GroupId};
use crate::model::parameters;
use crate::model::precision::Precision;
use crate::model::ranges::{self, Range};
use crate::settings::{Allocation, Budget, Size, Target};

/// One layer before and after fusion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LayerPlan {
    /// Name of the layer's module.
    pub name: String,
    /// The coupling group that its outputs are in, named after the first layer that makes no other units; the names of
    /// several groups where a sum meets a concatenation; none for the output layer.
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
    /// For each of `layers`, the groups whose units are its outputs.
    pub groups: Vec<Vec<GroupId>>,
    /// Costs of the concatenated network, if it were built.
    pub concatenated: Costs,
}

impl FusionPlan {
    /// Plans the fusion of networks of one topology into one with weights of `precision`. A budget that is to be spent by
    /// sensitivity is spent evenly as long as there are no `curves`, one per group in pruning order.
    ///
    /// # Errors
    /// `not_supported_yet` where a network has no concatenation; every fault of the target, with pointers below `/target`.
    pub fn new(
        graphs: &[Graph],
        target: &Target,
        precision: &Precision,
        curves: Option<&[Curve]>,
    ) -> Result<Self, Problem> {
        let couplings: Result<Vec<Couplings>, _> = graphs.iter().map(Couplings::of).collect();
        let couplings = couplings.map_err(|error| Problem::new(Code::NotSupportedYet, error.to_string()))?;
        // Heads follow from the channels.
        let mut ranges = ranges::of_groups(graphs, &couplings, target).map_err(Problem::faults)?;
        let own = couplings[0].groups.len() - couplings[0].attentions.len();
        let totals: Vec<usize> = ranges.iter().map(|range| range.total).collect();
        ranges.truncate(own);
        let groups = (0..couplings[0].groups.len()).map(GroupId);
        let names: Vec<String> = groups.map(|group| couplings[0].name(&graphs[0], group)).collect();
        let targets = match target.size {
            Size::Budget(budget) => {
                let ledger = Ledger::new(&graphs[0], &couplings[0], precision);
                spend(ledger, &ranges, budget, curves)?
            }
            size => widths(&couplings, &ranges, size, &names).map_err(Problem::faults)?,
        };
        let heads = heads(graphs, &couplings, &targets)?;
        let targets = [targets, heads].concat();
        let build = |widths: &[usize]| {
            let graph = with_group_widths(&graphs[0], &couplings[0], widths);
            graph.map_err(|error| Problem::new(Code::Internal, error.to_string()))
        };
        let layers = layers(&graphs[0], &couplings[0], &names, &totals, &targets);
        let concatenated = Costs::of(&build(&totals)?, precision);
        let groups = couplings[0].columns.keys().map(|id| couplings[0].groups_of(*id)).collect();
        Ok(Self { fused: build(&targets)?, layers, groups, concatenated, targets })
    }
}

/// As many heads as the channels of each attention make.
///
/// # Errors
/// Where the members' heads differ in width, and where an attention would have fewer channels on one side than on the other.
fn heads(graphs: &[Graph], couplings: &[Couplings], targets: &[usize]) -> Result<Vec<usize>, Problem> {
    let first = &couplings[0];
    let heads = first.attentions.iter().map(|(id, axis)| {
        let width_of = |axis: &Axis| axis.segments().first().map_or(1, |segment| segment.repeat);
        let width = width_of(axis);
        let node = &graphs[0].node(*id).name;
        let refuse = |detail: &str| Problem::new(Code::NotSupportedYet, format!("node `{node}`: {detail}"));
        if couplings.iter().any(|other| width_of(&other.attentions[id]) != width) {
            return Err(refuse("the members' heads have different widths; heads of one width are fused"));
        }
        let len = |axis: &Axis| axis.len_with(|GroupId(group)| targets[group]);
        let [rows, columns] = [&first.rows[id], &first.columns[id]].map(len);
        if rows != columns || !rows.is_multiple_of(width) {
            return Err(refuse("it would read other channels than it writes, or no whole heads; give both one width"));
        }
        Ok(rows / width)
    });
    heads.collect()
}

fn name(graph: &Graph, id: NodeId) -> String {
    graph.node(id).name.clone()
}

/// Widths as a budget allows.
fn spend(
    ledger: Ledger<'_>,
    ranges: &[Range],
    budget: Budget,
    curves: Option<&[Curve]>,
) -> Result<Vec<usize>, Problem> {
    let spent = match curves {
        Some(curves) if budget.allocation == Allocation::Sensitivity => {
            allocate::by_sensitivity(ledger, ranges, budget, curves)
        }
        _ => allocate::uniform(ledger, ranges, budget),
    };
    spent.map_err(|too_small| {
        let name = budget.resource.name();
        let detail = format!(
            "expected at least {}, which the narrowest network of this architecture costs, got {}",
            too_small.smallest, budget.limit
        );
        Problem::faults(vec![Fault::new(format!("/target/{name}"), FaultCode::BudgetTooSmall, detail)])
    })
}

/// Widths by a rule for each group: the member width, that of one of the members, or a factor of the member width; the
/// nearest that the target leaves to the group.
fn widths(couplings: &[Couplings], ranges: &[Range], size: Size, names: &[String]) -> Result<Vec<usize>, Vec<Fault>> {
    let requested = |group: usize, range: &Range| match size {
        Size::WidthsOf(member) => couplings[member].groups[group].width,
        Size::Factor(factor) => ranges::scaled(range.member, factor),
        Size::Member | Size::Budget(_) => range.member,
    };
    let requested: Vec<usize> = ranges.iter().enumerate().map(|(group, range)| requested(group, range)).collect();
    let of_groups = names.iter().zip(ranges).zip(&requested);
    let too_wide = of_groups.filter(|((_, range), width)| **width > range.total && range.least < range.most);
    let faults: Vec<Fault> = too_wide
        .map(|((name, range), width)| {
            let detail = format!("layer `{name}` would keep {width} units, the members have {} together", range.total);
            Fault::new("/target/width", FaultCode::TooWide, detail)
        })
        .collect();
    if faults.is_empty() {
        Ok(ranges.iter().zip(requested).map(|(range, width)| range.nearest(width)).collect())
    } else {
        Err(faults)
    }
}

/// The network with `widths[i]` units in group i.
fn with_group_widths(graph: &Graph, couplings: &Couplings, widths: &[usize]) -> Result<Graph, GraphError> {
    let of = |axes: &BTreeMap<NodeId, Axis>, id| {
        axes.get(&id).map_or(0, |axis| axis.len_with(|GroupId(group)| widths[group]))
    };
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
            let rows = &couplings.rows[&id];
            let groups: Vec<&str> = couplings.groups_of(id).iter().map(|group| names[group.0].as_str()).collect();
            let group = (!groups.is_empty()).then(|| groups.join(", "));
            let len = |widths: &[usize]| rows.len_with(|GroupId(group)| widths[group]);
            LayerPlan { name: name(graph, id), group, width_before: len(totals), width_after: len(targets) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::{Node, Op, Window};
    use crate::settings::{LayerSize, Resource};

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

    fn plan(graphs: &[Graph], target: &Target) -> Result<FusionPlan, Problem> {
        FusionPlan::new(graphs, target, &Precision::default(), None)
    }

    fn fault(problem: &Problem) -> (&str, &str) {
        (&problem.errors[0].pointer, problem.errors[0].code.as_str())
    }

    #[test]
    fn costs_are_counted_by_hand() {
        let costs = Costs::of(&small(6), &Precision::default());
        assert_eq!(costs.parameters, 6 * 3 * 25 + 6 + 10 * 24);
        assert_eq!(costs.macs, 6 * 3 * 25 * 16 + 10 * 24);
        assert_eq!(costs.bytes, 4 * costs.parameters);
    }

    #[test]
    fn targets_are_whole_shares_members_or_factors() {
        let graphs = [small(5), small(6), small(6)];
        let widths = |size: Size| plan(&graphs, &size.into()).map(|plan| plan.targets);
        assert_eq!(widths(Size::Member), Ok(vec![5]));
        assert_eq!(widths(Size::WidthsOf(1)), Ok(vec![6]));
        assert_eq!(widths(Size::Factor(0.5)), Ok(vec![3]));
        assert_eq!(widths(Size::Factor(1e-3)), Ok(vec![1]));
        let problem = widths(Size::Factor(4.0)).expect_err("20 of 17 units");
        assert_eq!(fault(&problem), ("/target/width", "too_wide"));
    }

    fn budget(resource: Resource, limit: u64) -> Size {
        Size::Budget(Budget { resource, limit, allocation: Allocation::Uniform })
    }

    #[test]
    fn a_budget_is_spent_to_the_last_unit_and_never_exceeded() {
        // A unit costs 75 + 1 weights in the convolution and 40 in the matrix.
        let graphs = [small(8), small(8)];
        let widths = |limit| plan(&graphs, &budget(Resource::Parameters, limit).into()).map(|plan| plan.targets);
        assert_eq!([116, 231, 232, 580, 10_000].map(widths), [1, 1, 2, 5, 16].map(|width| Ok(vec![width])));
        let problem = widths(115).expect_err("not even one unit");
        assert_eq!(fault(&problem), ("/target/params", "budget_too_small"));
        assert!(problem.detail.contains("116"), "{problem}");
        let bytes = plan(&graphs, &budget(Resource::Bytes, 4 * 232).into()).expect("a plan");
        assert_eq!(bytes.targets, [2]);
    }

    #[test]
    fn multiples_kept_layers_and_single_widths_bound_a_group() {
        let graphs = [small(6), small(6)];
        let widths = |target: Target| plan(&graphs, &target).map(|plan| plan.targets[0]);
        let rounded = |size: Size, round_to| widths(Target { round_to, ..size.into() });
        assert_eq!(rounded(Size::Member, 4), Ok(8));
        assert_eq!(rounded(Size::Factor(0.1), 4), Ok(4));
        assert_eq!(rounded(budget(Resource::Parameters, 1000), 4), Ok(8));
        assert_eq!(fault(&rounded(Size::Member, 16).expect_err("12 units")), ("/target/round_to", "too_wide"));
        let keep = vec!["conv".to_owned(), "fc".to_owned()];
        assert_eq!(widths(Target { keep: keep.clone(), ..Size::Factor(0.5).into() }), Ok(6));
        let tight = Target { keep: keep.clone(), ..budget(Resource::Parameters, 600).into() };
        assert!(widths(tight).expect_err("six units cost 696").detail.contains("696"));
        let layers = |name: &str, size| std::collections::BTreeMap::from([(name.to_owned(), size)]);
        let single = |name, size| widths(Target { layers: layers(name, size), ..Target::default() });
        assert_eq!(single("conv", LayerSize::Width(11)), Ok(11));
        assert_eq!(single("conv", LayerSize::Factor(1.5)), Ok(9));
        assert_eq!(fault(&single("conv", LayerSize::Width(13)).expect_err("12")), ("/target/layers/conv", "too_wide"));
        assert_eq!(fault(&single("fc", LayerSize::Width(3)).expect_err("the output layer")).0, "/target/layers/fc");
        assert_eq!(
            fault(&single("relu", LayerSize::Width(3)).expect_err("none")),
            ("/target/layers/relu", "unknown_layer")
        );
        let both = Target { keep, layers: layers("conv", LayerSize::Width(5)), ..Target::default() };
        assert_eq!(fault(&widths(both).expect_err("kept")), ("/target/layers/conv", "too_narrow"));
    }

    #[test]
    fn the_plan_shows_every_layer_before_and_after() {
        let plan = plan(&[small(4), small(4)], &Target::default()).expect("a plan");
        assert_eq!(plan.fused, small(4));
        assert_eq!(plan.concatenated, Costs::of(&small(8), &Precision::default()));
        let conv = LayerPlan { name: "conv".into(), group: Some("conv".into()), width_before: 8, width_after: 4 };
        let output = LayerPlan { name: "fc".into(), group: None, width_before: 10, width_after: 10 };
        assert_eq!(plan.layers, [conv, output]);
    }
}
