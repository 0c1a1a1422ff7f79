use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::fusion::importance::{Ranking, measure};
use crate::fusion::{Member, gather, magnitude, select, verify};
use crate::job::request::Importance;
use crate::model::graph::{Node, Window};
use crate::model::groups::GroupId;
use crate::model::parameters::{self, Role};

/// Inputs in memory.
struct Rows {
    values: Vec<f32>,
    len: usize,
}

impl Inputs for Rows {
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
fn noise(graph: &Graph, count: usize, seed: u64) -> Rows {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let len = graph.input_shape().iter().product();
    let mut normal = || (0..12).map(|_| rng.random::<f32>() - 0.5).sum::<f32>();
    Rows { values: (0..count * len).map(|_| normal()).collect(), len }
}

/// A chain of operations, each with the operand before it.
fn chain(ops: Vec<Op>) -> Graph {
    let node = |(index, op): (usize, Op)| {
        let inputs = index.checked_sub(1).map(NodeId).into_iter().collect();
        Node { name: format!("n{index}"), op, inputs }
    };
    Graph::new(ops.into_iter().enumerate().map(node).collect()).unwrap()
}

fn linear(in_features: usize, out_features: usize, bias: bool) -> Op {
    Op::Linear { in_features, out_features, bias }
}

fn conv(in_channels: usize, out_channels: usize, window: Window, bias: bool) -> Op {
    Op::conv2d(in_channels, out_channels, window, bias)
}

fn mlp(bias: bool, widths: [usize; 2]) -> Graph {
    let [a, b] = widths;
    let input = Op::Input { shape: vec![6] };
    chain(vec![input, linear(6, a, bias), Op::Relu, linear(a, b, bias), Op::Relu, linear(b, 3, bias)])
}

/// Convolutions with pooling and a flatten.
fn convnet() -> Graph {
    chain(vec![
        Op::Input { shape: vec![2, 8, 8] },
        conv(2, 5, Window::square(3, 1, 1), true),
        Op::Relu,
        Op::max_pool2d(Window::square(2, 2, 0)),
        conv(5, 6, Window::square(3, 1, 1), false),
        Op::BatchNorm { features: 6, eps: 1e-5 },
        Op::Relu,
        Op::avg_pool2d(Window::square(2, 2, 0)),
        Op::Flatten,
        linear(24, 3, true),
    ])
}

/// A residual block with BatchNorm and a strided shortcut.
fn resnet() -> Graph {
    let norm = || Op::BatchNorm { features: 5, eps: 1e-5 };
    let nodes: Vec<(Op, Vec<usize>)> = vec![
        (Op::Input { shape: vec![2, 6, 6] }, vec![]),
        (conv(2, 4, Window::square(3, 1, 1), false), vec![0]),
        (Op::BatchNorm { features: 4, eps: 1e-5 }, vec![1]),
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

fn weights(graph: &Graph, seed: u64) -> StateDict {
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

const EXACT: Options = Options {
    sampling: Sampling { samples: None, positions: 1000, seed: 0 },
    convolutions: Convolutions::Shared,
    ridge: Some(1e-7),
};

/// Fuses to `targets` by the ranking; gives the plain network and the compensated weights.
fn fuse(
    ensemble: &Ensemble<'_>,
    targets: &[usize],
    importance: Importance,
    inputs: &Rows,
    options: &Options,
) -> (Fused, Compensated) {
    let statistics = measure(ensemble, inputs, &options.sampling, &mut |_| true).unwrap();
    let ranking = Ranking { importance, seed: 1, statistics: Some(&statistics), saliencies: None, targets };
    let selection = select(ensemble, targets, |e, s, g| ranking.score(e, s, g), |_, _| {}).unwrap();
    let plain = gather(ensemble, &selection).unwrap().build().unwrap();
    let compensated = calibrate(ensemble, &selection, &plain, inputs, options, &mut |_| true).unwrap();
    (plain, compensated)
}

fn logits(graph: &Graph, weights: &StateDict, inputs: &Rows) -> Vec<f32> {
    verify::reference(Member { graph, weights }, &inputs.values, inputs.len()).unwrap()
}

/// Mean squared difference over mean square.
fn error(expected: &[f32], got: &[f32]) -> f32 {
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>();
    squares(&mut expected.iter().zip(got).map(|(a, b)| a - b)) / squares(&mut expected.iter().copied())
}

fn totals(ensemble: &Ensemble<'_>) -> Vec<usize> {
    (0..ensemble.groups()).map(|group| ensemble.widths(GroupId(group)).iter().sum()).collect()
}

fn halves(ensemble: &Ensemble<'_>) -> Vec<usize> {
    totals(ensemble).iter().map(|total| total / 2).collect()
}

#[test]
fn keeping_everything_changes_nothing() {
    for graph in [mlp(true, [5, 4]), convnet(), resnet()] {
        let states = [weights(&graph, 1), weights(&graph, 2)];
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 40, 3);
        let (plain, compensated) = fuse(&ensemble, &totals(&ensemble), Importance::Magnitude, &inputs, &EXACT);
        assert!(compensated.done.layers.is_empty());
        let expected = verify::mean_of_members(&ensemble, &inputs.values, 40).unwrap();
        assert!(verify::Agreement::of(&expected, &logits(&plain.graph, &compensated.weights, &inputs)).holds());
    }
}

#[test]
fn copies_are_recovered_exactly() {
    for graph in [mlp(true, [9, 7]), mlp(false, [9, 7]), convnet(), resnet()] {
        let state = weights(&graph, 1);
        let member = Member { graph: &graph, weights: &state };
        let ensemble = Ensemble::new(vec![member, member]).unwrap();
        let inputs = noise(&graph, 400, 3);
        let expected = logits(&graph, &state, &inputs);
        for convolutions in [Convolutions::Shared, Convolutions::Full] {
            let options = Options { convolutions, ..EXACT };
            let (plain, compensated) = fuse(&ensemble, &halves(&ensemble), Importance::Css, &inputs, &options);
            let got = error(&expected, &logits(&plain.graph, &compensated.weights, &inputs));
            assert!(got < 1e-6, "{convolutions:?} {graph:?}: {got}");
            let before = error(&expected, &logits(&plain.graph, &plain.weights, &inputs));
            assert!(before > 0.01, "half of each output is missing before: {before}");
        }
    }
}

#[test]
fn four_members_of_which_two_are_copies_are_as_good_as_two() {
    for graph in [mlp(true, [9, 7]), resnet()] {
        let states = [weights(&graph, 1), weights(&graph, 2)];
        let of = |indices: &[usize]| {
            let members = indices.iter().map(|index| Member { graph: &graph, weights: &states[*index] });
            Ensemble::new(members.collect()).unwrap()
        };
        let inputs = noise(&graph, 400, 3);
        let (two, four) = (of(&[0, 1]), of(&[0, 1, 0, 1]));
        let targets = halves(&two);
        let (a, from_two) = fuse(&two, &targets, Importance::Css, &inputs, &EXACT);
        let (b, from_four) = fuse(&four, &targets, Importance::Css, &inputs, &EXACT);
        assert!(b.provenance.groups.iter().flat_map(|group| &group.units).all(|unit| unit.0 < 2), "a copy was taken");
        let difference =
            error(&logits(&a.graph, &from_two.weights, &inputs), &logits(&b.graph, &from_four.weights, &inputs));
        assert!(difference < 1e-5, "{difference}");
    }
}

/// `(A + ridge · mean diagonal · I)⁻¹ b` by elimination with pivots.
fn naive_solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>, ridge: f64) -> Vec<f64> {
    let n = b.len();
    let mean = (0..n).map(|i| a[i][i]).sum::<f64>() / n as f64;
    (0..n).for_each(|i| a[i][i] += ridge * mean);
    for i in 0..n {
        let pivot = (i..n).max_by(|p, q| a[*p][i].abs().total_cmp(&a[*q][i].abs())).unwrap();
        a.swap(i, pivot);
        b.swap(i, pivot);
        let (line, value) = (a[i].clone(), b[i]);
        for row in (0..n).filter(|row| *row != i) {
            let factor = a[row][i] / line[i];
            a[row].iter_mut().zip(&line).for_each(|(element, other)| *element -= factor * other);
            b[row] -= factor * value;
        }
    }
    (0..n).map(|i| b[i] / a[i][i]).collect()
}

/// Least squares of `y` by the rows `x`, about their means if `centred`: weights, then the constant.
fn naive_fit(x: &[Vec<f64>], y: &[f64], centred: bool, ridge: f64) -> (Vec<f64>, f64) {
    let (rows, n) = (x.len() as f64, x[0].len());
    let factor = if centred { 1.0 } else { 0.0 };
    let mean_x: Vec<f64> = (0..n).map(|i| factor * x.iter().map(|row| row[i]).sum::<f64>() / rows).collect();
    let mean_y = factor * y.iter().sum::<f64>() / rows;
    let product = |i: usize, j: usize| x.iter().map(|r| (r[i] - mean_x[i]) * (r[j] - mean_x[j])).sum::<f64>() / rows;
    let gram = (0..n).map(|i| (0..n).map(|j| product(i, j)).collect()).collect();
    let cross = |i: usize| x.iter().zip(y).map(|(r, y)| (r[i] - mean_x[i]) * (y - mean_y)).sum::<f64>() / rows;
    let weight = naive_solve(gram, (0..n).map(cross).collect(), ridge);
    let constant = mean_y - weight.iter().zip(&mean_x).map(|(w, x)| w * x).sum::<f64>();
    (weight, constant)
}

/// `relu(W x + b)` of every row.
fn naive_hidden(state: &StateDict, inputs: &Rows, bias: bool) -> Vec<Vec<f64>> {
    let weight = state.f32("n1.weight").unwrap();
    let bias = if bias { state.f32("n1.bias").unwrap().to_vec() } else { vec![0.0; weight.len() / inputs.len] };
    let dot = |row: &[f32], x: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
    let outputs = |x: &[f32]| {
        weight.chunks(inputs.len).zip(&bias).map(|(row, b)| (dot(row, x) + f64::from(*b)).max(0.0)).collect()
    };
    inputs.values.chunks(inputs.len).map(outputs).collect()
}

#[test]
fn the_refit_equals_the_formula() {
    for bias in [false, true] {
        let graph = chain(vec![Op::Input { shape: vec![5] }, linear(5, 6, bias), Op::Relu, linear(6, 3, bias)]);
        let states = [weights(&graph, 4), weights(&graph, 5)];
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 150, 6);
        let options = Options { ridge: Some(1e-3), ..EXACT };
        let (plain, compensated) = fuse(&ensemble, &[4], Importance::Magnitude, &inputs, &options);
        let hidden = states.each_ref().map(|state| naive_hidden(state, &inputs, bias));
        let kept = naive_hidden(&plain.weights, &inputs, bias);
        let refitted = compensated.weights.f32("n3.weight").unwrap();
        for row in 0..3 {
            let output = |member: usize, at: usize| {
                let weight = states[member].f32("n3.weight").unwrap();
                let constant = if bias { f64::from(states[member].f32("n3.bias").unwrap()[row]) } else { 0.0 };
                let products = weight[row * 6..(row + 1) * 6].iter().zip(&hidden[member][at]);
                0.5 * (products.map(|(w, a)| f64::from(*w) * a).sum::<f64>() + constant)
            };
            let targets: Vec<f64> = (0..150).map(|at| output(0, at) + output(1, at)).collect();
            let (expected, constant) = naive_fit(&kept, &targets, bias, 1e-3);
            for (got, expected) in refitted[row * 4..(row + 1) * 4].iter().zip(expected) {
                assert!((f64::from(*got) - expected).abs() < 1e-4, "{got} for {expected}");
            }
            if bias {
                let got = f64::from(compensated.weights.f32("n3.bias").unwrap()[row]);
                assert!((got - constant).abs() < 1e-4, "{got} for {constant}");
            }
        }
    }
}

/// What channel-shared and full fits of a convolution are, with loops.
#[test]
fn refits_of_convolutions_equal_the_formula() {
    let window = Window::square(2, 1, 0);
    let graph = chain(vec![
        Op::Input { shape: vec![3, 1, 1] },
        conv(3, 5, Window::square(1, 1, 0), false),
        Op::Relu,
        conv(5, 4, Window { padding: [1, 1], ..window }, false),
        Op::GlobalAvgPool2d,
        Op::Flatten,
        linear(4, 2, false),
    ]);
    let states = [weights(&graph, 7), weights(&graph, 8)];
    let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
    let inputs = noise(&graph, 120, 9);
    let hidden = states.each_ref().map(|state| naive_hidden(state, &inputs, false));
    let options = Options { ridge: Some(1e-2), ..EXACT };
    let (plain, compensated) = fuse(&ensemble, &[4, 4], Importance::Magnitude, &inputs, &options);
    let kept = naive_hidden(&plain.weights, &inputs, false);
    let kernels = plain.provenance.groups.iter().find(|group| group.layers == ["n3"]).unwrap();
    let refitted = compensated.weights.f32("n3.weight").unwrap();
    for (row, unit) in kernels.units.iter().enumerate() {
        // The image has one pixel, so channel j of member i is hidden[i][..][j], fitted by the kept channels.
        let weight = states[unit.0].f32("n3.weight").unwrap();
        let channels: Vec<Vec<f64>> = (0..5)
            .map(|j| naive_fit(&kept, &hidden[unit.0].iter().map(|a| a[j]).collect::<Vec<_>>(), false, 1e-2).0)
            .collect();
        for (s, tap) in (0..4).flat_map(|s| (0..4).map(move |tap| (s, tap))) {
            let expected: f64 = (0..5).map(|j| f64::from(weight[(unit.1 * 5 + j) * 4 + tap]) * channels[j][s]).sum();
            let got = f64::from(refitted[(row * 4 + s) * 4 + tap]);
            assert!((got - expected).abs() < 1e-4, "{got} for {expected}");
        }
    }
    // Padding 1 and a kernel of 2 x 2 give four windows, each with the pixel under another tap: the full system falls apart.
    let options = Options { convolutions: Convolutions::Full, ..options };
    let (_, full) = fuse(&ensemble, &[4, 4], Importance::Magnitude, &inputs, &options);
    let refitted = full.weights.f32("n3.weight").unwrap();
    for (row, unit) in kernels.units.iter().enumerate() {
        let weight = states[unit.0].f32("n3.weight").unwrap();
        for tap in 0..4 {
            let product = |a: &Vec<f64>| (0..5).map(|j| f64::from(weight[(unit.1 * 5 + j) * 4 + tap]) * a[j]).sum();
            let targets: Vec<f64> = hidden[unit.0].iter().map(product).collect();
            let expected = naive_fit(&kept, &targets, false, 1e-2).0;
            for (s, expected) in expected.into_iter().enumerate() {
                let got = f64::from(refitted[(row * 4 + s) * 4 + tap]);
                assert!((got - expected).abs() < 1e-4, "{got} for {expected}");
            }
        }
    }
}

#[test]
fn what_is_computed_anew_equals_what_was_kept_and_runs_repeat() {
    let graph = resnet();
    let states = [weights(&graph, 1), weights(&graph, 2)];
    let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
    let inputs = noise(&graph, 100, 3);
    let targets = halves(&ensemble);
    let selection = select(&ensemble, &targets, magnitude, |_, _| {}).unwrap();
    let plain = gather(&ensemble, &selection).unwrap().build().unwrap();
    let options = Options { ridge: None, sampling: Sampling { positions: 5, ..EXACT.sampling }, ..EXACT };
    let run = |held| calibrate_within(held, &ensemble, &selection, &plain, &inputs, &options, &mut |_| true).unwrap();
    let [kept, anew, again] = [HELD_BYTES, 0, HELD_BYTES].map(run);
    for name in kept.weights.names() {
        let values = |run: &Compensated| run.weights.f32(name).unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(values(&kept), values(&anew), "{name}");
        assert_eq!(values(&kept), values(&again), "{name}");
    }
    assert_eq!(kept.done, anew.done);
    assert!(kept.done.layers.iter().all(|layer| layer.relative_residual.is_finite() && layer.ridge > 0.0));
}

#[test]
fn stopping_is_obeyed() {
    let graph = mlp(true, [5, 4]);
    let states = [weights(&graph, 1), weights(&graph, 2)];
    let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
    let inputs = noise(&graph, 100, 3);
    let selection = select(&ensemble, &halves(&ensemble), magnitude, |_, _| {}).unwrap();
    let plain = gather(&ensemble, &selection).unwrap().build().unwrap();
    let mut calls = 0;
    let mut monitor = |_| {
        calls += 1;
        calls < 4
    };
    let stopped = calibrate(&ensemble, &selection, &plain, &inputs, &EXACT, &mut monitor);
    assert!(matches!(stopped, Err(FusionError::Stopped)));
    assert!(matches!(data_free(&ensemble, &selection, &plain, &mut |_| false), Err(FusionError::Stopped)));
}

#[test]
fn without_data_gaussian_inputs_are_fitted_better_than_by_selection_alone() {
    for bias in [false, true] {
        let graph = mlp(bias, [24, 16]);
        let states = [weights(&graph, 1), weights(&graph, 2)];
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 500, 3);
        let expected = verify::mean_of_members(&ensemble, &inputs.values, 500).unwrap();
        let selection = select(&ensemble, &halves(&ensemble), magnitude, |_, _| {}).unwrap();
        let plain = gather(&ensemble, &selection).unwrap().build().unwrap();
        let refitted = data_free(&ensemble, &selection, &plain, &mut |_| true).unwrap();
        let before = error(&expected, &logits(&plain.graph, &plain.weights, &inputs));
        let after = error(&expected, &logits(&plain.graph, &refitted.weights, &inputs));
        assert!(after < 0.6 * before, "bias {bias}: {after} after, {before} before");
        assert_eq!(refitted.done.layers.len(), 2);
    }
}

