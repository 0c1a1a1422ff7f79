use super::*;
use crate::model::graph::Window;

/// Nodes one after another; parameters are called `l0`, `l1`, ….
fn chain(shape: &[usize], ops: &[Op]) -> Graph {
    let mut nodes =
        vec![Node { name: "input".to_owned(), op: Op::Input { shape: shape.to_vec() }, inputs: Vec::new() }];
    let mut layers = 0;
    for op in ops {
        let name = if op.has_parameters() { format!("l{layers}") } else { format!("n{}", nodes.len()) };
        layers += usize::from(op.has_parameters());
        nodes.push(Node { name, op: op.clone(), inputs: vec![NodeId(nodes.len() - 1)] });
    }
    Graph::new(nodes).expect("a network")
}

fn linear(in_features: usize, out_features: usize) -> Op {
    Op::Linear { in_features, out_features, bias: true }
}

fn mlp(widths: &[usize]) -> Graph {
    let layers = widths.windows(2).map(|pair| linear(pair[0], pair[1]));
    let ops: Vec<Op> = layers.flat_map(|layer| [layer, Op::Relu]).collect();
    chain(&widths[..1], &ops[..ops.len() - 1])
}

fn own(name: &str) -> NodeSource {
    NodeSource::Own(name.to_owned())
}

fn sources(padding: &DepthPadding) -> Vec<(&str, NodeSource)> {
    padding.sources.iter().map(|(name, source)| (name.as_str(), source.clone())).collect()
}

#[test]
fn a_shorter_chain_gets_identities_behind_its_last_relu() {
    let padding = pad(&mlp(&[6, 5, 5, 4, 3]), &mlp(&[6, 7, 8, 3])).expect("aligned").expect("padded");
    assert_eq!(
        sources(&padding),
        [("l0", own("l0")), ("l1", own("l1")), ("l2", NodeSource::Identity), ("l3", own("l2"))]
    );
    assert_eq!(padding.graph, mlp(&[6, 7, 8, 8, 3]));
    assert_eq!(padding.added(), ["l2"]);
    assert_eq!(pad(&mlp(&[6, 5, 3]), &mlp(&[6, 9, 3])), Ok(None));
}

#[test]
fn a_convolution_is_padded_where_it_keeps_the_size() {
    let conv = |from, to, padding| Op::conv2d(from, to, Window::square(3, 1, padding), false);
    let network = |ops: Vec<Op>, features| chain(&[2, 6, 6], &[ops, vec![Op::Flatten, linear(features, 3)]].concat());
    let long = network(vec![conv(2, 4, 1), Op::Relu, conv(4, 4, 1), Op::Relu, conv(4, 5, 0), Op::Relu], 80);
    let short = network(vec![conv(2, 3, 1), Op::Relu, conv(3, 3, 0), Op::Relu], 48);
    let padding = pad(&long, &short).expect("aligned").expect("padded");
    assert_eq!(padding.added(), ["l1"]);
    let strict = network(vec![conv(2, 4, 1), Op::Relu, conv(4, 4, 0), Op::Relu, conv(4, 5, 0), Op::Relu], 20);
    let detail = pad(&strict, &short).expect_err("no identity of that size");
    assert!(detail.contains("expected l2") && detail.contains("got nothing with weights"), "{detail}");
    let bent = network(vec![conv(2, 4, 1), conv(4, 4, 1), Op::Relu, conv(4, 5, 0), Op::Relu], 80);
    let straight = network(vec![conv(2, 3, 1), conv(3, 3, 0), Op::Relu], 48);
    assert!(pad(&bent, &straight).is_err(), "a ReLU behind values of any sign");
}

/// conv, ReLU, `blocks` residual blocks, mean, matrix.
fn residual(width: usize, inner: usize, blocks: usize) -> Graph {
    let mut nodes = Vec::new();
    let mut push = |name: String, op: Op, inputs: &[usize]| {
        nodes.push(Node { name, op, inputs: inputs.iter().map(|&input| NodeId(input)).collect() });
        nodes.len() - 1
    };
    let conv = |from, to| Op::conv2d(from, to, Window::square(3, 1, 1), false);
    let norm = |features| Op::BatchNorm { affine: true, features, eps: 1e-5 };
    push("input".into(), Op::Input { shape: vec![2, 4, 4] }, &[]);
    push("stem".into(), conv(2, width), &[0]);
    let mut at = push("relu".into(), Op::Relu, &[1]);
    for block in 0..blocks {
        let a = push(format!("{block}.conv1"), conv(width, inner), &[at]);
        let b = push(format!("{block}.bn1"), norm(inner), &[a]);
        let c = push(format!("{block}.relu1"), Op::Relu, &[b]);
        let d = push(format!("{block}.conv2"), conv(inner, width), &[c]);
        let e = push(format!("{block}.bn2"), norm(width), &[d]);
        let sum = push(format!("{block}.add"), Op::Add, &[e, at]);
        at = push(format!("{block}.relu"), Op::Relu, &[sum]);
    }
    let mean = push("mean".into(), Op::GlobalAvgPool2d, &[at]);
    let flat = push("flatten".into(), Op::Flatten, &[mean]);
    push("fc".into(), linear(width, 3), &[flat]);
    Graph::new(nodes).expect("a network")
}

#[test]
fn a_missing_residual_block_adds_zeros() {
    let padding = pad(&residual(4, 6, 3), &residual(5, 2, 2)).expect("aligned").expect("padded");
    assert_eq!(padding.added(), ["2.conv1", "2.conv2"]);
    assert!(["2.conv1", "2.bn1", "2.conv2", "2.bn2"].iter().all(|name| padding.sources[*name] == NodeSource::Zero));
    let inner = |name: &str| padding.graph.nodes().iter().find(|node| node.name == name).map(|node| node.op.clone());
    assert_eq!(inner("2.conv1"), Some(Op::conv2d(5, 6, Window::square(3, 1, 1), false)));
    assert_eq!(inner("2.conv2"), Some(Op::conv2d(6, 5, Window::square(3, 1, 1), false)));
    assert_eq!(inner("1.conv1"), Some(Op::conv2d(5, 2, Window::square(3, 1, 1), false)));
}
