//! The whole engine on the emulated device, beside PyTorch's numbers and the CPU's engine.

mod fused;
mod whole;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::GpuNetwork;
use super::emulated::Emulated;
use super::tape::Storage;
use crate::exec::{CpuNetwork, Engine, HeldView, Inputs, StoredImages, Update};
use crate::kernels::dropout::Draw;
use crate::kernels::finite_difference::sample;
use crate::kernels::loss::{Soft, Targets};
use crate::kernels::truth::Truths;
use crate::model::graph::Graph;
use crate::model::graph::json::parse;
use crate::settings::Optimizer;
use crate::tensors::operation_cases::cases;
use crate::tensors::{StateDict, Weights};
use crate::train::init;

const DRAW: Draw = Draw { seed: 3, step: 0 };

fn compiled(graph: &Graph, weights: &dyn Weights, batch: usize, storage: Storage) -> GpuNetwork<Emulated> {
    let mut network = GpuNetwork::compile(Emulated::new(), graph, batch, 2, storage).unwrap();
    network.load(weights).unwrap();
    network
}

/// Asserts that all numbers are as expected, as parts of the largest one.
#[track_caller]
fn near(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-6_f32, |most, value| most.max(value.abs()));
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * scale, "{what}, {index}: {got} for {expected} (scale {scale})");
    }
}

#[test]
fn outputs_are_those_of_pytorch() {
    for (storage, tolerance) in [(Storage::F32, 1e-5), (Storage::Bf16, 4e-2)] {
        for case in cases::<f32>() {
            let (graph, weights) = case.framed();
            let mut network = compiled(&graph, &weights, case.batch, storage);
            let got = network.forward(Inputs::Images(&case.inputs)).unwrap();
            near(&format!("{} in {storage:?}", case.name), got, &case.outputs, tolerance);
        }
    }
}