#[test]
fn convolutions_have_no_data_free_compensation() {
    let graph = convnet();
    let state = weights(&graph, 1);
    let member = Member { graph: &graph, weights: &state };
    let ensemble = Ensemble::new(vec![member, member]).unwrap();
    let selection = select(&ensemble, &halves(&ensemble), magnitude, |_, _| {}).unwrap();
    let plain = gather(&ensemble, &selection).unwrap().build().unwrap();
    let refused = data_free(&ensemble, &selection, &plain, &mut |_| true).unwrap_err();
    assert!(matches!(refused, FusionError::Coupling(_)), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// On the examples that it was fitted to, a refitted output layer is never worse than the members' own columns.
    #[test]
    fn a_refitted_output_layer_is_never_worse(
        seed in any::<u64>(), width in 2_usize..8, members in 2_usize..4, bias in any::<bool>(), factor in 0.2_f64..0.9,
    ) {
        let graph = chain(vec![Op::Input { shape: vec![4] }, linear(4, width, bias), Op::Relu, linear(width, 3, bias)]);
        let states: Vec<StateDict> = (0..members as u64).map(|i| weights(&graph, seed.wrapping_add(i))).collect();
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 80, seed);
        let target = (((width * members) as f64) * factor).ceil() as usize;
        for importance in [Importance::Magnitude, Importance::L1, Importance::Random, Importance::Activation, Importance::Css] {
            let (plain, compensated) = fuse(&ensemble, &[target], importance, &inputs, &EXACT);
            let expected = verify::mean_of_members(&ensemble, &inputs.values, 80).unwrap();
            let before = error(&expected, &logits(&plain.graph, &plain.weights, &inputs));
            let after = error(&expected, &logits(&plain.graph, &compensated.weights, &inputs));
            prop_assert!(after <= before + 1e-6, "{importance:?}: {after} after, {before} before");
        }
    }
}
