//! Every operation against what PyTorch computes; see `tests/fixtures/ops`.

use crate::fusion::reference::verify;
use crate::fusion::{Consensus, Ensemble, Member, Mixture, Selection, Shares, gather};
use crate::kernels::finite_difference::sample;
use crate::model::families::fresh;
use crate::model::parameters;
use crate::tensors::operation_cases::cases;
use crate::tensors::{StateDict, Weights};

#[test]
fn every_operation_computes_what_pytorch_does() {
    let cases = cases::<f32>();
    let mut wrong = Vec::new();
    for case in &cases {
        let (graph, weights) = (case.graph(), case.weights());
        let member = Member { graph: &graph, weights: &weights };
        let got = verify::reference(member, &case.inputs, case.batch).unwrap();
        assert_eq!(got.len(), case.outputs.len(), "{}", case.name);
        let most = got.iter().zip(&case.outputs).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
        if most.is_nan() || most > 5e-6 {
            wrong.push(format!("{}: {most}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cases.len() > 70);
}

#[test]
fn factors_of_classes_are_part_of_the_concatenation() {
    let graph = fresh::mlp(&vec![6], &[5, 4], 3).unwrap();
    let weights = |seed: u64| {
        let mut weights = StateDict::default();
        for (index, parameter) in parameters::of_graph(&graph).into_iter().enumerate() {
            let values = sample(parameter.shape.iter().product(), seed + index as u64);
            weights.insert_f32(&parameter.name, &parameter.shape, values.iter().map(|x| *x as f32).collect()).unwrap();
        }
        weights
    };
    let states = [weights(1), weights(50)];
    let members = || states.iter().map(|weights| Member { graph: &graph, weights }).collect();
    let shares = Shares::of_classes(vec![vec![0.9, 0.2, 0.5], vec![0.1, 0.8, 0.5]]);
    let consensus = Consensus { mixture: Mixture::Logits, shares, classes: 3 };
    let ensemble = Ensemble::new(members()).unwrap().with_consensus(consensus);
    assert_eq!(ensemble.output_layer(), Some(graph.output()));
    let inputs: Vec<f32> = sample(7 * 6, 9).iter().map(|x| *x as f32).collect();
    let expected = verify::mean_of_members(&ensemble, &inputs, 7).unwrap();
    let of_first = verify::reference(ensemble.members()[0], &inputs, 7).unwrap();
    let of_second = verify::reference(ensemble.members()[1], &inputs, 7).unwrap();
    assert!((expected[1] - (0.2 * of_first[1] + 0.8 * of_second[1])).abs() < 1e-6);
    let virtually = verify::concatenation(&ensemble, &inputs, 7).unwrap();
    assert!(verify::Agreement::of(&expected, &virtually).holds());
    let built = gather(&ensemble, &Selection::all(&ensemble)).unwrap().build().unwrap();
    let really = verify::reference(built.as_member(), &inputs, 7).unwrap();
    assert!(verify::Agreement::of(&expected, &really).holds());
    assert!(
        !verify::Agreement::of(
            &verify::mean_of_members(&Ensemble::new(members()).unwrap(), &inputs, 7).unwrap(),
            &really
        )
        .holds()
    );
}

/// A BatchNorm on the input, a shortcut that widens by zeros, and a ReLU behind the output layer.
#[test]
fn what_members_make_of_the_input_stays_their_own() {
    let nodes = serde_json::json!({"nodes": [
        {"name": "input", "op": "input", "shape": [2, 4, 4]},
        {"name": "bn", "op": "batch_norm", "features": 2},
        {"name": "bent", "op": "tanh"},
        {"name": "stem", "op": "conv2d", "in_channels": 2, "out_channels": 3, "kernel": 3, "padding": 1},
        {"name": "block", "op": "conv2d", "in_channels": 3, "out_channels": 5, "kernel": 3, "stride": 2, "padding": 1},
        {"name": "few", "op": "avg_pool2d", "kernel": 1, "stride": 2, "inputs": ["stem"]},
        {"name": "before", "op": "zeros", "features": 1, "inputs": ["few"]},
        {"name": "behind", "op": "zeros", "features": 1, "inputs": ["few"]},
        {"name": "wide", "op": "concat", "inputs": ["before", "few", "behind"]},
        {"name": "sum", "op": "add", "inputs": ["block", "wide"]},
        {"name": "output", "op": "conv2d", "in_channels": 5, "out_channels": 3, "kernel": 1, "bias": true},
        {"name": "relu", "op": "relu"},
        {"name": "mean", "op": "global_avg_pool2d"},
        {"name": "flatten", "op": "flatten"},
    ]});
    let graph = crate::model::graph::json::parse(&nodes).unwrap();
    let weights = |seed: u64, norm: u64| {
        let mut weights = StateDict::default();
        for (index, parameter) in parameters::of_graph(&graph).into_iter().enumerate() {
            let own = if parameter.name.starts_with("bn.") { norm } else { seed };
            let values = sample(parameter.shape.iter().product(), own + index as u64).into_iter();
            let positive = parameter.role == parameters::Role::RunningVar;
            let values = values.map(|x| if positive { x.abs() as f32 + 0.5 } else { x as f32 }).collect();
            weights.insert_f32(&parameter.name, &parameter.shape, values).unwrap();
        }
        weights
    };
    let inputs: Vec<f32> = sample(6 * 32, 9).iter().map(|x| *x as f32).collect();
    for (norms, alike) in [([100, 200], false), ([100, 100], true)] {
        let states = [weights(1, norms[0]), weights(50, norms[1])];
        let members = states.iter().map(|weights| Member { graph: &graph, weights }).collect();
        let ensemble = Ensemble::new(members).unwrap();
        assert_eq!(graph.node(ensemble.linear_end()).name, "output");
        let expected = verify::mean_of_members(&ensemble, &inputs, 6).unwrap();
        assert_eq!(expected.len(), 6 * 3 * 4);
        let virtually = verify::concatenation(&ensemble, &inputs, 6).unwrap();
        assert!(verify::Agreement::of(&expected, &virtually).holds());
        // The fused network has one BatchNorm: theirs, where they have the same.
        let built = gather(&ensemble, &Selection::all(&ensemble)).unwrap().build().unwrap();
        let end = ensemble.linear_end();
        let really = super::alone(built.as_member(), &inputs, 6, end).unwrap();
        assert_eq!(verify::Agreement::of(&expected, &really).holds(), alike);
        let mean = built.weights.f32("bn.weight").unwrap();
        let of = |state: &StateDict| state.f32("bn.weight").unwrap().into_owned();
        let own: Vec<f32> = of(&states[0]).iter().zip(of(&states[1])).map(|(a, b)| (a + b) / 2.0).collect();
        assert!(mean.iter().zip(own).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
