//! Interpolation on small networks: what must hold, and that each step is what it says.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::seq::SliceRandom;

use super::*;
use crate::exec::statistics::Processor;
use crate::fusion::align::{Alignment, permuted};
use crate::fusion::compensate::tests::device::OnEmulated;
use crate::fusion::compensate::tests::{
    InputRows, chain, conv, convnet, error, linear, logits, mlp, noise, resnet, weights,
};
use crate::fusion::reference::verify;
use crate::model::graph::{Op, Window};
use crate::model::groups::GroupId;
use crate::tensors::Weights;

const GROUPINGS: [Grouping; 2] = [Grouping::KMeans, Grouping::Hungarian];

/// Almost without a ridge, on all inputs and positions.
fn exact(grouping: Grouping) -> InterpolateOptions {
    let sampling = Sampling { samples: Some(usize::MAX), positions: 1000, seed: 3 };
    InterpolateOptions { sampling, grouping, ridge: Some(1e-7) }
}

fn ensemble<'a>(graphs: &'a [Graph], states: &'a [StateDict]) -> Ensemble<'a> {
    Ensemble::new(graphs.iter().zip(states).map(|(graph, weights)| Member { graph, weights }).collect()).unwrap()
}

fn fuse(ensemble: &Ensemble<'_>, graph: &Graph, inputs: &InputRows, options: &InterpolateOptions) -> StateDict {
    interpolate(ensemble, graph, inputs, options, &Processor, &mut |_| true).unwrap().weights
}

/// A member with its units in another order.
fn shuffled(graph: &Graph, original: &StateDict, seed: u64) -> StateDict {
    let alone = Ensemble::new(vec![Member { graph, weights: original }]).unwrap();
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let order = |group: usize| {
        let mut order: Vec<usize> = (0..alone.widths(GroupId(group))[0]).collect();
        order.shuffle(&mut generator);
        order
    };
    let groups = (0..alone.groups()).map(order).collect();
    let alignment = Alignment { groups, outputs: (0..graph.classes()).collect() };
    let view = &permuted(&alone, vec![alignment])[0];
    let mut state = StateDict::default();
    for tensor in parameters::of_graph(graph) {
        state.insert_f32(&tensor.name, &tensor.shape, view.f32(&tensor.name).unwrap().into_owned()).unwrap();
    }
    state
}

