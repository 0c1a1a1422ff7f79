//! The demo's ensemble: small networks trained from different seeds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Result;

use super::glyphs::SIZE;
use crate::data::{Dataset, Limits, Split};
use crate::job::request::{Finetune, Normalize, Objective, Optimizer};
use crate::model::graph::{Graph, Node, NodeId, Op};
use crate::train::{self, Event, Examples, Network, Setup};

/// Mean of the glyphs' pixels.
pub(super) const MEAN: f64 = 0.222;
/// Their standard deviation.
pub(super) const STD: f64 = 0.286;

/// Units of each hidden layer.
const WIDTH: usize = 96;
const BATCH: usize = 128;

/// Trains one network on the dataset `data` and writes it to `out`.
pub(super) fn train(data: &Path, seed: u64, epochs: usize, out: &Path) -> Result<()> {
    let dataset = Dataset::open(data, &Limits::default())?;
    let normalize = Normalize { mean: vec![MEAN as f32], std: vec![STD as f32] };
    let train = Whole { split: &dataset.train, normalize: &normalize };
    let test = dataset.test.as_ref().map(|split| Whole { split, normalize: &normalize });
    let graph = mlp(dataset.facts.classes)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut network = Network::compile(&graph, BATCH, threads)?;
    network.load(&train::init(&graph, seed)?)?;
    let optimizer =
        Optimizer::Sgd { lr: 0.1, momentum: 0.9, nesterov: false, weight_decay: 0.0, decay_norms_and_biases: true };
    let finetune =
        Finetune { epochs, objective: Objective::CrossEntropy, optimizer, batch_size: BATCH, ..Finetune::default() };
    let test = test.as_ref().map(|test| test as &dyn Examples);
    let setup =
        Setup { finetune: &finetune, seed, train: &train, validation: None, test, teacher: None, checkpoints: None };
    let mut accuracy = None;
    let trained = train::train(&mut network, &setup, None, &AtomicBool::new(false), &mut |event| {
        if let Event::Epoch(metrics) = event {
            accuracy = metrics.test.map(|score| score.accuracy);
        }
    })?;
    trained.weights.save(out, &BTreeMap::new())?;
    println!("   {}: {:.2} % on the test images", out.display(), accuracy.unwrap_or(0.0) * 100.0);
    Ok(())
}

/// Linear layers with ReLU between them, named as a PyTorch module would name them.
fn mlp(classes: usize) -> Result<Graph> {
    let pixels = SIZE * SIZE;
    let linear = |in_features, out_features| Op::Linear { in_features, out_features, bias: true };
    let ops = [
        ("input", Op::Input { shape: vec![1, SIZE, SIZE] }),
        ("flatten", Op::Flatten),
        ("fc1", linear(pixels, WIDTH)),
        ("relu1", Op::Relu),
        ("fc2", linear(WIDTH, WIDTH)),
        ("relu2", Op::Relu),
        ("fc3", linear(WIDTH, classes)),
    ];
    let node = |(index, (name, op)): (usize, (&str, Op))| {
        let inputs = index.checked_sub(1).map(NodeId).into_iter().collect();
        Node { name: name.to_owned(), op, inputs }
    };
    Ok(Graph::new(ops.into_iter().enumerate().map(node).collect())?)
}

/// All examples of a split.
#[derive(Debug)]
struct Whole<'a> {
    split: &'a Split,
    normalize: &'a Normalize,
}

impl Examples for Whole<'_> {
    fn len(&self) -> usize {
        self.split.len()
    }

    fn example_len(&self) -> usize {
        self.split.elements()
    }

    fn label(&self, index: usize) -> u32 {
        self.split.labels()[index]
    }

    fn fill(&self, indices: &[usize], images: &mut [f32]) {
        self.split.batch(indices, Some(self.normalize), images);
    }
}
