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
use engraft::model::graph::{Approximate, Graph, Node, NodeId, Op, Projections, Window};
use engraft::settings::{Architecture, Augment, Finetune, Objective, Optimizer};
use engraft::tensors::{Checkpoint, Weights};
use engraft::train::{self, Examples, Setup, init};

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
        let (graph, batch) = match name {
            "mlp" => (mlp(), 256),
            "lenet" => (lenet(), 256),
            "vgg11" => (vgg11(), 128),
            "resnet18" => (resnet18(), 64),
            "mobilenet_v2" => (mobilenet_v2(), 32),
            "vit_tiny" => (vit_tiny(), 64),
            _ => panic!("no network `{name}`"),
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

/// Nodes one after another.
struct Chain {
    nodes: Vec<Node>,
}

impl Chain {
    fn new(shape: &[usize]) -> Self {
        Self { nodes: vec![Node { name: "input".to_owned(), op: Op::Input { shape: shape.to_vec() }, inputs: vec![] }] }
    }

    fn last(&self) -> NodeId {
        NodeId(self.nodes.len() - 1)
    }

    fn join(&mut self, op: Op, inputs: Vec<NodeId>) -> NodeId {
        self.nodes.push(Node { name: format!("n{}", self.nodes.len()), op, inputs });
        self.last()
    }

    fn then(&mut self, op: Op) -> NodeId {
        let last = self.last();
        self.join(op, vec![last])
    }

    fn conv(&mut self, from: NodeId, channels: [usize; 2], window: Window, bias: bool) -> NodeId {
        let [in_channels, out_channels] = channels;
        self.join(Op::Conv2d { in_channels, out_channels, group_width: None, window, bias }, vec![from])
    }

    fn linear(&mut self, widths: &[usize]) {
        for pair in widths.windows(2) {
            self.then(Op::Linear { in_features: pair[0], out_features: pair[1], bias: true });
            self.then(Op::Relu);
        }
        self.nodes.pop();
    }

    fn graph(self) -> Graph {
        Graph::new(self.nodes).expect("a valid graph")
    }
}

fn mlp() -> Graph {
    let mut net = Chain::new(&[3072]);
    net.linear(&[3072, 512, 512, 512, 10]);
    net.graph()
}

fn pool() -> Op {
    Op::MaxPool2d { window: Window::square(2, 2, 0), ceil_mode: false }
}

fn lenet() -> Graph {
    let mut net = Chain::new(&[3, 32, 32]);
    for channels in [[3, 6], [6, 16]] {
        net.conv(net.last(), channels, Window::square(5, 1, 0), true);
        net.then(Op::Relu);
        net.then(pool());
    }
    net.then(Op::Flatten);
    net.linear(&[400, 120, 84, 10]);
    net.graph()
}

fn vgg11() -> Graph {
    let mut net = Chain::new(&[3, 32, 32]);
    let plan: [(usize, bool); 8] =
        [(64, true), (128, true), (256, false), (256, true), (512, false), (512, true), (512, false), (512, true)];
    let mut channels = 3;
    for (width, pooled) in plan {
        net.conv(net.last(), [channels, width], Window::square(3, 1, 1), true);
        net.then(Op::Relu);
        if pooled {
            net.then(pool());
        }
        channels = width;
    }
    net.then(Op::Flatten);
    net.linear(&[512, 10]);
    net.graph()
}

fn resnet18() -> Graph {
    let mut net = Chain::new(&[3, 32, 32]);
    let norm = |net: &mut Chain, features| net.then(Op::BatchNorm { affine: true, features, eps: 1e-5 });
    net.conv(net.last(), [3, 64], Window::square(3, 1, 1), false);
    norm(&mut net, 64);
    let mut x = net.then(Op::Relu);
    let mut channels = 64;
    for (width, first_stride) in [(64, 1), (128, 2), (256, 2), (512, 2)] {
        for stride in [first_stride, 1] {
            net.conv(x, [channels, width], Window::square(3, stride, 1), false);
            norm(&mut net, width);
            net.then(Op::Relu);
            net.conv(net.last(), [width, width], Window::square(3, 1, 1), false);
            let long = norm(&mut net, width);
            let short = if stride == 1 && channels == width {
                x
            } else {
                net.conv(x, [channels, width], Window::square(1, stride, 0), false);
                norm(&mut net, width)
            };
            net.join(Op::Add, vec![long, short]);
            x = net.then(Op::Relu);
            channels = width;
        }
    }
    net.then(Op::GlobalAvgPool2d);
    net.then(Op::Flatten);
    net.linear(&[512, 10]);
    net.graph()
}

/// As published, for images of 64 x 64.
fn mobilenet_v2() -> Graph {
    let mut net = Chain::new(&[3, 64, 64]);
    let norm = |net: &mut Chain, features, active| {
        net.then(Op::BatchNorm { affine: true, features, eps: 1e-5 });
        if active { net.then(Op::Relu6) } else { net.last() }
    };
    net.conv(net.last(), [3, 32], Window::square(3, 2, 1), false);
    let mut x = norm(&mut net, 32, true);
    let mut channels = 32;
    for (expansion, width, blocks, first_stride) in
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    {
        for block in 0..blocks {
            let (inner, stride) = (expansion * channels, if block == 0 { first_stride } else { 1 });
            let shortcut = x;
            if expansion > 1 {
                net.conv(x, [channels, inner], Window::square(1, 1, 0), false);
                norm(&mut net, inner, true);
            }
            let (window, group_width) = (Window::square(3, stride, 1), Some(1));
            net.then(Op::Conv2d { in_channels: inner, out_channels: inner, group_width, window, bias: false });
            norm(&mut net, inner, true);
            net.conv(net.last(), [inner, width], Window::square(1, 1, 0), false);
            x = norm(&mut net, width, false);
            if stride == 1 && channels == width {
                x = net.join(Op::Add, vec![x, shortcut]);
            }
            channels = width;
        }
    }
    net.conv(x, [320, 1280], Window::square(1, 1, 0), false);
    norm(&mut net, 1280, true);
    net.then(Op::GlobalAvgPool2d);
    net.then(Op::Flatten);
    net.linear(&[1280, 10]);
    net.graph()
}

/// `ViT` of width 192, 12 layers and 3 heads, for images of 32 x 32 in patches of 4 x 4.
fn vit_tiny() -> Graph {
    let (features, eps) = (192, 1e-6);
    let mut net = Chain::new(&[3, 32, 32]);
    net.conv(net.last(), [3, features], Window::square(4, 4, 0), true);
    net.then(Op::Reshape { positions: vec![64] });
    net.then(Op::ClassToken { features });
    let mut x = net.then(Op::PositionalEmbedding { tokens: 65, features });
    let linear = |in_features, out_features| Op::Linear { in_features, out_features, bias: true };
    for _ in 0..12 {
        net.join(Op::LayerNorm { features, eps }, vec![x]);
        let projections = Projections::default();
        let mixed = net.then(Op::Attention { features, heads: 3, projections, bias: true, output_bias: true });
        x = net.join(Op::Add, vec![x, mixed]);
        net.then(Op::LayerNorm { features, eps });
        net.then(linear(features, 4 * features));
        net.then(Op::Gelu { approximate: Approximate::None });
        let wide = net.then(linear(4 * features, features));
        x = net.join(Op::Add, vec![x, wide]);
    }
    net.then(Op::LayerNorm { features, eps });
    net.then(Op::TokenSelect { index: 0 });
    net.then(linear(features, 10));
    net.graph()
}
