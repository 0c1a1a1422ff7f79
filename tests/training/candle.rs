//! Losses, activations and whole networks against candle, which computes them independently.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Module, Shape, Tensor, Var};
use candle_nn::init::{FanInOut, NonLinearity};
use candle_nn::{Activation, VarBuilder, loss};
use engraft::exec::CpuNetwork;
use engraft::kernels::function::Function;
use engraft::kernels::loss::{Targets, objective};
use engraft::model::families::fresh;
use engraft::model::graph::Graph;
use engraft::train::init;

#[path = "../../examples/load_in_candle.rs"]
#[expect(dead_code, reason = "its `main` belongs to the example")]
mod example;

const CPU: Device = Device::Cpu;

/// Numbers in [-8, 8), the same each time, none of them at a kink.
fn numbers(count: usize) -> Vec<f64> {
    (0..count).map(|index| ((index * 7919 + 13) % 1999) as f64 / 1999.0 * 16.0 - 8.0).collect()
}

fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let furthest = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(furthest < 1e-6, "{what}: {furthest}");
}

#[test]
fn activations_and_their_slopes_are_candles() {
    for (function, activation) in [
        (Function::Relu, Activation::Relu),
        (Function::Relu6, Activation::Relu6),
        (Function::LeakyRelu(0.1), Activation::LeakyRelu(0.1)),
        (Function::Gelu, Activation::Gelu),
        (Function::GeluTanh, Activation::GeluPytorchTanh),
        (Function::Silu, Activation::Silu),
        (Function::Hardswish, Activation::HardSwish),
        (Function::Sigmoid, Activation::Sigmoid),
        (Function::Hardsigmoid, Activation::HardSigmoid),
        (Function::Elu(0.3), Activation::Elu(0.3)),
    ] {
        let x = numbers(1000);
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        function.apply(&x, &mut y);
        function.backward(&x, &vec![1.0; x.len()], &mut dx, false);
        let input = Var::new(x, &CPU).expect("a variable");
        let output = activation.forward(&input).expect("values");
        assert_close(&format!("{function:?}"), &y, &output.to_vec1().expect("a vector"));
        let gradients = output.sum_all().and_then(|sum| sum.backward()).expect("gradients");
        let slopes = gradients.get(&input).expect("of the input").to_vec1().expect("a vector");
        assert_close(&format!("slopes of {function:?}"), &dx, &slopes);
    }
}

#[test]
fn the_cross_entropy_and_its_gradient_are_candles() {
    let (batch, classes) = (32, 10);
    let (logits, labels) = (numbers(batch * classes), (0..batch as u32).map(|i| i * 3 % 10).collect::<Vec<_>>());
    let mut gradient = vec![0.0; logits.len()];
    let ours = objective(&logits, labels.len(), Targets::of(&labels), &mut gradient, &mut Vec::new());
    let input = Tensor::from_vec(logits, (batch, classes), &CPU).and_then(|x| Var::from_tensor(&x)).expect("logits");
    let labels = Tensor::from_vec(labels, batch, &CPU).expect("labels");
    let theirs = loss::cross_entropy(&input, &labels).expect("a loss");
    assert_close("cross-entropy", &[ours], &[theirs.to_scalar().expect("a number")]);
    let gradients = theirs.backward().expect("gradients");
    let slopes = gradients.get(&input).expect("of the logits").flatten_all().and_then(|all| all.to_vec1());
    assert_close("gradient of the cross-entropy", &gradient, &slopes.expect("a vector"));
}

#[test]
fn fresh_weights_of_a_seed_are_known_to_the_bit() {
    let weights =
        init::init(&fresh::lenet(&vec![3, 32, 32], fresh::LENET, 10).expect("a network"), 7).expect("weights");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.safetensors");
    weights.save(&file, &BTreeMap::new()).expect("writes");
    let tensors = candle_core::safetensors::load(&file, &CPU).expect("reads");
    let first = |name: &str| {
        let values: Vec<f32> = tensors[name].flatten_all().and_then(|all| all.to_vec1()).expect("numbers");
        [values[0].to_bits(), values[1].to_bits()]
    };
    let names = ["conv1.weight", "conv1.bias", "conv2.weight", "fc1.weight", "fc2.weight", "fc3.bias"];
    let expected = [
        [3_182_052_372, 3_181_500_866],
        [3_183_592_514, 3_184_414_188],
        [1_032_294_973, 3_164_672_516],
        [1_024_313_505, 3_171_713_869],
        [3_179_298_642, 3_182_752_932],
        [3_179_820_370, 3_179_953_990],
    ];
    assert_eq!(names.map(first), expected);
}

#[test]
fn fresh_weights_are_bounded_as_candles_kaiming_uniform() {
    // PyTorch's gain of a leaky ReLU of slope sqrt 5.
    let gain = NonLinearity::ExplicitGain((1.0_f64 / 3.0).sqrt()).gain();
    let matrices = (1..2000).map(|inputs| vec![3, inputs]);
    let kernels = (1..200).flat_map(|inputs| [1, 3, 5, 7].map(|size| vec![2, inputs, size, size]));
    for shape in matrices.chain(kernels).chain([vec![8], vec![8, 3, 9]]) {
        let fan = FanInOut::FanIn.for_shape(&Shape::from(shape.clone()));
        let theirs = (3.0_f64.sqrt() * gain / (fan as f64).sqrt()) as f32;
        let apart = init::bound(&shape).to_bits().abs_diff(theirs.to_bits());
        assert!(apart <= 1, "{shape:?}: {apart} floats apart");
    }
}

#[test]
fn networks_loaded_by_the_example_compute_the_same_logits() {
    let grey = vec![1, 28, 28];
    let colour = vec![3, 32, 32];
    for (name, graph) in [
        ("mlp", fresh::mlp(&grey, &[32, 16], 10)),
        ("lenet", fresh::lenet(&grey, fresh::LENET, 10)),
        ("vgg11", fresh::vgg11(&colour, 4, 10)),
        ("resnet18", fresh::resnet18(&colour, 4, 10)),
    ] {
        check(name, &graph.expect("a network"));
    }
}

fn check(name: &str, graph: &Graph) {
    const BATCH: usize = 2;
    let weights = init::init(graph, 1).expect("weights");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.safetensors");
    weights.save(&file, &BTreeMap::new()).expect("writes");

    let shape: Vec<usize> = std::iter::once(BATCH).chain(graph.input_shape().iter().copied()).collect();
    let images: Vec<f32> = numbers(shape.iter().product()).into_iter().map(|value| (value / 8.0) as f32).collect();
    let mut engine: CpuNetwork = CpuNetwork::compile(graph, BATCH, 1).expect("compiles");
    engine.load(&weights).expect("its weights");
    let ours: Vec<f64> = engine.forward(&images).expect("a batch").iter().map(|logit| f64::from(*logit)).collect();

    let architecture = serde_json::to_value(graph).expect("the JSON form");
    let bytes = std::fs::read(&file).expect("reads");
    let loaded = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &CPU).expect("a checkpoint");
    let batch = Tensor::from_vec(images, shape, &CPU).expect("a batch");
    let logits = example::forward(&architecture, &loaded, &batch).expect(name);
    let theirs = logits.to_dtype(DType::F64).and_then(|logits| logits.flatten_all()).and_then(|all| all.to_vec1());
    assert_close(name, &ours, &theirs.expect("logits"));
}
