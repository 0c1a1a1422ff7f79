//! Groups of chains, residual networks and flattened images.

use super::*;
use crate::model::graph::Window;

fn node(name: &str, op: Op, inputs: &[usize]) -> Node {
    Node { name: name.to_owned(), op, inputs: inputs.iter().map(|&index| NodeId(index)).collect() }
}

fn linear(name: &str, input: usize, output: usize, operand: usize) -> Node {
    node(name, Op::Linear { in_features: input, out_features: output, bias: false }, &[operand])
}

fn conv(name: &str, input: usize, output: usize, operand: usize) -> Node {
    let window = Window::square(3, 1, 1);
    node(name, Op::conv2d(input, output, window, false), &[operand])
}

fn names(graph: &Graph, ids: &[NodeId]) -> Vec<String> {
    ids.iter().map(|id| graph.node(*id).name.clone()).collect()
}

fn whole(group: usize, units: usize, repeat: usize) -> Axis {
    vec![Segment { owner: Owner::Group(GroupId(group)), first: 0, units, repeat }]
}

#[test]
fn a_chain_is_pruned_from_the_output_towards_the_input() {
    let graph = Graph::new(vec![
        node("input", Op::Input { shape: vec![2, 4, 4] }, &[]),
        conv("conv", 2, 3, 0),
        node("bn", Op::BatchNorm { features: 3, eps: 1e-5 }, &[1]),
        node("relu", Op::Relu, &[2]),
        node("pool", Op::max_pool2d(Window::square(2, 2, 0)), &[3]),
        node("flatten", Op::Flatten, &[4]),
        linear("fc1", 12, 5, 5),
        linear("fc2", 5, 10, 6),
    ])
    .unwrap();
    let couplings = Couplings::of(&graph).unwrap();
    let producers: Vec<_> = couplings.groups.iter().map(|group| names(&graph, &group.producers)).collect();
    assert_eq!(producers, [["fc1"], ["conv"]]);
    assert_eq!(names(&graph, &couplings.groups[1].consumers), ["fc1"]);
    assert_eq!(names(&graph, &couplings.groups[1].norms), ["bn"]);
    assert_eq!(names(&graph, &couplings.heads), ["fc2"]);
    assert_eq!(couplings.columns[&NodeId(6)], whole(1, 3, 4));
    assert_eq!(couplings.rows[&NodeId(6)], whole(0, 5, 1));
    assert_eq!(couplings.columns[&NodeId(1)][0].owner, Owner::Input);
    assert_eq!(couplings.rows[&NodeId(7)][0].owner, Owner::Output);
    assert_eq!(couplings.groups.iter().map(|group| group.width).collect::<Vec<_>>(), [5, 3]);
}

/// Two residual blocks; the second has a projection.
fn residual() -> Graph {
    Graph::new(vec![
        node("input", Op::Input { shape: vec![2, 4, 4] }, &[]),
        conv("stem", 2, 3, 0),
        conv("a1", 3, 4, 1),
        conv("a2", 4, 3, 2),
        node("sum_a", Op::Add, &[3, 1]),
        conv("b1", 3, 6, 4),
        conv("b2", 6, 5, 5),
        conv("short", 3, 5, 4),
        node("sum_b", Op::Add, &[6, 7]),
        node("mean", Op::GlobalAvgPool2d, &[8]),
        node("flatten", Op::Flatten, &[9]),
        linear("fc", 5, 10, 10),
    ])
    .unwrap()
}

#[test]
fn a_residual_sum_ties_its_operands_and_its_shortcut_side_comes_first() {
    let graph = residual();
    let couplings = Couplings::of(&graph).unwrap();
    let producers: Vec<_> = couplings.groups.iter().map(|group| names(&graph, &group.producers).join(" ")).collect();
    assert_eq!(producers, ["b2 short", "a2 stem", "a1", "b1"]);
    assert_eq!(names(&graph, &couplings.groups[1].consumers), ["a1", "b1", "short"]);
}

#[test]
fn networks_without_a_concatenation_are_refused_by_name() {
    let refused = |nodes: Vec<Node>| Couplings::of(&Graph::new(nodes).unwrap()).unwrap_err().node;
    let input = || node("input", Op::Input { shape: vec![4] }, &[]);
    assert_eq!(
        refused(vec![input(), linear("fc", 4, 4, 0), node("sum", Op::Add, &[1, 0]), linear("out", 4, 2, 2)]),
        "fc"
    );
    assert_eq!(refused(vec![input(), linear("fc", 4, 2, 0), node("relu", Op::Relu, &[1])]), "relu");
    assert_eq!(refused(vec![input(), linear("a", 4, 2, 0), linear("b", 2, 2, 1), node("sum", Op::Add, &[2, 1])]), "b");
    let norm = node("bn", Op::BatchNorm { features: 4, eps: 1e-5 }, &[0]);
    assert_eq!(refused(vec![input(), norm, linear("fc", 4, 2, 1)]), "bn");
    assert_eq!(refused(vec![input(), node("relu", Op::Relu, &[0])]), "relu");
}