/// Convolutions with biases, one of them before a BatchNorm, and a second position-wise layer.
fn biased() -> Graph {
    chain(vec![
        Op::Input { shape: vec![2, 6, 6] },
        conv(2, 4, Window::square(3, 2, 1), true),
        Op::BatchNorm { affine: true, features: 4, eps: 1e-3 },
        Op::Tanh,
        conv(4, 5, Window::square(1, 1, 0), true),
        Op::Relu,
        Op::GlobalAvgPool2d,
        Op::Flatten,
        linear(5, 3, false),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn copies_of_a_member_in_any_order_of_units_keep_its_outputs(seed in any::<u64>(), copies in 1_usize..4) {
        for graph in [mlp(true, [9, 7]), mlp(false, [9, 7]), convnet(), biased()] {
            let original = weights(&graph, seed);
            let mut states: Vec<StateDict> = (1..copies as u64).map(|copy| shuffled(&graph, &original, copy)).collect();
            states.insert(0, original);
            let graphs = vec![graph.clone(); copies];
            let inputs = noise(&graph, 600, 1);
            let expected = logits(&graph, &states[0], &inputs);
            for grouping in GROUPINGS {
                let fused = fuse(&ensemble(&graphs, &states), &graph, &inputs, &exact(grouping));
                let missed = error(&expected, &logits(&graph, &fused, &inputs));
                prop_assert!(missed < 1e-4, "{grouping:?}: {missed} of {graph:?}");
            }
        }
    }
}

#[test]
fn a_member_alone_at_its_own_width_stays_as_it_is() {
    let graph = mlp(true, [8, 6]);
    let (graphs, state) = ([graph.clone()], [weights(&graph, 4)]);
    let fused = fuse(&ensemble(&graphs, &state), &graph, &noise(&graph, 400, 2), &exact(Grouping::KMeans));
    for tensor in parameters::of_graph(&graph) {
        let (expected, got) = (state[0].f32(&tensor.name).unwrap(), fused.f32(&tensor.name).unwrap());
        assert!(error(&expected, &got) < 1e-4, "{}", tensor.name);
    }
}

#[test]
fn units_of_the_first_level_are_means_of_one_unit_of_each_member() {
    let graph = mlp(true, [8, 6]);
    let states = [weights(&graph, 1), weights(&graph, 2)];
    let graphs = vec![graph.clone(); 2];
    let fused = fuse(&ensemble(&graphs, &states), &graph, &noise(&graph, 400, 2), &exact(Grouping::Hungarian));
    let rows = |state: &StateDict| -> Vec<Vec<f32>> {
        state.f32("n1.weight").unwrap().chunks(6).map(<[f32]>::to_vec).collect()
    };
    let [first, second, fused] = [&states[0], &states[1], &fused].map(rows);
    let partner = |unit: usize| {
        let mean = |other: &Vec<f32>| first[unit].iter().zip(other).map(|(a, b)| (a + b) / 2.0).collect::<Vec<f32>>();
        second.iter().position(|other| error(&mean(other), &fused[unit]) < 1e-6)
    };
    let partners: BTreeSet<Option<usize>> = (0..8).map(partner).collect();
    assert_eq!(partners, (0..8).map(Some).collect(), "each unit of the second member has one partner");
}

#[test]
fn the_last_level_is_the_least_squares_fit_of_the_members_mean() {
    let graphs = [mlp(true, [5, 9]), mlp(true, [7, 4])];
    let states = [weights(&graphs[0], 1), weights(&graphs[1], 2)];
    let members = ensemble(&graphs, &states).weighted(&[3.0, 1.0]);
    let target = mlp(true, [6, 8]);
    let inputs = noise(&target, 500, 3);
    let fused = fuse(&members, &target, &inputs, &exact(Grouping::KMeans));
    let hidden = chain(target.nodes()[..5].iter().map(|node| node.op.clone()).collect());
    let features = verify::reference(Member { graph: &hidden, weights: &fused }, &inputs.values, 500).unwrap();
    let wanted = verify::mean_of_members(&members, &inputs.values, 500).unwrap();
    let residuals: Vec<f32> = wanted.iter().zip(logits(&target, &fused, &inputs)).map(|(a, b)| a - b).collect();
    let scale = wanted.iter().map(|logit| logit.abs()).sum::<f32>() / 500.0;
    for class in 0..3 {
        let residuals = || residuals.iter().skip(class).step_by(3);
        assert!((residuals().sum::<f32>() / 500.0).abs() < 1e-4 * scale, "class {class} has a constant left");
        for unit in 0..8 {
            let product: f32 = residuals().zip(features.iter().skip(unit).step_by(8)).map(|(a, b)| a * b).sum();
            assert!((product / 500.0).abs() < 1e-3 * scale, "class {class} goes with unit {unit} still");
        }
    }
}

#[test]
fn a_batch_norm_has_the_statistics_of_its_new_layer() {
    let graph = convnet();
    let states = [weights(&graph, 1), weights(&graph, 2)];
    let inputs = noise(&graph, 200, 3);
    let graphs = vec![graph.clone(); 2];
    let fused = fuse(&ensemble(&graphs, &states), &graph, &inputs, &exact(Grouping::KMeans));
    let layer = chain(graph.nodes()[..5].iter().map(|node| node.op.clone()).collect());
    let outputs = verify::reference(Member { graph: &layer, weights: &fused }, &inputs.values, 200).unwrap();
    let (mean, variance) = (fused.f32("n5.running_mean").unwrap(), fused.f32("n5.running_var").unwrap());
    for unit in 0..6 {
        let own: Vec<f64> = outputs.chunks(16).skip(unit).step_by(6).flatten().map(|value| f64::from(*value)).collect();
        let expected = own.iter().sum::<f64>() / own.len() as f64;
        let spread = own.iter().map(|value| (value - expected).powi(2)).sum::<f64>() / own.len() as f64;
        assert!((f64::from(mean[unit]) - expected).abs() < 1e-3 * spread.sqrt(), "mean of unit {unit}");
        assert!((f64::from(variance[unit]) / spread - 1.0).abs() < 1e-3, "variance of unit {unit}");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let graphs = [mlp(true, [40, 24]), mlp(true, [33, 30])];
    let states = [weights(&graphs[0], 1), weights(&graphs[1], 2)];
    let target = mlp(true, [37, 20]);
    let inputs = noise(&target, 700, 3);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fuse(&ensemble(&graphs, &states), &target, &inputs, &exact(Grouping::KMeans)))
    };
    let [one, three] = [1, 3].map(with);
    for tensor in parameters::of_graph(&target) {
        assert_eq!(one.f32(&tensor.name).unwrap(), three.f32(&tensor.name).unwrap(), "{}", tensor.name);
    }
}

#[test]
fn units_without_any_input_become_constants() {
    let graph = mlp(true, [4, 3]);
    let mut state = weights(&graph, 1);
    state.insert_f32("n1.weight", &[4, 6], vec![0.0; 24]).unwrap();
    state.insert_f32("n1.bias", &[4], vec![-1.0; 4]).unwrap();
    let states = [state.clone(), state];
    let inputs = noise(&graph, 100, 3);
    for grouping in GROUPINGS {
        let graphs = vec![graph.clone(); 2];
        let fused = fuse(&ensemble(&graphs, &states), &graph, &inputs, &exact(grouping));
        let missed = error(&logits(&graph, &states[0], &inputs), &logits(&graph, &fused, &inputs));
        assert!(missed < 1e-6, "{grouping:?}: {missed}");
    }
}

#[test]
fn what_cannot_be_interpolated_is_refused_by_name() {
    let refused = |graphs: &[Graph], target: &Graph, grouping| {
        let states: Vec<StateDict> = graphs.iter().map(|graph| weights(graph, 1)).collect();
        let inputs = noise(target, 20, 1);
        interpolate(&ensemble(graphs, &states), target, &inputs, &exact(grouping), &Processor, &mut |_| true)
            .unwrap_err()
    };
    let error = refused(&[resnet(), resnet()], &resnet(), Grouping::KMeans);
    assert!(matches!(&error, FusionError::Level(level) if level.node == "n11"), "{error}");
    let graphs = [mlp(true, [4, 3]), mlp(true, [4, 5])];
    let error = refused(&graphs, &graphs[0], Grouping::Hungarian);
    assert!(matches!(&error, FusionError::WidthsDiffer { member: 1, tensor } if tensor == "n3.weight"), "{error}");
    let error = refused(&graphs, &mlp(true, [4, 9]), Grouping::KMeans);
    assert!(matches!(error, FusionError::Target { available: 8, target: 9, .. }), "{error}");
}

#[test]
fn it_stops_on_request() {
    let graph = mlp(true, [4, 3]);
    let states = [weights(&graph, 1)];
    let inputs = noise(&graph, 50, 1);
    let options = exact(Grouping::KMeans);
    let graphs = [graph.clone()];
    let stopped = interpolate(&ensemble(&graphs, &states), &graph, &inputs, &options, &Processor, &mut |_| false);
    assert!(matches!(stopped, Err(FusionError::Stopped)));
}

#[test]
fn levels_are_fitted_on_a_device_as_on_the_processor() {
    for graph in [mlp(true, [5, 4]), biased(), convnet()] {
        let graphs = [graph.clone(), graph.clone()];
        let states = [weights(&graph, 1), weights(&graph, 2)];
        let members = ensemble(&graphs, &states);
        let inputs = noise(&graph, 60, 3);
        let sampling = Sampling { samples: None, positions: 5, seed: 3 };
        let options = InterpolateOptions { sampling, grouping: Grouping::Hungarian, ridge: Some(0.1) };
        let fused = |on: &dyn StatisticsDevice| {
            let fused = interpolate(&members, &graph, &inputs, &options, on, &mut |_| true).unwrap();
            logits(&graph, &fused.weights, &inputs)
        };
        let difference = error(&fused(&Processor), &fused(&OnEmulated));
        assert!(difference < 1e-6, "{difference}");
    }
}
