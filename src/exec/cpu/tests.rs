use serde_json::json;

use super::*;
use crate::kernels::finite_difference::{assert_gradient, sample};
use crate::kernels::loss::Soft;
use crate::kernels::truth::Truths;
use crate::model::graph::{Node, NodeId, Op, Window};
use crate::train::init;

/// A graph of nodes whose operands are given by how far back they stand.
fn graph(nodes: Vec<(&str, Op, &[usize])>) -> Graph {
    let nodes = nodes.into_iter().enumerate().map(|(index, (name, op, back))| Node {
        name: name.to_owned(),
        op,
        inputs: back.iter().map(|back| NodeId(index - back)).collect(),
    });
    Graph::new(nodes.collect()).unwrap()
}

fn conv(in_channels: usize, out_channels: usize, window: Window, bias: bool) -> Op {
    Op::conv2d(in_channels, out_channels, window, bias)
}

fn norm(features: usize) -> Op {
    Op::BatchNorm { affine: true, features, eps: 1e-5 }
}

fn linear(in_features: usize, out_features: usize) -> Op {
    Op::Linear { in_features, out_features, bias: true }
}

/// A residual network: shared values, melted and free-standing ReLU, both kinds of flatten.
fn everything() -> Graph {
    graph(vec![
        ("input", Op::Input { shape: vec![2, 6, 6] }, &[]),
        ("conv1", conv(2, 3, Window::square(3, 1, 1), false), &[1]),
        ("bn1", norm(3), &[1]),
        ("relu1", Op::Relu, &[1]),
        ("conv2", conv(3, 4, Window::square(3, 2, 1), true), &[1]),
        ("bn2", norm(4), &[1]),
        ("shortcut", conv(3, 4, Window::square(1, 2, 0), false), &[3]),
        ("sum", Op::Add, &[2, 1]),
        ("relu2", Op::Relu, &[1]),
        ("pool", Op::max_pool2d(Window::square(2, 1, 0)), &[1]),
        ("mean", Op::avg_pool2d(Window::square(2, 1, 1)), &[1]),
        ("twice", Op::Add, &[1, 1]),
        ("relu3", Op::Relu, &[1]),
        ("flatten", Op::Flatten, &[1]),
        ("bn3", norm(36), &[1]),
        ("fc1", linear(36, 5), &[1]),
        ("relu4", Op::Relu, &[1]),
        ("fc2", linear(5, 4), &[1]),
    ])
}

/// A plain network whose flatten is free and whose pooling is global in one branch.
fn branches() -> Graph {
    graph(vec![
        ("input", Op::Input { shape: vec![1, 5, 4] }, &[]),
        ("conv", conv(1, 3, Window::square(2, 1, 0), true), &[1]),
        ("relu", Op::Relu, &[1]),
        ("flatten", Op::Flatten, &[1]),
        ("fc", linear(36, 3), &[1]),
        ("gap", Op::GlobalAvgPool2d, &[3]),
        ("flat", Op::Flatten, &[1]),
        ("head", linear(3, 3), &[1]),
        ("sum", Op::Add, &[4, 1]),
    ])
}

