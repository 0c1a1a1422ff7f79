//! Steps of whole networks, on request: the half of `benches/training.py` and `benches/losses.py` that is ours.
//!
//! A line of the standard input is either `<network> <forward|step|fed|varied> <repetitions>`, answered by a line with the
//! seconds that passed and the seconds that all threads computed; or `losses <weights> <batches> <lr>`, two safetensors
//! files and the learning rate of SGD, answered by a line with the loss of each batch. `fed` are steps of the trainer,
//! whose batches come from stored images; in `varied` ones images are cropped and mirrored at random.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use engraft::domain::epoch_choice::EpochChoice;
use engraft::exec::CpuNetwork;
use engraft::exec::{OptimizerState, Update};
use engraft::kernels::loss::Targets;
use engraft::kernels::truth::Truth;
use engraft::model::families;
use engraft::settings::{Architecture, Augment, Finetune, Objective, Optimizer};
use engraft::tensors::{Checkpoint, Weights};
use engraft::train::{self, Examples, Setup, init};

mod networks;

const THREADS: usize = 2;
const UPDATE: Update = Update { lr_scale: 1.0, clip_norm: None };

fn main() {
    // `cargo test` and others start benches without this argument and without questions.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut runs: BTreeMap<String, Run> = BTreeMap::new();
    for line in io::stdin().lock().lines() {
        let line = line.expect("a line of text");
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["losses", weights, batches, lr] => {
                let losses = losses(Path::new(weights), Path::new(batches), lr.parse().expect("a number"));
                println!("{}", losses.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
            }
            [name, pass, repetitions] => {
                let run = runs.entry(name.to_owned()).or_insert_with(|| Run::new(name));
                let repetitions: usize = repetitions.parse().expect("a number");
                let (start, cpu) = (Instant::now(), cpu_seconds());
                match pass {
                    "forward" => (0..repetitions).for_each(|_| run.forward()),
                    "step" => (0..repetitions).for_each(|_| run.step()),
                    _ => run.train(repetitions, pass == "varied"),
                }
                println!("{} {}", start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            }
            _ => panic!("expected one of the two questions, got `{line}`"),
        }
        io::stdout().flush().expect("a reader");
    }
}

/// Processor time of all threads, as Linux counts it.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a Linux machine");
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() * 1e-9
}

/// The losses of a step on each batch. `weights` are those of a known network; `batches` has the images `x`
/// (steps x batch x channels x height x width) and the labels `y` (steps x batch), both as f32.
fn losses(weights: &Path, batches: &Path, lr: f32) -> Vec<f64> {
    let [weights, batches] = [weights, batches].map(|path| Checkpoint::open(path).expect("a safetensors file"));
    let shape = &batches.header().get("x").expect("images").shape;
    let input = Some(shape[2..].to_vec());
    let detected =
        families::detect(&[weights.header()], &Architecture::default(), input.as_ref()).expect("a known network");
    let mut network = CpuNetwork::compile(&detected.graphs[0], shape[1], THREADS).expect("a network");
    network.load(&weights).expect("fitting weights");
    let mut optimizer = OptimizerState::new(&sgd(lr), network.parameters());
    let (images, labels) = (batches.f32("x").expect("images"), batches.f32("y").expect("labels"));
    let labels: Vec<u32> = labels.iter().map(|label| *label as u32).collect();
    let steps = images.chunks_exact(shape[1] * network.example_len()).zip(labels.chunks_exact(shape[1]));
    let step = |(images, labels)| {
        let loss = network.gradients(images, Targets::of(labels)).expect("a fitting batch").loss;
        network.update(|parameters| optimizer.step(parameters, UPDATE));
        loss
    };
    steps.map(step).collect()
}

/// SGD as both halves have it.
fn sgd(lr: f32) -> Optimizer {
    Optimizer::Sgd { lr, momentum: 0.9, nesterov: false, weight_decay: 5e-4, decay_norms_and_biases: true }
}

/// A network with a batch.
struct Run {
    network: CpuNetwork,
    optimizer: OptimizerState,
    images: Vec<f32>,
    labels: Vec<u32>,
}

impl Run {
    fn new(name: &str) -> Self {
        let graph = networks::by_name(name).unwrap_or_else(|| panic!("no network `{name}`"));
        let batch = match name {
            "vgg11" => 128,
            "resnet18" | "vit_tiny" => 64,
            "mobilenet_v2" => 32,
            _ => 256,
        };
        let mut network = CpuNetwork::compile(&graph, batch, THREADS).expect("a network");
        network.load(&init(&graph, 1).expect("weights")).expect("fitting weights");
        let optimizer = OptimizerState::new(&sgd(1e-3), network.parameters());
        let noise = |i: usize| ((i * 7919) % 2003) as f32 / 1001.0 - 1.0;
        let images = (0..batch * network.example_len()).map(noise).collect();
        Self { network, optimizer, images, labels: (0..batch as u32).map(|i| i % 10).collect() }
    }

    /// An epoch of `steps` batches.
    fn train(&mut self, steps: usize, varied: bool) {
        let (batch, len) = (self.labels.len(), self.network.example_len());
        let side = (len as f64 / 3.0).sqrt() as usize;
        let bytes = (0..1000 * len).map(|at| (at * 31 % 251) as u8).collect();
        let images = Images { shape: [3, side, side], bytes, count: steps * batch };
        let augment = varied.then_some(Augment { crop_padding: 4, flip: true });
        let (epochs, objective) = (1, Objective::CrossEntropy);
        let finetune = Finetune { epochs, batch_size: batch, objective, augment, ..Finetune::default() };
        let (train, none) = (&images, None);
        let setup = Setup {
            finetune: &finetune,
            seed: 0,
            train,
            validation: none,
            choice: EpochChoice::Best,
            test: none,
            teacher: None,
            checkpoints: None,
        };
        train::train(&mut self.network, &setup, None, &AtomicBool::new(false), &mut |_| {}).expect("a training");
    }

    fn forward(&mut self) {
        self.network.forward(&self.images).expect("a fitting batch");
    }

    fn step(&mut self) {
        self.network.gradients(&self.images, Targets::of(&self.labels)).expect("a fitting batch");
        let optimizer = &mut self.optimizer;
        self.network.update(|parameters| optimizer.step(parameters, UPDATE));
    }
}

/// Images of bytes.
#[derive(Debug)]
struct Images {
    shape: [usize; 3],
    bytes: Vec<u8>,
    count: usize,
}

impl Examples for Images {
    fn len(&self) -> usize {
        self.count
    }

    fn example_len(&self) -> usize {
        self.shape.iter().product()
    }

    fn image_shape(&self) -> Option<[usize; 3]> {
        Some(self.shape)
    }

    fn black(&self, _: usize) -> f32 {
        0.0
    }

    fn truth(&self, index: usize) -> Truth<'_> {
        Truth::Class(index as u32 % 10)
    }

    fn fill(&self, indices: &[usize], images: &mut [f32]) {
        let len = self.example_len();
        let stored = self.bytes.len() / len;
        for (image, index) in images.chunks_exact_mut(len).zip(indices) {
            let bytes = &self.bytes[index % stored * len..][..len];
            image.iter_mut().zip(bytes).for_each(|(value, byte)| *value = f32::from(*byte) / 255.0);
        }
    }
}
