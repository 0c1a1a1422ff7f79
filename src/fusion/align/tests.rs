//! Members whose units are shuffled copies of each other's come together again.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::fusion::{Member, average};
use crate::model::graph::{Graph, Node, NodeId, Op, Window};
use crate::settings::OutputAlignment;
use crate::tensors::StateDict;

fn weights(graph: &Graph, seed: u64) -> StateDict {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut state = StateDict::default();
    for tensor in parameters::of_graph(graph) {
        let low = if tensor.role == parameters::Role::RunningVar { 0.2 } else { -1.0 };
        let values = (0..tensor.shape.iter().product()).map(|_| rng.random_range(low..1.0_f32)).collect();
        state.insert_f32(&tensor.name, &tensor.shape, values).unwrap();
    }
    state
}

/// A convolution, a residual block with BatchNorm, and a matrix behind the flatten.
fn residual() -> Graph {
    let conv = |from, to| Op::conv2d(from, to, Window::square(3, 1, 1), false);
    let norm = |features| Op::BatchNorm { affine: true, features, eps: 1e-5 };
    let ops = [
        ("input", Op::Input { shape: vec![3, 4, 4] }, vec![]),
        ("stem", conv(3, 8), vec![0]),
        ("norm", norm(8), vec![1]),
        ("relu", Op::Relu, vec![2]),
        ("inner", conv(8, 6), vec![3]),
        ("inner_norm", norm(6), vec![4]),
        ("inner_relu", Op::Relu, vec![5]),
        ("outer", conv(6, 8), vec![6]),
        ("sum", Op::Add, vec![7, 3]),
        ("flatten", Op::Flatten, vec![8]),
        ("hidden", Op::Linear { in_features: 128, out_features: 10, bias: true }, vec![9]),
        ("last_relu", Op::Relu, vec![10]),
        ("head", Op::Linear { in_features: 10, out_features: 4, bias: true }, vec![11]),
    ];
    let node = |(name, op, inputs): (&str, Op, Vec<usize>)| Node {
        name: name.to_owned(),
        op,
        inputs: inputs.into_iter().map(NodeId).collect(),
    };
    Graph::new(ops.into_iter().map(node).collect()).unwrap()
}

/// Copies of one member, each but the first with its units shuffled.
fn shuffled(graph: &Graph, original: &StateDict, copies: usize) -> Vec<StateDict> {
    let ensemble = Ensemble::new(vec![Member { graph, weights: original }; copies]).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut order = |width: usize| {
        let mut order: Vec<usize> = (0..width).collect();
        order.shuffle(&mut rng);
        order
    };
    let mut alignments = vec![Alignment::identity(&ensemble); copies];
    for alignment in &mut alignments[1..] {
        alignment.groups = (0..ensemble.groups()).map(|group| order(ensemble.widths(GroupId(group))[0])).collect();
    }
    let members = permuted(&ensemble, alignments);
    let copy = |member: &Permuted<'_>| {
        let mut state = StateDict::default();
        for tensor in parameters::of_graph(graph) {
            state.insert_f32(&tensor.name, &tensor.shape, member.f32(&tensor.name).unwrap().into_owned()).unwrap();
        }
        state
    };
    members.iter().map(copy).collect()
}

/// The mean of the aligned copies must be one of them, but for rounding and the order of its units.
fn expect_recovered(graph: &Graph, copies: &[StateDict], align: impl Fn(&Ensemble<'_>) -> Vec<Alignment>) {
    let members: Vec<Member<'_>> = copies.iter().map(|weights| Member { graph, weights }).collect();
    let ensemble = Ensemble::new(members).unwrap();
    let alignments = align(&ensemble);
    let aligned = permuted(&ensemble, alignments);
    let members = Ensemble::new(aligned.iter().map(|weights| Member { graph, weights }).collect()).unwrap();
    let mean = average(&members).unwrap().build().unwrap();
    for tensor in parameters::of_graph(graph) {
        let (mean, first) = (mean.weights.f32(&tensor.name).unwrap(), aligned[0].f32(&tensor.name).unwrap());
        assert!(mean.iter().zip(&*first).all(|(a, b)| (a - b).abs() < 1e-5), "{}", tensor.name);
    }
}

#[test]
fn shuffled_copies_are_carried_back() {
    let graph = residual();
    let copies = shuffled(&graph, &weights(&graph, 1), 3);
    expect_recovered(&graph, &copies, |ensemble| transport(ensemble, OutputAlignment::Fixed).unwrap());
    expect_recovered(&graph, &copies, |ensemble| transport(ensemble, OutputAlignment::Transported).unwrap());
}

#[test]
fn shuffled_copies_are_matched() {
    let graph = residual();
    for count in [2, 3] {
        let copies = shuffled(&graph, &weights(&graph, 2), count);
        expect_recovered(&graph, &copies, |ensemble| match_weights(ensemble, 0, &mut || true).unwrap());
    }
}

#[test]
fn matching_stops_when_asked_to() {
    let graph = residual();
    let copies = shuffled(&graph, &weights(&graph, 3), 2);
    let members = copies.iter().map(|weights| Member { graph: &graph, weights }).collect();
    let stopped = match_weights(&Ensemble::new(members).unwrap(), 0, &mut || false);
    assert!(matches!(stopped, Err(FusionError::Stopped)));
}

#[test]
fn a_single_member_stays_as_it_is() {
    let graph = residual();
    let copies = shuffled(&graph, &weights(&graph, 4), 1);
    expect_recovered(&graph, &copies, |ensemble| match_weights(ensemble, 0, &mut || true).unwrap());
    expect_recovered(&graph, &copies, |ensemble| transport(ensemble, OutputAlignment::Fixed).unwrap());
}