/// A network of mobile blocks, then a transformer: kernels in groups and by channel, gates, branches side by side, values
/// that drop out, all kinds of normalisation, tokens and an attention with three projections.
fn modern() -> Graph {
    let nodes = json!([
        {"name": "input", "op": "input", "shape": [2, 5, 6]},
        {"name": "stem", "op": "conv2d", "in_channels": 2, "out_channels": 6, "kernel": 3, "padding": 2, "dilation": 2},
        {"name": "bn", "op": "batch_norm", "features": 6},
        {"name": "relu6", "op": "relu6"},
        {"name": "dw", "op": "conv2d", "in_channels": 6, "out_channels": 6, "kernel": 3, "padding": 1, "groups": 6,
            "bias": true},
        {"name": "relu", "op": "relu"},
        {"name": "gap", "op": "global_avg_pool2d"},
        {"name": "squeeze", "op": "conv2d", "in_channels": 6, "out_channels": 6, "kernel": 1, "groups": 2},
        {"name": "gate", "op": "hardsigmoid"},
        {"name": "gated", "op": "multiply", "inputs": ["gate", "relu"]},
        {"name": "square", "op": "multiply", "inputs": ["gated", "gated"]},
        {"name": "drop", "op": "dropout", "p": 0.4},
        {"name": "both", "op": "concat", "inputs": ["gated", "drop"]},
        {"name": "gn", "op": "group_norm", "features": 12, "groups": 3},
        {"name": "gelu", "op": "gelu"},
        {"name": "tokens", "op": "reshape", "positions": [30]},
        {"name": "pool", "op": "max_pool1d", "kernel": 4, "stride": 5, "padding": 2, "ceil_mode": true},
        {"name": "line", "op": "conv1d", "in_channels": 12, "out_channels": 4, "kernel": 3, "padding": 1},
        {"name": "relu2", "op": "relu"},
        {"name": "cls", "op": "class_token", "features": 4},
        {"name": "pos", "op": "positional_embedding", "features": 4, "tokens": 8},
        {"name": "ln", "op": "layer_norm", "features": 4},
        {"name": "att", "op": "attention", "features": 4, "heads": 2,
            "projections": {"query": "q", "key": "k", "value": "v", "output": "o"}},
        {"name": "gamma", "op": "layer_scale", "features": 4},
        {"name": "sum", "op": "add", "inputs": ["gamma", "pos"]},
        {"name": "first", "op": "token_select", "index": 0, "inputs": ["sum"]},
        {"name": "mean", "op": "token_mean", "inputs": ["sum"]},
        {"name": "join", "op": "add", "inputs": ["first", "mean"]},
        {"name": "none", "op": "dropout", "p": 0.0},
        {"name": "head", "op": "linear", "in_features": 4, "out_features": 4, "bias": true},
    ]);
    crate::model::graph::json::parse(&json!({"nodes": nodes})).unwrap()
}

fn compiled<T: Float>(graph: &Graph) -> CpuNetwork<T> {
    let mut network = CpuNetwork::compile(graph, 8, 2).unwrap();
    network.load(&init(graph, 7).unwrap()).unwrap();
    network
}

#[test]
fn gradients_of_whole_networks_equal_finite_differences() {
    for graph in [everything(), branches(), modern()] {
        let mut network = compiled::<f64>(&graph);
        let (images, teacher) = (sample(5 * network.example_len(), 1), sample(5 * network.classes(), 2));
        let labels = [0, 2, 1, 0, 2];
        let soft = Some(Soft { teacher: &teacher[..], temperature: 2.0, weight: 0.7 });
        let targets = Targets { truths: Truths::Classes(&labels), smoothing: 0.1, soft };
        for index in 0..network.parameters().len() {
            network.gradients(&images, targets).unwrap();
            let parameter = &network.compiled.parameters[index];
            let (name, at, gradient) = (parameter.name.clone(), parameter.values.clone(), parameter.gradient.clone());
            assert_gradient(&name, &at, &gradient, |values| {
                network.compiled.parameters[index].values.copy_from_slice(values);
                network.gradients(&images, targets).unwrap().loss
            });
            network.compiled.parameters[index].values.copy_from_slice(&at);
        }
    }
}

#[test]
fn weights_leave_as_they_came() {
    for graph in [everything(), branches(), modern()] {
        let weights = init(&graph, 3).unwrap();
        let mut network = CpuNetwork::<f32>::compile(&graph, 2, 1).unwrap();
        network.load(&weights).unwrap();
        let back = network.state_dict().unwrap();
        assert_eq!(back.names(), weights.names());
        for name in weights.names().into_iter().filter(|name| !name.ends_with("tracked")) {
            assert_eq!(back[name].dims(), weights[name].dims());
            assert_eq!(back.f32(name).unwrap(), weights.f32(name).unwrap(), "{name}");
        }
    }
}

