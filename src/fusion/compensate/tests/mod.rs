//! Compensation on small networks: what must hold, and that it is the formula.

mod behaviour;
pub(in crate::fusion) mod device;
mod families;
mod formula;
mod networks;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::exec::statistics::Processor;
use crate::fusion::gather;
use crate::fusion::reference::verify;
use crate::fusion::select::{Ranking, measure};
use crate::fusion::{Member, magnitude, select};
use crate::model::graph::{Node, Window};
use crate::model::groups::GroupId;
use crate::model::parameters::{self, Role};
use crate::settings::Importance;

/// Inputs in memory.
pub(in crate::fusion) struct InputRows {
    pub(in crate::fusion) values: Vec<f32>,
    len: usize,
}

impl UnlabelledInputs for InputRows {
    fn len(&self) -> usize {
        self.values.len() / self.len
    }

    fn fill(&self, indices: &[usize], inputs: &mut [f32]) {
        for (target, index) in inputs.chunks_exact_mut(self.len).zip(indices) {
            target.copy_from_slice(&self.values[index * self.len..][..self.len]);
        }
    }
}

/// Gaussian inputs for `graph`.
pub(in crate::fusion) fn noise(graph: &Graph, count: usize, seed: u64) -> InputRows {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let len = graph.input_shape().iter().product();
    let mut normal = || (0..12).map(|_| rng.random::<f32>() - 0.5).sum::<f32>();
    InputRows { values: (0..count * len).map(|_| normal()).collect(), len }
}

/// A chain of operations, each with the operand before it.
pub(in crate::fusion) fn chain(ops: Vec<Op>) -> Graph {
    let node = |(index, op): (usize, Op)| {
        let inputs = index.checked_sub(1).map(NodeId).into_iter().collect();
        Node { name: format!("n{index}"), op, inputs }
    };
    Graph::new(ops.into_iter().enumerate().map(node).collect()).unwrap()
}

pub(in crate::fusion) fn linear(in_features: usize, out_features: usize, bias: bool) -> Op {
    Op::Linear { in_features, out_features, bias }
}

pub(in crate::fusion) fn conv(in_channels: usize, out_channels: usize, window: Window, bias: bool) -> Op {
    Op::conv2d(in_channels, out_channels, window, bias)
}

pub(in crate::fusion) fn mlp(bias: bool, widths: [usize; 2]) -> Graph {
    let [a, b] = widths;
    let input = Op::Input { shape: vec![6] };
    chain(vec![input, linear(6, a, bias), Op::Relu, linear(a, b, bias), Op::Relu, linear(b, 3, bias)])
}

/// Convolutions with pooling and a flatten.
pub(in crate::fusion) fn convnet() -> Graph {
    chain(vec![
        Op::Input { shape: vec![2, 8, 8] },
        conv(2, 5, Window::square(3, 1, 1), true),
        Op::Relu,
        Op::max_pool2d(Window::square(2, 2, 0)),
        conv(5, 6, Window::square(3, 1, 1), false),
        Op::BatchNorm { affine: true, features: 6, eps: 1e-5 },
        Op::Relu,
        Op::avg_pool2d(Window::square(2, 2, 0)),
        Op::Flatten,
        linear(24, 3, true),
    ])
}

/// A residual block with BatchNorm and a strided shortcut.
pub(in crate::fusion) fn resnet() -> Graph {
    let norm = || Op::BatchNorm { affine: true, features: 5, eps: 1e-5 };
    let nodes: Vec<(Op, Vec<usize>)> = vec![
        (Op::Input { shape: vec![2, 6, 6] }, vec![]),
        (conv(2, 4, Window::square(3, 1, 1), false), vec![0]),
        (Op::BatchNorm { affine: true, features: 4, eps: 1e-5 }, vec![1]),
        (Op::Relu, vec![2]),
        (conv(4, 5, Window::square(3, 2, 1), false), vec![3]),
        (norm(), vec![4]),
        (Op::Relu, vec![5]),
        (conv(5, 5, Window::square(3, 1, 1), false), vec![6]),
        (norm(), vec![7]),
        (conv(4, 5, Window::square(1, 2, 0), false), vec![3]),
        (norm(), vec![9]),
        (Op::Add, vec![8, 10]),
        (Op::Relu, vec![11]),
        (Op::GlobalAvgPool2d, vec![12]),
        (Op::Flatten, vec![13]),
        (linear(5, 3, true), vec![14]),
    ];
    let node = |(index, (op, inputs)): (usize, (Op, Vec<usize>))| {
        let inputs = inputs.into_iter().map(NodeId).collect();
        Node { name: format!("n{index}"), op, inputs }
    };
    Graph::new(nodes.into_iter().enumerate().map(node).collect()).unwrap()
}

pub(in crate::fusion) fn weights(graph: &Graph, seed: u64) -> StateDict {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = StateDict::default();
    for parameter in parameters::of_graph(graph) {
        let count = parameter.shape.iter().product();
        let low = if parameter.role == Role::RunningVar { 0.5 } else { -1.0 };
        let values = (0..count).map(|_| rng.random_range(low..1.0_f32)).collect();
        weights.insert_f32(&parameter.name, &parameter.shape, values).unwrap();
    }
    weights
}

const EXACT: CompensateOptions = CompensateOptions {
    output_layer: OutputTargets::Logits,
    sampling: Sampling { samples: None, positions: 1000, seed: 0 },
    convolutions: Convolutions::Shared,
    ridge: Some(1e-7),
};

/// Fuses to `targets` by the ranking; gives the plain network and the compensated weights.
fn fuse(
    ensemble: &Ensemble<'_>,
    targets: &[usize],
    importance: Importance,
    inputs: &InputRows,
    options: &CompensateOptions,
) -> (Fused, Compensated) {
    let statistics = measure(ensemble, inputs, &options.sampling, &Processor, &mut |_| true).unwrap();
    let ranking = Ranking { importance, seed: 1, statistics: Some(&statistics), saliencies: None, targets };
    let selection = select(ensemble, targets, |e, s, g| ranking.score(e, s, g), |_, _| {}).unwrap();
    let plain = gather(ensemble, &selection).unwrap().build().unwrap();
    let compensated = calibrate(ensemble, &selection, &plain, inputs, options, &Processor, &mut |_| true).unwrap();
    (plain, compensated)
}

pub(in crate::fusion) fn logits(graph: &Graph, weights: &StateDict, inputs: &InputRows) -> Vec<f32> {
    verify::reference(Member { graph, weights }, &inputs.values, inputs.len()).unwrap()
}

/// Mean squared difference over mean square.
pub(in crate::fusion) fn error(expected: &[f32], got: &[f32]) -> f32 {
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>();
    squares(&mut expected.iter().zip(got).map(|(a, b)| a - b)) / squares(&mut expected.iter().copied())
}

fn totals(ensemble: &Ensemble<'_>) -> Vec<usize> {
    (0..ensemble.groups()).map(|group| ensemble.widths(GroupId(group)).iter().sum()).collect()
}

fn halves(ensemble: &Ensemble<'_>) -> Vec<usize> {
    totals(ensemble).iter().map(|total| total / 2).collect()
}
