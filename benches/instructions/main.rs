//! Kernels whose instructions are counted; run by benches/instructions/check.
//!
//! `instructions KERNEL TIMES` runs one of them so many times, on one thread and on fixed inputs: what one more time takes is its own. Without
//! both it lists them.

use std::hint::black_box;
use std::num::NonZeroUsize;

use engraft::exec::{CpuNetwork, OptimizerState, Update};
use engraft::kernels::attention::Attention;
use engraft::kernels::batch_norm::{Affine, BatchStatistics};
use engraft::kernels::conv::{Conv, Depthwise};
use engraft::kernels::loss::{Soft, Targets, objective};
use engraft::kernels::pool::{Cover, max};
use engraft::kernels::truth::Truths;
use engraft::kernels::{Epilogue, Geometry, Matrix, Workspace, product};
use engraft::settings::Optimizer;
use engraft::train::init;

#[path = "../networks/mod.rs"]
mod networks;

/// What is measured, after its inputs have been made.
type Kernel = Box<dyn FnMut() + Send>;
/// Makes the inputs.
type Prepare = fn() -> Kernel;

const KERNELS: [(&str, Prepare); 10] = [
    ("product", multiplied),
    ("conv", convolved),
    ("conv_input", conv_input),
    ("conv_weight", conv_weight),
    ("depthwise", depthwise),
    ("attention", attended),
    ("batch_norm", normalised),
    ("max_pool", pooled),
    ("distillation", distilled),
    ("lenet_step", step),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo test` and others start benches with arguments of their own.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let known = |name: &String| KERNELS.into_iter().find(|(known, _)| known == name);
    let [name, times] = &arguments[..] else {
        for (name, _) in KERNELS {
            println!("{name}");
        }
        return Ok(());
    };
    let Some((_, prepare)) = known(name) else { return Err(format!("there is no kernel {name}").into()) };
    let times: usize = times.parse()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(|| {
        let mut kernel = prepare();
        (0..times).for_each(|_| kernel());
    });
    Ok(())
}

fn workspace() -> Workspace<f32> {
    Workspace::new(NonZeroUsize::MIN)
}

/// Numbers between -1 and 1.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// Windows of three by three around each of 16 x 16 pixels.
fn geometry(channels: usize) -> Geometry {
    Geometry {
        channels,
        input: [16, 16],
        output: [16, 16],
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
    }
}

fn multiplied() -> Kernel {
    let (mut work, a, b) = (workspace(), values(128 * 384), values(192 * 384));
    let mut out = vec![0.0; 128 * 192];
    Box::new(move || {
        let (a, b) = (Matrix::new(&a, 128, 384), Matrix::new(&b, 192, 384));
        product(&mut work, a, b.transposed(), Epilogue::PLAIN, &mut out);
        black_box(&out);
    })
}

const IMAGES: usize = 4;

/// A convolution of 128 channels to 64, four images, its weights and its output.
fn conv() -> (Conv, Vec<f32>, Vec<f32>, Vec<f32>) {
    let conv = Conv { geometry: geometry(128), out_channels: 64, groups: 1 };
    let positions = IMAGES * conv.geometry.output[0] * conv.geometry.output[1];
    (conv, values(positions * 128), values(64 * 9 * 128), values(positions * 64))
}

fn convolved() -> Kernel {
    let (mut work, (conv, x, weight, mut y), bias) = (workspace(), conv(), values(64));
    Box::new(move || {
        conv.forward(&mut work, &x, &weight, Some(&bias), true, &mut y);
        black_box(&y);
    })
}

fn conv_input() -> Kernel {
    let (mut work, (conv, mut dx, weight, dy)) = (workspace(), conv());
    Box::new(move || {
        conv.backward_input(&mut work, &dy, &weight, &mut dx, false);
        black_box(&dx);
    })
}

fn conv_weight() -> Kernel {
    let (mut work, (conv, x, mut dweight, dy)) = (workspace(), conv());
    Box::new(move || {
        conv.backward_parameters(&mut work, &x, &dy, &mut dweight, None);
        black_box(&dweight);
    })
}

fn depthwise() -> Kernel {
    let (conv, x, weight) = (Depthwise { geometry: geometry(64) }, values(IMAGES * 256 * 64), values(9 * 64));
    let mut y = vec![0.0; x.len()];
    Box::new(move || {
        conv.forward(&x, &weight, None, true, &mut y);
        black_box(&y);
    })
}

fn attended() -> Kernel {
    let attention = Attention { channels: 96, heads: 3, tokens: 65 };
    let (mut work, x) = (workspace(), values(IMAGES * 65 * 3 * 96));
    let mut y = vec![0.0; x.len() / 3];
    Box::new(move || {
        attention.forward(&mut work, &x, &mut y);
        black_box(&y);
    })
}

fn normalised() -> Kernel {
    let (mut work, x) = (workspace(), values(4096 * 64));
    let (mut statistics, mut affine, mut y) = (BatchStatistics::default(), Affine::default(), vec![0.0; x.len()]);
    Box::new(move || {
        statistics.measure(&mut work, &x, 64);
        let channels = statistics.mean.iter().zip(&statistics.var).map(|(mean, var)| (*mean, *var, 1.0, 0.0));
        affine.set(1e-5, channels);
        affine.apply(&x, true, &mut y);
        black_box(&y);
    })
}

fn pooled() -> Kernel {
    let geometry = Geometry { output: [8, 8], kernel: [2, 2], stride: [2, 2], padding: [0, 0], ..geometry(64) };
    let (cover, x) = (Cover::windows(&geometry, false), values(IMAGES * 256 * 64));
    let (mut y, mut argmax) = (vec![0.0; x.len() / 4], vec![0; x.len() / 4]);
    Box::new(move || {
        max(&cover, 64, &x, &mut y, &mut argmax);
        black_box(&y);
    })
}

fn distilled() -> Kernel {
    let (logits, teacher) = (values(1024 * 10), values(1031 * 10));
    let labels: Vec<u32> = (0..1024).map(|i| i % 10).collect();
    let (mut gradient, mut rows) = (vec![0.0; logits.len()], Vec::new());
    Box::new(move || {
        let soft = Soft { teacher: &teacher[..logits.len()], temperature: 2.0, weight: 0.9 };
        let targets = Targets { truths: Truths::Classes(&labels), smoothing: 0.0, soft: Some(soft) };
        black_box(objective(&logits, 1024, targets, &mut gradient, &mut rows));
    })
}

/// A whole step of training: LeNet, 32 images, SGD.
fn step() -> Kernel {
    const BATCH: usize = 32;
    let graph = networks::by_name("lenet").expect("it is there");
    let mut network = CpuNetwork::compile(&graph, BATCH, 1).expect("a network");
    network.load(&init(&graph, 1).expect("weights")).expect("fitting weights");
    let sgd =
        Optimizer::Sgd { lr: 1e-3, momentum: 0.9, nesterov: false, weight_decay: 5e-4, decay_norms_and_biases: true };
    let mut optimizer = OptimizerState::new(&sgd, network.parameters());
    let images = values(BATCH * network.example_len());
    let labels: Vec<u32> = (0..BATCH as u32).map(|i| i % 10).collect();
    Box::new(move || {
        network.gradients(&images, Targets::of(&labels)).expect("a fitting batch");
        network.update(|parameters| optimizer.step(parameters, Update { lr_scale: 1.0, clip_norm: None }));
    })
}
