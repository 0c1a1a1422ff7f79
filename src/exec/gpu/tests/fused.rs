//! Layers that compute what others would: the same numbers with fewer runs of kernels.

use serde_json::{Value, json};

use super::*;
use crate::exec::gpu::kernels::objective::Kind;
use crate::exec::gpu::program::{Aim, Pass};
use crate::exec::gpu::tape::Command;

/// A convolution from some channels to 5 that keeps the size.
fn convolution(name: &str, input: &str, channels: usize) -> Value {
    json!({"name": name, "op": "conv2d", "inputs": [input], "in_channels": channels, "out_channels": 5, "kernel": [3, 3],
        "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "bias": false})
}

fn node(name: &str, op: &str, inputs: &[&str]) -> Value {
    json!({"name": name, "op": op, "inputs": inputs, "features": 5})
}

/// A network whose layers lead from an image of 3 channels to the one that is named `last`, of 5 channels.
fn image_network(layers: Vec<Value>) -> Graph {
    let mut nodes = vec![json!({"name": "input", "op": "input", "shape": [3, 8, 8]})];
    nodes.extend(layers.into_iter().map(|mut layer| {
        let keys = layer.as_object_mut().unwrap();
        if keys["op"] != "batch_norm" && keys["op"] != "layer_norm" && keys["op"] != "layer_scale" {
            keys.remove("features");
        }
        layer
    }));
    nodes.push(json!({"name": "mean", "op": "global_avg_pool2d"}));
    nodes.push(json!({"name": "flat", "op": "flatten"}));
    nodes.push(json!({"name": "fc", "op": "linear", "in_features": 5, "out_features": 7, "bias": true}));
    parse(&json!({"nodes": nodes})).unwrap()
}

/// Weights by chance, those of norms large enough for results on both sides of 6.
fn weights(graph: &Graph) -> StateDict {
    let mut weights = init(graph, 4).unwrap();
    let is_norm = |name: &&&str| name.starts_with("bn") && ["weight", "bias"].iter().any(|end| name.ends_with(end));
    let norms: Vec<String> = weights.names().iter().filter(is_norm).map(|name| (*name).to_owned()).collect();
    for name in norms {
        let numbers = sample(5, 3).into_iter().map(|number| 5.0 + number as f32).collect();
        weights.insert_f32(&name, &[5], numbers).unwrap();
    }
    weights
}

/// How often a step of training runs the kernel.
fn runs(network: &GpuNetwork<Emulated>, kernel: &str) -> usize {
    let aim = Aim { kind: Kind::Classes, smoothing: 0.0, soft: None };
    let tape = network.tape(Pass::Gradients(aim), BATCH);
    let is_it = |command: &&Command| matches!(command, Command::Launch(launch) if launch.kernel.name == kernel);
    tape.commands.iter().filter(is_it).count()
}

/// Compares logits before and after some steps and the gradients with the processor's.
fn compare(what: &str, graph: &Graph) -> GpuNetwork<Emulated> {
    let weights = weights(graph);
    let mut cpu = CpuNetwork::<f32>::compile(graph, BATCH, 2).unwrap();
    cpu.load(&weights).unwrap();
    let mut network = compiled(graph, &weights, BATCH, Storage::F32);
    let (images, labels) = batch(3);
    let targets = Targets::of(&labels);
    let [own, expected] = [&mut network as &mut dyn Engine, &mut cpu].map(|network| {
        let before = network.forward(Inputs::Images(&images)).unwrap().to_vec();
        let gradients = network.gradients(Inputs::Images(&images), targets, DRAW).unwrap();
        network.init_optimizer(&rules()[0].0);
        for _ in 0..2 {
            network.step(Inputs::Images(&images), targets, Update { lr_scale: 0.1, clip_norm: None }, DRAW).unwrap();
        }
        let after = network.forward(Inputs::Images(&images)).unwrap().to_vec();
        (before, gradients, after)
    });
    near(&format!("{what}: logits"), &own.0, &expected.0, 1e-5);
    near(&format!("{what}: logits after two steps"), &own.2, &expected.2, 1e-3);
    let most = expected.1.tensors.iter().flatten().fold(0.0_f32, |most, number| most.max(number.abs()));
    let names: Vec<String> = network.learned().iter().map(|(name, _)| (*name).to_owned()).collect();
    for ((name, own), expected) in names.iter().zip(&own.1.tensors).zip(&expected.1.tensors) {
        for (own, expected) in own.iter().zip(expected) {
            assert!((own - expected).abs() < 1e-4 * most, "{what}, {name}: {own} for {expected} (scale {most})");
        }
    }
    network
}

#[test]
fn a_relu6_behind_a_norm_costs_no_run_of_its_own() {
    let alone = image_network(vec![
        convolution("stem", "input", 3),
        node("bn1", "batch_norm", &["stem"]),
        node("first", "relu6", &["bn1"]),
        convolution("conv2", "first", 5),
        node("bn2", "batch_norm", &["conv2"]),
        node("last", "relu6", &["bn2"]),
    ]);
    assert_eq!(runs(&compare("alone", &alone), "function"), 0);
    let sum = image_network(vec![
        convolution("stem", "input", 3),
        node("bn1", "batch_norm", &["stem"]),
        node("first", "relu6", &["bn1"]),
        convolution("conv2", "first", 5),
        node("bn2", "batch_norm", &["conv2"]),
        node("sum", "add", &["first", "bn2"]),
        // What the sum adds to is read once more between it and its ReLU6.
        node("other", "gelu", &["first"]),
        node("bounded", "relu6", &["sum"]),
        node("last", "add", &["bounded", "other"]),
    ]);
    let network = compare("sum", &sum);
    assert_eq!([runs(&network, "function"), runs(&network, "batch_norm_back")], [1, 2], "GELU and two norms");
}

#[test]
fn sums_pass_gradients_on_without_copies() {
    let norm = |name: &str, input: &str| node(name, "layer_norm", &[input]);
    let sum = |name: &str, inputs: [&str; 2]| node(name, "add", &inputs);
    // Two blocks whose gradients are one all the way.
    let blocks = image_network(vec![
        convolution("stem", "input", 3),
        norm("norm1", "stem"),
        convolution("conv1", "norm1", 5),
        sum("sum1", ["stem", "conv1"]),
        norm("norm2", "sum1"),
        convolution("conv2", "norm2", 5),
        node("scale2", "layer_scale", &["conv2"]),
        sum("last", ["scale2", "sum1"]),
    ]);
    assert_eq!(runs(&compare("blocks", &blocks), "put"), 0);
    // What is added reads what it is added to, so that its gradient has to stay as it is while the other one grows.
    let direct = image_network(vec![
        convolution("stem", "input", 3),
        convolution("conv1", "stem", 5),
        sum("sum1", ["stem", "conv1"]),
        node("gelu", "gelu", &["sum1"]),
        convolution("conv2", "sum1", 5),
        sum("sum2", ["conv2", "gelu"]),
        sum("last", ["sum2", "sum1"]),
    ]);
    assert_eq!(runs(&compare("direct", &direct), "put"), 2, "of the sum behind GELU nothing is copied");
    // Sums of sums, a value twice, and ReLU on the way.
    let sums = image_network(vec![
        convolution("one", "input", 3),
        convolution("two", "input", 3),
        convolution("three", "input", 3),
        node("positive", "relu", &["three"]),
        sum("sum1", ["one", "two"]),
        node("relu1", "relu", &["sum1"]),
        sum("sum2", ["relu1", "positive"]),
        sum("twice", ["sum2", "sum2"]),
        convolution("four", "twice", 5),
        sum("sum3", ["four", "twice"]),
        sum("last", ["sum3", "one"]),
    ]);
    assert_eq!(runs(&compare("sums", &sums), "put"), 6);
    // A norm and a sum without anything behind it.
    let linear = image_network(vec![
        convolution("stem", "input", 3),
        node("bn1", "batch_norm", &["stem"]),
        convolution("conv1", "bn1", 5),
        node("bn2", "batch_norm", &["conv1"]),
        sum("sum1", ["bn1", "bn2"]),
        convolution("conv3", "sum1", 5),
        node("bn3", "batch_norm", &["conv3"]),
        sum("last", ["sum1", "bn3"]),
    ]);
    assert_eq!(runs(&compare("linear", &linear), "put"), 0);
}

#[test]
fn a_relu6_whose_operand_is_read_elsewhere_is_computed_by_itself() {
    let graph = image_network(vec![
        convolution("stem", "input", 3),
        node("bn1", "batch_norm", &["stem"]),
        node("first", "relu6", &["bn1"]),
        node("last", "add", &["first", "bn1"]),
    ]);
    assert_eq!(runs(&compare("read twice", &graph), "function"), 1);
}