#[test]
fn logits_do_not_depend_on_the_batch_around_them() {
    for graph in [everything(), branches(), modern()] {
        let mut network = compiled::<f64>(&graph);
        let images = sample(8 * network.example_len(), 4);
        let together = network.forward(&images).unwrap().to_vec();
        for (image, expected) in images.chunks(network.example_len()).zip(together.chunks(network.classes())) {
            for (got, expected) in network.forward(image).unwrap().iter().zip(expected) {
                assert!((got - expected).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn the_same_step_gives_the_same_bits_on_any_number_of_threads() {
    for graph in [everything(), modern()] {
        let one = step_in_bits(&graph, 1);
        for threads in [1, 2, 3, 4] {
            assert!(one == step_in_bits(&graph, threads), "{threads} threads");
        }
    }
}

#[test]
fn what_drops_out_follows_from_the_draw() {
    let graph = modern();
    let mut network = compiled::<f64>(&graph);
    let images = sample(2 * network.example_len(), 1);
    let mut loss = |seed, step| {
        network.draw_from(Draw { seed, step });
        network.gradients(&images, Targets::of(&[0, 1])).unwrap().loss.to_bits()
    };
    let first = loss(1, 1);
    assert!(first != loss(1, 2) && first != loss(2, 1));
    assert_eq!(first, loss(1, 1));
    let evaluated = network.forward(&images).unwrap().to_vec();
    network.draw_from(Draw { seed: 3, step: 9 });
    assert_eq!(network.forward(&images).unwrap(), evaluated, "nothing drops out in evaluation");
}

/// Loss and gradients.
fn step_in_bits(graph: &Graph, threads: usize) -> (u64, Vec<u32>) {
    let mut network = CpuNetwork::<f32>::compile(graph, 70, threads).unwrap();
    network.load(&init(graph, 7).unwrap()).unwrap();
    let images: Vec<f32> = sample(70 * network.example_len(), 4).into_iter().map(|x| x as f32).collect();
    let labels: Vec<u32> = (0..70).map(|i| i % 4).collect();
    let loss = network.gradients(&images, Targets::of(&labels)).unwrap().loss;
    let gradients = network.compiled.parameters.iter().flat_map(|p| p.gradient.iter().map(|g| g.to_bits()));
    (loss.to_bits(), gradients.collect())
}

#[test]
fn reestimated_statistics_are_those_of_all_batches() {
    let graph =
        graph(vec![("input", Op::Input { shape: vec![2] }, &[]), ("bn", norm(2), &[1]), ("fc", linear(2, 2), &[1])]);
    let mut network = compiled::<f64>(&graph);
    network.gradients(&[9.0, 9.0, 7.0, 7.0], Targets::of(&[0, 1])).unwrap();
    network.reset_statistics();
    network.reestimate(&[1.0, 0.0, 3.0, 0.0]).unwrap();
    network.reestimate(&[3.0, 4.0, 9.0, 8.0]).unwrap();
    let weights = network.state_dict().unwrap();
    assert_eq!(weights.f32("bn.running_mean").unwrap()[..], [4.0, 3.0]);
    assert_eq!(weights.f32("bn.running_var").unwrap()[..], [10.0, 4.0]);
    assert_eq!(weights.counter("bn.num_batches_tracked"), Some(2));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let graph = branches();
    let mut network = compiled::<f32>(&graph);
    let error = network.forward(&[0.0; 19]).unwrap_err();
    assert_eq!(error, BatchError { most: 8, example: 20, got: 19 });
    assert!(network.forward(&vec![0.0; 9 * 20]).is_err());
    assert!(network.gradients(&[0.0; 20], Targets::of(&[0, 1])).is_err());
    let mut weights = init(&graph, 0).unwrap();
    weights.insert_f32("fc.bias", &[4], vec![0.0; 4]).unwrap();
    let error = network.load(&weights).unwrap_err().to_string();
    assert_eq!(error, "tensor `fc.bias`: expected 3 elements, got 4");
    weights.remove("fc.bias");
    assert!(network.load(&weights).unwrap_err().to_string().contains("fc.bias"));
    let image = graph_of_image();
    assert!(CpuNetwork::<f32>::compile(&image, 1, 1).unwrap_err().to_string().contains("[3, 5, 5]"));
}

fn graph_of_image() -> Graph {
    graph(vec![
        ("input", Op::Input { shape: vec![1, 5, 5] }, &[]),
        ("conv", conv(1, 3, Window::square(1, 1, 0), true), &[1]),
    ])
}
