//! Budgets are never exceeded, and spent to the last unit.

use engraft::domain::problem::FaultCode;
use engraft::model::allocate::Curve;
use engraft::model::costs::Costs;
use engraft::model::graph::{Graph, Node};
use engraft::model::groups::{Axis, AxisSegment, Couplings, Group, GroupId, Owner};
use engraft::model::parameters;
use engraft::model::plan::FusionPlan;
use engraft::model::precision::Precision;
use engraft::settings::{Allocation, Budget, Resource, Size, Target};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::networks::{plan, topology};

/// What the network with these widths costs.
fn spent(graph: &Graph, couplings: &Couplings, widths: &[usize], resource: Resource) -> u64 {
    let len = |axis: Option<&Axis>| {
        let len = |segment: &AxisSegment| match segment.owner {
            Owner::Group(GroupId(group)) => widths[group] * segment.repeat,
            Owner::Input | Owner::Output => segment.len(),
        };
        axis.into_iter().flat_map(Axis::segments).map(len).sum::<usize>()
    };
    let widths = |id, _: &Node| (len(couplings.columns.get(&id)), len(couplings.rows.get(&id)));
    Costs::of(&parameters::with_widths(graph, widths).unwrap(), &Precision::default()).get(resource)
}

/// What is requested beside the networks.
#[derive(Debug, Clone)]
struct Asked {
    resource: Resource,
    /// Of what the concatenated network costs.
    share: f64,
    round_to: usize,
    /// A group whose first layer is never to become narrower than a member.
    keep: Option<usize>,
    /// Seed of the curves of an allocation by sensitivity.
    curves: Option<u64>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let resource = prop::sample::select(Resource::ALL.to_vec());
    let all = (resource, 0.001..1.1, 1_usize..5, prop::option::of(0_usize..8), any::<Option<u64>>());
    all.prop_map(|(resource, share, round_to, keep, curves)| Asked { resource, share, round_to, keep, curves })
}

/// A budget is never exceeded, and no group could grow by another step within it; less than the smallest network is
/// refused with what that one costs.
fn check_budget(graphs: &[Graph], &Asked { resource, share, round_to, keep, curves }: &Asked) {
    let precision = Precision::default();
    let couplings = Couplings::of(&graphs[0]).unwrap();
    let total =
        |group: usize| graphs.iter().map(|graph| Couplings::of(graph).unwrap().groups[group].width).sum::<usize>();
    let totals: Vec<usize> = (0..couplings.groups.len()).map(total).collect();
    let spent = |widths: &[usize]| spent(&graphs[0], &couplings, widths, resource);
    let most = spent(&totals);
    let limit = ((most as f64 * share) as u64).max(1);
    let allocation = if curves.is_some() { Allocation::Sensitivity } else { Allocation::Uniform };
    let size = Size::Budget(Budget { resource, limit, allocation });
    let kept = keep.filter(|_| !totals.is_empty()).map(|group| couplings.groups[group % totals.len()].producers[0]);
    let keep = kept.iter().map(|id| graphs[0].node(*id).name.clone()).collect();
    let target = Target { round_to, keep, ..size.into() };
    let least = |(group, total): (&Group, &usize)| {
        let member = (total / graphs.len()).max(1);
        match member.next_multiple_of(round_to) {
            _ if !kept.is_some_and(|id| group.producers.contains(&id)) => round_to,
            rounded if rounded <= *total => rounded,
            _ => member,
        }
    };
    let least: Vec<usize> = couplings.groups.iter().zip(&totals).map(least).collect();
    let curves = curves.map(|seed| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let curve = |total: &usize| {
            let mut points: Vec<(usize, f64)> = (1..*total).map(|width| (width, rng.random())).collect();
            points.push((*total, 0.0));
            Curve { points }
        };
        totals.iter().map(curve).collect::<Vec<_>>()
    });
    let step = |width: usize| (width / round_to + 1) * round_to;
    match FusionPlan::new(graphs, &target, &precision, curves.as_deref()) {
        Ok(plan) => {
            assert_eq!(spent(&plan.targets), Costs::of(&plan.fused, &precision).get(resource));
            assert!(spent(&plan.targets) <= limit, "{:?} costs more than {limit}", plan.targets);
            for group in 0..totals.len() {
                let mut wider = plan.targets.clone();
                assert!(wider[group] == least[group] || wider[group] > least[group] && wider[group] % round_to == 0);
                wider[group] = step(wider[group]);
                if wider[group] <= totals[group] {
                    assert!(spent(&wider) > limit, "{wider:?} would fit into {limit} as well as {:?}", plan.targets);
                }
            }
        }
        Err(problem) if totals.iter().any(|total| *total < round_to) => {
            assert!(problem.errors.iter().all(|fault| fault.pointer == "/target/round_to"), "{problem}");
        }
        Err(problem) => {
            let smallest = spent(&least);
            assert!(smallest > limit, "{problem}");
            assert_eq!(problem.errors[0].code, FaultCode::BudgetTooSmall);
            assert!(problem.detail.contains(&format!("at least {smallest},")), "{problem}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn budgets_are_met_to_the_last_step(
        plan in plan(), count in 1_usize..4, seed in any::<u64>(), asked in asked(),
    ) {
        check_budget(&topology(&plan, count, &mut ChaCha8Rng::seed_from_u64(seed)), &asked);
    }
}
