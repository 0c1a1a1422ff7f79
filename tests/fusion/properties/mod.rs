//! Fusion that streams from the members equals a naive one that builds the concatenated network and prunes it, and a pruned
//! network computes what the whole one does with the same units masked; on random small networks: chains with and
//! without bias, BatchNorm, pooling, flatten, residual sums, concatenations and sums of them, depthwise and grouped
//! convolutions, squeeze-excite, layer scales, shortcuts among zeros, members of any widths. Normalisations over channels and attentions: the
//! virtual concatenation equals the mean of the members.

mod budgets;
mod channels;
mod naive;
mod networks;

use std::collections::BTreeSet;

use engraft::fusion::align::{self, Alignment};
use engraft::fusion::reference::verify;
use engraft::fusion::{self, Ensemble, Member};
use engraft::model::graph::Op;
use engraft::model::groups::{GroupId, Owner};
use engraft::tensors::Weights;
use proptest::prelude::*;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use naive::Naive;
use networks::{Plan, members, noise, plan};

fn targets(ensemble: &Ensemble<'_>, factor: f64) -> Vec<usize> {
    let totals = (0..ensemble.groups()).map(|group| ensemble.widths(GroupId(group)).iter().sum::<usize>());
    totals.map(|total| ((total as f64 * factor) as usize).clamp(1, total)).collect()
}

fn check(plan: &Plan, count: usize, seed: u64, factor: f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (graphs, states) = members(plan, count, &mut rng);
    let list: Vec<Member<'_>> = graphs.iter().zip(&states).map(|(graph, weights)| Member { graph, weights }).collect();
    let ensemble = Ensemble::new(list.clone()).unwrap();
    let concatenated = fusion::materialise(&ensemble).unwrap();

    let batch = 2;
    let inputs = noise(&graphs[0], batch, &mut rng);
    let mean = verify::mean_of_members(&ensemble, &inputs, batch).unwrap();
    let stacked = verify::concatenation(&ensemble, &inputs, batch).unwrap();
    let built = verify::reference(concatenated.as_member(), &inputs, batch).unwrap();
    assert!(verify::Agreement::of(&mean, &stacked).holds(), "virtual concatenation");
    assert!(verify::Agreement::of(&mean, &built).holds(), "materialised concatenation");

    let targets = targets(&ensemble, factor);
    let fused = fusion::joint(&list, &targets).unwrap();

    let naive = Naive::new(&concatenated);
    let mut dropped = BTreeSet::new();
    let couplings = &ensemble.couplings()[0];
    for (index, (group, &target)) in couplings.groups.iter().zip(&targets).enumerate() {
        // Zeros that are added to a layer's units make a group of their own of them.
        let zeros = graphs[0].iter().filter(|(id, node)| {
            matches!(node.op, Op::Zeros { .. }) && couplings.groups_of(*id).contains(&GroupId(index))
        });
        let makers: Vec<_> = group.producers.iter().copied().chain(zeros.map(|(id, _)| id)).collect();
        let units = naive.made_by(&makers);
        let score = |unit: &usize| (naive.score(*unit, &units, &dropped), *unit);
        let mut ranked: Vec<(f64, usize)> = units.iter().map(score).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        dropped.extend(ranked.iter().skip(target).map(|(_, unit)| *unit));
    }
    for name in naive.tensors.keys() {
        assert_eq!(naive.cut(name, &dropped), fused.weights.f32(name).unwrap().to_vec(), "{name} of {:?}", fused.graph);
    }
    assert!(verify::reference(fused.as_member(), &inputs, batch).unwrap().iter().all(|logit| logit.is_finite()));
}

/// Drops units at random through the groups; the same units masked in the whole network must give the same outputs.
fn check_masked(plan: &Plan, seed: u64, factor: f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (graphs, states) = members(plan, 1, &mut rng);
    let member = Member { graph: &graphs[0], weights: &states[0] };
    let ensemble = Ensemble::new(vec![member]).unwrap();
    let any = |ensemble: &Ensemble<'_>, group| {
        Ok(vec![(0..ensemble.widths(group)[0]).map(|_| rng.random_range(0.0..1.0)).collect()])
    };
    let mut any = any;
    let targets = targets(&ensemble, factor);
    let selection = fusion::select(&ensemble, &targets, |ensemble, _, group| any(ensemble, group), |_, _| {}).unwrap();
    let pruned = fusion::gather(&ensemble, &selection).unwrap().build().unwrap();

    let naive = Naive::new(&fusion::materialise(&ensemble).unwrap());
    let couplings = &ensemble.couplings()[0];
    let mut dropped = BTreeSet::new();
    for (id, _) in graphs[0].iter().filter(|(id, _)| couplings.rows.contains_key(id)) {
        let units = couplings.rows[&id]
            .segments()
            .iter()
            .flat_map(|segment| (0..segment.len()).map(|at| (segment.owner, segment.first + at / segment.repeat)));
        for ((owner, unit), naive) in units.zip(&naive.units[id.0]) {
            let kept = match owner {
                Owner::Group(group) => selection.kept(group, 0).contains(&unit),
                Owner::Input | Owner::Output => true,
            };
            dropped.extend((!kept).then_some(*naive));
        }
    }
    let inputs = noise(&graphs[0], 2, &mut rng);
    let masked = naive.masked(&dropped);
    let expected = verify::reference(Member { graph: &graphs[0], weights: &masked }, &inputs, 2).unwrap();
    let got = verify::reference(pruned.as_member(), &inputs, 2).unwrap();
    assert!(verify::Agreement::of(&expected, &got).holds(), "{expected:?} {got:?} of {:?}", pruned.graph);
}

/// Puts the units of every group in another order: the same outputs.
fn check_permuted(plan: &Plan, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (graphs, states) = members(plan, 1, &mut rng);
    let ensemble = Ensemble::new(vec![Member { graph: &graphs[0], weights: &states[0] }]).unwrap();
    let mut order = |width: usize| {
        let mut order: Vec<usize> = (0..width).collect();
        order.shuffle(&mut rng);
        order
    };
    let groups = (0..ensemble.groups()).map(|group| order(ensemble.widths(GroupId(group))[0])).collect();
    let alignment = Alignment { groups, outputs: (0..graphs[0].classes()).collect() };
    let permuted = align::permuted(&ensemble, vec![alignment]);
    let inputs = noise(&graphs[0], 2, &mut rng);
    let expected = verify::reference(ensemble.members()[0], &inputs, 2).unwrap();
    let got = verify::reference(Member { graph: &graphs[0], weights: &permuted[0] }, &inputs, 2).unwrap();
    assert!(verify::Agreement::of(&expected, &got).holds(), "{expected:?} {got:?} of {:?}", graphs[0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streamed_fusion_equals_the_naive_one(plan in plan(), members in 1_usize..4, seed in any::<u64>(), factor in 0.1..1.0) {
        check(&plan, members, seed, factor);
    }

    #[test]
    fn a_pruned_network_equals_the_masked_one(plan in plan(), seed in any::<u64>(), factor in 0.1..1.0) {
        check_masked(&plan, seed, factor);
    }

    #[test]
    fn a_network_with_its_units_in_another_order_is_the_same(plan in plan(), seed in any::<u64>()) {
        check_permuted(&plan, seed);
    }
}
