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
    Axis::from_iter([AxisSegment { owner: Owner::Group(GroupId(group)), first: 0, units, repeat }])
}

/// Axes one after another.
fn joined(axes: &[Axis]) -> Axis {
    axes.iter().flat_map(Axis::segments).copied().collect()
}

#[test]
fn a_chain_is_pruned_from_the_output_towards_the_input() {
    let graph = Graph::new(vec![
        node("input", Op::Input { shape: vec![2, 4, 4] }, &[]),
        conv("conv", 2, 3, 0),
        node("bn", Op::BatchNorm { affine: true, features: 3, eps: 1e-5 }, &[1]),
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
    assert_eq!(names(&graph, &couplings.groups[1].channelwise), ["bn"]);
    assert_eq!(names(&graph, &couplings.output_layers), ["fc2"]);
    assert_eq!(couplings.columns[&NodeId(6)], whole(1, 3, 4));
    assert_eq!(couplings.rows[&NodeId(6)], whole(0, 5, 1));
    assert_eq!(couplings.columns[&NodeId(1)].segments()[0].owner, Owner::Input);
    assert_eq!(couplings.rows[&NodeId(7)].segments()[0].owner, Owner::Output);
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
    assert_eq!(refused(vec![input(), linear("fc", 4, 2, 0), node("softmax", Op::Softmax, &[1])]), "softmax");
    let (a, b) = (linear("a", 4, 2, 0), linear("b", 4, 2, 0));
    assert_eq!(refused(vec![input(), a, node("relu", Op::Relu, &[1]), b, node("sum", Op::Add, &[2, 3])]), "relu");
    assert_eq!(refused(vec![input(), linear("a", 4, 2, 0), linear("b", 2, 2, 1), node("sum", Op::Add, &[2, 1])]), "b");
    let norm = node("norm", Op::LayerNorm { features: 4, eps: 1e-5 }, &[0]);
    assert_eq!(refused(vec![input(), norm, linear("fc", 4, 2, 1)]), "norm");
    let norm = || node("bn", Op::BatchNorm { affine: true, features: 4, eps: 1e-5 }, &[0]);
    let beside =
        vec![input(), norm(), linear("fc", 4, 3, 0), node("both", Op::Concat, &[1, 2]), linear("out", 7, 2, 3)];
    assert_eq!(refused(beside), "both");
    let zeros = node("zeros", Op::Zeros { features: 2 }, &[1]);
    let bare = vec![input(), linear("fc", 4, 3, 0), zeros, node("wide", Op::Concat, &[1, 2]), linear("out", 5, 2, 3)];
    assert_eq!(refused(bare), "zeros");
    assert_eq!(refused(vec![input(), node("relu", Op::Relu, &[0])]), "relu");
}

#[test]
fn functions_behind_the_outputs_end_what_is_linear() {
    let graph = |tail: &[Op]| {
        let mut nodes = vec![node("input", Op::Input { shape: vec![2, 4, 4] }, &[]), conv("conv", 2, 3, 0)];
        for (index, op) in tail.iter().enumerate() {
            nodes.push(node(&format!("tail{index}"), op.clone(), &[index + 1]));
        }
        Graph::new(nodes).unwrap()
    };
    let end = |tail: &[Op]| Couplings::of(&graph(tail)).unwrap().linear_end;
    assert_eq!(end(&[Op::GlobalAvgPool2d, Op::Flatten]), NodeId(3));
    assert_eq!(end(&[Op::Relu, Op::GlobalAvgPool2d, Op::Flatten]), NodeId(1));
    assert_eq!(end(&[Op::GlobalAvgPool2d, Op::Tanh, Op::Flatten, Op::Relu]), NodeId(2));
}

#[test]
fn operations_on_the_input_are_in_no_group() {
    let graph = Graph::new(vec![
        node("input", Op::Input { shape: vec![2, 4, 4] }, &[]),
        node("bn", Op::BatchNorm { affine: true, features: 2, eps: 1e-5 }, &[0]),
        node("relu", Op::Relu, &[1]),
        conv("conv", 2, 3, 2),
        node("flatten", Op::Flatten, &[3]),
        linear("fc", 48, 5, 4),
    ])
    .unwrap();
    let couplings = Couplings::of(&graph).unwrap();
    assert!(couplings.is_on_input(NodeId(1)) && !couplings.is_on_input(NodeId(3)));
    let widths: Vec<usize> = couplings.groups.iter().map(|group| group.width).collect();
    assert_eq!(widths, [3]);
}

/// Two stages of a residual network whose shortcut has no weights: every other position, among channels of zeros.
#[test]
fn channels_beside_zeros_are_groups_of_their_own() {
    let graph = Graph::new(vec![
        node("input", Op::Input { shape: vec![3, 4, 4] }, &[]),
        conv("stem", 3, 4, 0),
        conv("block", 4, 8, 1),
        node("before", Op::Zeros { features: 2 }, &[1]),
        node("behind", Op::Zeros { features: 2 }, &[1]),
        node("shortcut", Op::Concat, &[3, 1, 4]),
        node("sum", Op::Add, &[2, 5]),
        node("pool", Op::GlobalAvgPool2d, &[6]),
        node("flatten", Op::Flatten, &[7]),
        linear("fc", 8, 5, 8),
    ])
    .unwrap();
    let couplings = Couplings::of(&graph).unwrap();
    let mut groups: Vec<_> =
        couplings.groups.iter().map(|group| (names(&graph, &group.producers).join(" "), group.width)).collect();
    groups.sort();
    let expected = [("block", 2), ("block", 2), ("block stem", 4)].map(|(names, width)| (names.to_owned(), width));
    assert_eq!(groups, expected);
    assert_eq!(couplings.rows[&NodeId(2)].segments().len(), 3);
    let narrow = |id| couplings.rows[&id].len_with(|GroupId(group)| couplings.groups[group].width / 2);
    assert_eq!([NodeId(1), NodeId(2), NodeId(3)].map(narrow), [2, 4, 1]);
}

fn op(name: &str, json: serde_json::Value, inputs: &[usize]) -> Node {
    node(name, serde_json::from_value(json).unwrap(), inputs)
}

/// A MobileNet-like block: expand, depthwise, squeeze-excite, project, sum; then the output layer.
#[test]
fn a_gate_and_a_depthwise_convolution_live_with_what_they_act_on() {
    let point =
        |name, input, output, operand| node(name, Op::conv2d(input, output, Window::square(1, 1, 0), true), &[operand]);
    let depthwise = Op::Conv2d {
        in_channels: 6,
        out_channels: 6,
        group_width: Some(1),
        window: Window::square(3, 1, 1),
        bias: false,
    };
    let graph = Graph::new(vec![
        node("input", Op::Input { shape: vec![2, 4, 4] }, &[]),
        conv("stem", 2, 3, 0),
        point("expand", 3, 6, 1),
        node("depthwise", depthwise, &[2]),
        node("mean", Op::GlobalAvgPool2d, &[3]),
        point("squeeze", 6, 2, 4),
        node("silu", Op::Silu, &[5]),
        point("excite", 2, 6, 6),
        node("gate", Op::Sigmoid, &[7]),
        node("gated", Op::Multiply, &[8, 3]),
        point("project", 6, 3, 9),
        node("sum", Op::Add, &[10, 1]),
        node("pool", Op::GlobalAvgPool2d, &[11]),
        node("flatten", Op::Flatten, &[12]),
        linear("fc", 3, 10, 13),
    ])
    .unwrap();
    let couplings = Couplings::of(&graph).unwrap();
    let producers: Vec<_> = couplings.groups.iter().map(|group| names(&graph, &group.producers).join(" ")).collect();
    assert_eq!(producers, ["project stem", "expand excite", "squeeze"]);
    assert_eq!(names(&graph, &couplings.groups[1].channelwise), ["depthwise"]);
    assert_eq!(names(&graph, &couplings.groups[1].consumers), ["squeeze", "project"]);
    assert_eq!(couplings.columns[&NodeId(3)], whole(1, 6, 1));
}

#[test]
fn a_concatenation_puts_groups_one_after_another() {
    let graph = Graph::new(vec![
        node("input", Op::Input { shape: vec![2, 4, 4] }, &[]),
        conv("a", 2, 3, 0),
        conv("b", 3, 4, 1),
        node("ab", Op::Concat, &[1, 2]),
        node("bn", Op::BatchNorm { affine: true, features: 7, eps: 1e-5 }, &[3]),
        conv("c", 7, 2, 4),
        node("abc", Op::Concat, &[3, 5]),
        node("flatten", Op::Flatten, &[6]),
        linear("fc", 144, 10, 7),
    ])
    .unwrap();
    let couplings = Couplings::of(&graph).unwrap();
    let producers: Vec<_> = couplings.groups.iter().map(|group| names(&graph, &group.producers).join(" ")).collect();
    assert_eq!(producers, ["c", "a", "b"]);
    assert_eq!(couplings.columns[&NodeId(5)], joined(&[whole(1, 3, 1), whole(2, 4, 1)]));
    assert_eq!(couplings.columns[&NodeId(8)], joined(&[whole(1, 3, 16), whole(2, 4, 16), whole(0, 2, 16)]));
    assert_eq!(names(&graph, &couplings.groups[1].channelwise), ["bn"]);
}

#[test]
fn the_channels_of_one_convolution_group_are_one_unit() {
    let grouped = |groups: usize| {
        serde_json::json!({"op": "conv2d", "in_channels": 8, "out_channels": 16, "group_width": 8 / groups, "bias": false,
            "kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1]})
    };
    let graph = |groups: usize, middle: Vec<Node>| {
        let mut nodes = vec![node("input", Op::Input { shape: vec![2, 4, 4] }, &[]), conv("a", 2, 8, 0)];
        nodes.extend(middle);
        let last = nodes.len() - 1;
        nodes.push(op("grouped", grouped(groups), &[last]));
        nodes.push(conv("b", 16, 3, last + 1));
        Graph::new(nodes).unwrap()
    };
    let couplings = Couplings::of(&graph(4, vec![])).unwrap();
    assert_eq!(couplings.groups.iter().map(|group| group.width).collect::<Vec<_>>(), [4]);
    assert_eq!(couplings.rows[&NodeId(1)], whole(0, 4, 2));
    assert_eq!(couplings.columns[&NodeId(3)], whole(0, 4, 4));
    let normed = |groups: usize, of_norm: usize| {
        let norm = Op::GroupNorm { group_width: Some(8 / of_norm), features: 8, eps: 1e-5 };
        Couplings::of(&graph(groups, vec![node("norm", norm, &[1])])).unwrap().groups[0].width
    };
    assert_eq!([normed(4, 4), normed(4, 2), normed(2, 4), normed(8, 4)], [4, 2, 2, 4]);
}

/// Concatenations stack the members' units operand by operand, also in what meets them in a sum.
#[test]
fn what_concatenations_keep_apart_stays_apart() {
    let nodes = |between: Op| {
        vec![
            node("input", Op::Input { shape: vec![2, 4, 4] }, &[]),
            conv("a", 2, 2, 0),
            conv("b", 2, 2, 0),
            node("ab", Op::Concat, &[1, 2]),
            conv("c", 2, 4, 0),
            node("sum", Op::Add, &[4, 3]),
            node("between", between, &[5]),
            conv("d", 4, 3, 6),
        ]
    };
    let graph = Graph::new(nodes(Op::Relu)).unwrap();
    let couplings = Couplings::of(&graph).unwrap();
    let producers: Vec<_> = couplings.groups.iter().map(|group| names(&graph, &group.producers).join(" ")).collect();
    assert_eq!(producers, ["c a", "c b"]);
    assert_eq!([0, 1].map(|group| couplings.name(&graph, GroupId(group))), ["a", "b"]);
    assert_eq!(couplings.rows[&NodeId(4)], joined(&[whole(0, 2, 1), whole(1, 2, 1)]));
    assert_eq!(couplings.groups_of(NodeId(4)), [GroupId(0), GroupId(1)]);
    let norm = |group_width| Op::GroupNorm { group_width: Some(group_width), features: 4, eps: 1e-5 };
    assert!(Couplings::of(&Graph::new(nodes(norm(2))).unwrap()).is_ok());
    let mut cut = nodes(norm(3));
    for (index, width) in [(1, 4), (4, 6)] {
        cut[index].op = Op::conv2d(2, width, Window::square(3, 1, 1), false);
    }
    cut[6].op = Op::GroupNorm { group_width: Some(3), features: 6, eps: 1e-5 };
    cut[7].op = Op::conv2d(6, 3, Window::square(3, 1, 1), false);
    assert_eq!(Couplings::of(&Graph::new(cut).unwrap()).unwrap_err().node, "sum");
}

#[test]
fn attentions_are_told_apart() {
    let graph = Graph::new(vec![
        node("input", Op::Input { shape: vec![2, 4, 4] }, &[]),
        conv("patches", 2, 4, 0),
        node("tokens", Op::Reshape { positions: vec![16] }, &[1]),
        op("attention", serde_json::json!({"op": "attention", "features": 4, "heads": 2}), &[2]),
        node("sum", Op::Add, &[3, 2]),
        linear("hidden", 4, 7, 4),
        node("gelu", Op::Gelu { approximate: crate::model::graph::Approximate::None }, &[5]),
        linear("out", 7, 4, 6),
        node("mean", Op::TokenMean, &[7]),
        linear("head", 4, 10, 8),
    ])
    .unwrap();
    let couplings = Couplings::of(&graph).unwrap();
    let meets = |group| couplings.meets_attention(GroupId(group));
    assert_eq!([0, 1, 2, 3].map(meets), [false, false, true, true]);
    let heads = GroupId(3);
    assert_eq!((couplings.groups.len(), couplings.group(heads).width), (4, 2));
    assert_eq!((couplings.attention_of(heads), couplings.attention_of(GroupId(2))), (Some(NodeId(3)), None));
    assert_eq!(couplings.name(&graph, heads), "attention (heads)");
    assert_eq!(couplings.attentions[&NodeId(3)], whole(3, 2, 2));
}