#[test]
fn gradients_are_those_of_pytorch() {
    let mut compared = 0;
    for case in cases::<f32>() {
        let Some(expected) = &case.gradients else { continue };
        let (graph, weights) = case.framed();
        let mut network = compiled(&graph, &weights, case.batch, Storage::F32);
        let labels: Vec<u32> = (0..case.batch).map(|i| (i % network.classes()) as u32).collect();
        let gradients = network.gradients(Inputs::Images(&case.inputs), Targets::of(&labels), DRAW).unwrap();
        let names: Vec<String> = network.learned().iter().map(|(name, _)| (*name).to_owned()).collect();
        let all: Vec<f32> = names.iter().flat_map(|name| expected[name].iter().copied()).collect();
        let most = all.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        for (name, got) in names.iter().zip(&gradients.tensors) {
            let expected = &expected[name];
            let scale = expected.iter().fold(1e-3 * most, |most, value| most.max(value.abs()));
            for (got, expected) in got.iter().zip(expected) {
                let near = (got - expected).abs() <= 2e-4 * scale + 2e-6;
                assert!(near, "{}, {name}: {got} for {expected} (scale {scale})", case.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 1000, "{compared} values compared");
}

/// Convolutions of odd widths, norms, a shortcut, pools, a flattened image and dropout.
fn small() -> Graph {
    let nodes = json!([
        {"name": "input", "op": "input", "shape": [3, 8, 8]},
        {"name": "stem", "op": "conv2d", "in_channels": 3, "out_channels": 5, "kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "bias": false},
        {"name": "bn1", "op": "batch_norm", "features": 5},
        {"name": "relu1", "op": "relu"},
        {"name": "conv2", "op": "conv2d", "in_channels": 5, "out_channels": 5, "kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "bias": false},
        {"name": "bn2", "op": "batch_norm", "features": 5},
        {"name": "sum", "op": "add", "inputs": ["bn2", "relu1"]},
        {"name": "relu2", "op": "relu"},
        {"name": "pool", "op": "max_pool2d", "kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "dilation": [1, 1]},
        {"name": "wide", "op": "conv2d", "in_channels": 5, "out_channels": 9, "kernel": [1, 1], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "bias": true},
        {"name": "gelu", "op": "gelu"},
        {"name": "flat", "op": "flatten"},
        {"name": "fc1", "op": "linear", "in_features": 144, "out_features": 11, "bias": true},
        {"name": "relu3", "op": "relu"},
        {"name": "drop", "op": "dropout", "p": 0.25},
        {"name": "fc2", "op": "linear", "in_features": 11, "out_features": 7, "bias": true}
    ]);
    parse(&json!({"nodes": nodes})).unwrap()
}

const BATCH: usize = 6;

fn batch(step: u64) -> (Vec<f32>, Vec<u32>) {
    let images = sample(BATCH * 192, 11 + step).into_iter().map(|value| value as f32).collect();
    (images, (0..BATCH as u32).map(|i| (i * 5 + step as u32) % 7).collect())
}

/// Losses of some steps with a teacher, and the weights behind them.
fn trained(network: &mut dyn Engine, rule: &Optimizer, clip_norm: Option<f32>) -> (Vec<f64>, StateDict) {
    network.init_optimizer(rule);
    let teacher: Vec<f32> = sample(BATCH * 7, 5).into_iter().map(|value| value as f32).collect();
    let mut losses = Vec::new();
    for step in 0..8 {
        let (images, labels) = batch(step);
        let soft = (step % 2 == 1).then_some(Soft { teacher: &teacher[..], temperature: 3.0, weight: 0.6 });
        let targets = Targets { truths: Truths::Classes(&labels), smoothing: 0.1, soft };
        let update = Update { lr_scale: 1.0 / (step + 1) as f64, clip_norm };
        network.step(Inputs::Images(&images), targets, update, Draw { seed: 9, step }).unwrap();
        losses.extend(network.take_steps(step == 3).unwrap().iter().map(|step| step.loss));
    }
    losses.extend(network.take_steps(true).unwrap().iter().map(|step| step.loss));
    (losses, network.state_dict().unwrap())
}

fn rules() -> [(Optimizer, Option<f32>); 2] {
    let sgd =
        Optimizer::Sgd { lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 5e-4, decay_norms_and_biases: true };
    let adamw = Optimizer::AdamW {
        lr: 0.01,
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: 0.05,
        decay_norms_and_biases: false,
    };
    [(sgd, Some(0.5)), (adamw, None)]
}

#[test]
fn trainings_go_as_on_the_processor() {
    let graph = small();
    let start = init(&graph, 4).unwrap();
    for (rule, clip) in rules() {
        let mut cpu = CpuNetwork::<f32>::compile(&graph, BATCH, 2).unwrap();
        cpu.load(&start).unwrap();
        let (expected, weights) = trained(&mut cpu, &rule, clip);
        for (storage, tolerance) in [(Storage::F32, 1e-4), (Storage::Bf16, 5e-2)] {
            let mut network = compiled(&graph, &start, BATCH, storage);
            let (losses, own) = trained(&mut network, &rule, clip);
            assert_eq!(losses.len(), 8);
            for (got, expected) in losses.iter().zip(&expected) {
                assert!((got - expected).abs() < tolerance * expected, "{rule:?} in {storage:?}: {got} for {expected}");
            }
            assert!(network.is_finite().unwrap());
            if storage == Storage::F32 {
                for (name, _) in weights.iter().filter(|(name, _)| !name.ends_with("tracked")) {
                    let [own, expected] = [&own, &weights].map(|weights| weights.f32(name).unwrap().to_vec());
                    near(name, &own, &expected, if matches!(rule, Optimizer::AdamW { .. }) { 2e-2 } else { 1e-3 });
                }
                assert_eq!(own.counter("bn1.num_batches_tracked"), weights.counter("bn1.num_batches_tracked"));
            }
        }
    }
}

#[test]
fn a_training_that_goes_on_elsewhere_is_the_same_training() {
    let graph = small();
    for (rule, clip) in rules() {
        let mut whole = compiled(&graph, &init(&graph, 4).unwrap(), BATCH, Storage::F32);
        trained(&mut whole, &rule, clip);
        let (steps, state) = whole.save_optimizer().unwrap();
        let mut other = compiled(&graph, &whole.state_dict().unwrap(), BATCH, Storage::F32);
        other.init_optimizer(&rule);
        other.load_optimizer(steps, &state).unwrap();
        let (images, labels) = batch(20);
        for network in [&mut whole, &mut other] {
            network
                .step(Inputs::Images(&images), Targets::of(&labels), Update { lr_scale: 1.0, clip_norm: clip }, DRAW)
                .unwrap();
        }
        assert_eq!(whole.take_steps(true).unwrap(), other.take_steps(true).unwrap());
        let [one, two] = [&mut whole, &mut other].map(|network| network.state_dict().unwrap());
        for (name, _) in one.iter().filter(|(name, _)| !name.ends_with("tracked")) {
            assert_eq!(one.f32(name).unwrap(), two.f32(name).unwrap(), "{name}");
        }
    }
}

#[test]
fn more_steps_than_the_device_keeps_are_not_lost() {
    let graph = parse(&json!({"nodes": [
        {"name": "input", "op": "input", "shape": [2]},
        {"name": "fc", "op": "linear", "in_features": 2, "out_features": 2, "bias": false}
    ]}))
    .unwrap();
    let mut network = compiled(&graph, &init(&graph, 1).unwrap(), 1, Storage::F32);
    for _ in 0..300 {
        network
            .step(Inputs::Images(&[1.0, -1.0]), Targets::of(&[0]), Update { lr_scale: 1.0, clip_norm: None }, DRAW)
            .unwrap();
    }
    assert_eq!(network.take_steps(true).unwrap().len(), 300);
    assert!(network.forward(Inputs::Images(&[0.0; 3])).is_err());
}

/// Images of bytes with what they are to networks.
fn stored(bytes: &Arc<Vec<u8>>, channels: usize) -> StoredImages<'_> {
    let owner: Arc<dyn std::any::Any + Send + Sync> = Arc::clone(bytes) as Arc<_>;
    let normalization = (0..channels).map(|channel| [0.4 + 0.1 * channel as f32, 0.25]).collect();
    StoredImages { bytes, owner, shape: [3, 8, 8], normalization }
}

/// An image of 3 x 8 x 8 shifted and mirrored, pixel by pixel.
fn viewed(image: &[f32], [down, right, flip]: HeldView, black: impl Fn(usize) -> f32) -> Vec<f32> {
    let pixel = |at: usize| {
        let (channel, y, x) = (at / 64, at / 8 % 8, at % 8);
        let (y, x) = (y as i32 + down, if flip == 1 { 7 - x as i32 } else { x as i32 } + right);
        let inside = (0..8).contains(&y) && (0..8).contains(&x);
        if inside { image[channel * 64 + y as usize * 8 + x as usize] } else { black(channel) }
    };
    (0..192).map(pixel).collect()
}

/// What the network sees of the stored images.
fn seen(images: &StoredImages<'_>, indices: &[u32], views: Option<&[HeldView]>) -> Vec<f32> {
    let value = |byte: u8, [mean, std]: [f32; 2]| (f32::from(byte) / 255.0 - mean) / std;
    let mut all = Vec::new();
    for (at, index) in indices.iter().enumerate() {
        let bytes = &images.bytes[*index as usize * 192..][..192];
        let normalized = |(at, byte): (usize, &u8)| value(*byte, images.normalization[at / 64]);
        let mut image: Vec<f32> = bytes.iter().enumerate().map(normalized).collect();
        if let Some(views) = views {
            image = viewed(&image, views[at], |channel| value(0, images.normalization[channel]));
        }
        all.extend(image);
    }
    all
}

#[test]
fn images_that_the_device_holds_are_those_of_the_host() {
    let bytes: Arc<Vec<u8>> = Arc::new((0..9 * 192).map(|at| (at * 37 % 251) as u8).collect());
    let images = stored(&bytes, 3);
    let flat = parse(&json!({"nodes": [
        {"name": "input", "op": "input", "shape": [3, 8, 8]},
        {"name": "flat", "op": "flatten"},
        {"name": "fc", "op": "linear", "in_features": 192, "out_features": 7, "bias": true}
    ]}))
    .unwrap();
    let (indices, views) = ([4, 0, 8, 8, 1, 5], [[0, 0, 0], [1, -2, 1], [0, 3, 0], [-9, 0, 0], [2, 2, 1], [0, 0, 1]]);
    for (graph, views) in [(&flat, None), (&small(), None), (&small(), Some(&views[..]))] {
        let start = init(graph, 4).unwrap();
        let [mut own, mut other] = [(); 2].map(|()| compiled(graph, &start, BATCH, Storage::F32));
        let held = own.hold(&images, views.is_some()).unwrap().unwrap();
        let inputs = Inputs::Held { held: &held, indices: &indices, views };
        let same = seen(&images, &indices, views);
        assert_eq!(own.forward(inputs).unwrap(), other.forward(Inputs::Images(&same)).unwrap());
        let update = Update { lr_scale: 1.0, clip_norm: None };
        let labels = [0, 1, 2, 3, 4, 5];
        own.step(inputs, Targets::of(&labels), update, DRAW).unwrap();
        other.step(Inputs::Images(&same), Targets::of(&labels), update, DRAW).unwrap();
        assert_eq!(own.take_steps(true).unwrap(), other.take_steps(true).unwrap());
        let outside = Inputs::Held { held: &held, indices: &[9], views: None };
        assert!(own.forward(outside).is_err());
    }
    let mut vector = compiled(&flat, &init(&flat, 4).unwrap(), BATCH, Storage::F32);
    assert!(vector.hold(&images, true).unwrap().is_none(), "without positions there is nothing to crop");
    assert!(vector.hold(&stored(&bytes, 2), false).unwrap().is_none());
}

#[test]
fn saliency_is_that_of_the_processor() {
    let graph = small();
    let start = init(&graph, 4).unwrap();
    for squared in [false, true] {
        let saliency = |network: &mut dyn Engine| {
            for step in 0..5 {
                let (images, labels) = batch(step);
                let targets = Targets::of(&labels);
                network.add_saliency(Inputs::Images(&images), targets, Draw { seed: 9, step }, squared).unwrap();
            }
            network.take_saliency().unwrap()
        };
        let mut cpu = CpuNetwork::<f32>::compile(&graph, BATCH, 2).unwrap();
        cpu.load(&start).unwrap();
        let mut network = compiled(&graph, &start, BATCH, Storage::F32);
        let (expected, got) = (saliency(&mut cpu), saliency(&mut network));
        assert_eq!(expected.len(), got.len());
        for ((name, _), (got, expected)) in network.learned().iter().zip(got.iter().zip(&expected)) {
            near(name, got, expected, 2e-4);
        }
        // What was taken is gone.
        assert!(network.take_saliency().unwrap().iter().flatten().all(|value| *value == 0.0));
    }
}
