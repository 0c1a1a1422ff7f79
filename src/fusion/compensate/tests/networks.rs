//! Small networks of the families, with everything that compensation must handle.

use super::*;
use crate::model::graph::Approximate;

/// A graph under construction: nodes with their operands.
pub(super) struct Sketch(Vec<Node>);

impl Sketch {
    pub(super) fn new(shape: &[usize]) -> Self {
        let node = Node { name: "input".to_owned(), op: Op::Input { shape: shape.to_vec() }, inputs: Vec::new() };
        Self(vec![node])
    }

    pub(super) fn last(&self) -> usize {
        self.0.len() - 1
    }

    /// A node that reads the nodes `inputs`; its position.
    pub(super) fn on(&mut self, op: Op, inputs: &[usize]) -> usize {
        let inputs = inputs.iter().map(|input| NodeId(*input)).collect();
        self.0.push(Node { name: format!("n{}", self.0.len()), op, inputs });
        self.last()
    }

    /// Nodes that read the node before each.
    pub(super) fn then(&mut self, ops: Vec<Op>) -> usize {
        for op in ops {
            self.on(op, &[self.last()]);
        }
        self.last()
    }

    pub(super) fn graph(self) -> Graph {
        Graph::new(self.0).unwrap()
    }

    /// The mean over all positions, and a matrix.
    fn classify(mut self, channels: usize) -> Graph {
        self.then(vec![Op::GlobalAvgPool2d, Op::Flatten, linear(channels, 3, true)]);
        self.graph()
    }
}

fn norm(features: usize) -> Op {
    Op::BatchNorm { affine: true, features, eps: 1e-5 }
}

fn layer_norm(features: usize) -> Op {
    Op::LayerNorm { features, eps: 1e-5 }
}

pub(super) fn grouped(channels: usize, width: usize, window: Window, bias: bool) -> Op {
    Op::Conv2d { in_channels: channels, out_channels: channels, group_width: Some(width), window, bias }
}

/// An inverted residual block (MobileNetV2), with a gate where `gate` says how wide it is inside (MobileNetV3, EfficientNet).
fn inverted(net: &mut Sketch, channels: usize, wide: usize, act: &Op, gate: Option<usize>) {
    let from = net.last();
    let point = Window::square(1, 1, 0);
    let expand = vec![conv(channels, wide, point, false), norm(wide), act.clone()];
    net.then(expand);
    let mut last = net.then(vec![grouped(wide, 1, Window::square(3, 1, 1), false), norm(wide), act.clone()]);
    if let Some(inner) = gate {
        let squeeze = vec![Op::GlobalAvgPool2d, conv(wide, inner, point, true), Op::Relu];
        net.then(squeeze);
        let factors = net.then(vec![conv(inner, wide, point, true), Op::Hardsigmoid]);
        last = net.on(Op::Multiply, &[last, factors]);
    }
    net.on(conv(wide, channels, point, false), &[last]);
    let projected = net.then(vec![norm(channels)]);
    net.on(Op::Add, &[projected, from]);
}

pub(super) fn mobilenet_v2() -> Graph {
    let mut net = Sketch::new(&[2, 6, 6]);
    net.then(vec![conv(2, 4, Window::square(3, 1, 1), false), norm(4), Op::Relu6]);
    inverted(&mut net, 4, 8, &Op::Relu6, None);
    inverted(&mut net, 4, 8, &Op::Relu6, None);
    net.classify(4)
}

pub(super) fn mobilenet_v3() -> Graph {
    let mut net = Sketch::new(&[2, 6, 6]);
    net.then(vec![conv(2, 4, Window::square(3, 1, 1), false), norm(4), Op::Hardswish]);
    inverted(&mut net, 4, 8, &Op::Hardswish, Some(3));
    net.classify(4)
}

pub(super) fn efficientnet() -> Graph {
    let mut net = Sketch::new(&[2, 6, 6]);
    net.then(vec![conv(2, 4, Window::square(3, 1, 1), false), norm(4), Op::Silu]);
    inverted(&mut net, 4, 8, &Op::Silu, Some(2));
    inverted(&mut net, 4, 8, &Op::Silu, Some(2));
    net.classify(4)
}

pub(super) fn convnext() -> Graph {
    let mut net = Sketch::new(&[2, 6, 6]);
    net.then(vec![conv(2, 6, Window::square(2, 2, 0), true), layer_norm(6)]);
    for _ in 0..2 {
        let from = net.last();
        let gelu = Op::Gelu { approximate: Approximate::None };
        net.then(vec![grouped(6, 1, Window::square(3, 1, 1), true), layer_norm(6), linear(6, 12, true), gelu]);
        let branch = net.then(vec![linear(12, 6, true), Op::LayerScale { features: 6, unit_axes: 2 }]);
        net.on(Op::Add, &[branch, from]);
    }
    net.then(vec![Op::GlobalAvgPool2d, layer_norm(6), Op::Flatten, linear(6, 3, true)]);
    net.graph()
}

pub(super) fn densenet() -> Graph {
    let mut net = Sketch::new(&[2, 6, 6]);
    let mut features = net.then(vec![conv(2, 4, Window::square(3, 1, 1), false)]);
    let mut width = 4;
    for _ in 0..2 {
        net.on(norm(width), &[features]);
        let bottleneck = vec![Op::Relu, conv(width, 6, Window::square(1, 1, 0), false), norm(6), Op::Relu];
        net.then(bottleneck);
        let new = net.then(vec![conv(6, 3, Window::square(3, 1, 1), false)]);
        features = net.on(Op::Concat, &[features, new]);
        width += 3;
    }
    net.then(vec![norm(width), Op::Relu]);
    net.classify(width)
}

/// Blocks of BatchNorm, ReLU and convolution, in that order, beside what comes in.
pub(super) fn wide_resnet() -> Graph {
    let mut net = Sketch::new(&[2, 6, 6]);
    let mut from = net.then(vec![conv(2, 5, Window::square(3, 1, 1), false)]);
    for _ in 0..2 {
        net.on(norm(5), &[from]);
        net.then(vec![Op::Relu, conv(5, 5, Window::square(3, 1, 1), false), norm(5), Op::Relu]);
        let branch = net.then(vec![conv(5, 5, Window::square(3, 1, 1), false)]);
        from = net.on(Op::Add, &[branch, from]);
    }
    net.then(vec![norm(5), Op::Relu]);
    net.classify(5)
}

/// Dilated and grouped kernels (`ResNeXt`), on images.
pub(super) fn resnext() -> Graph {
    let mut net = Sketch::new(&[2, 7, 7]);
    net.then(vec![conv(2, 6, Window::square(3, 1, 1), true), Op::LeakyRelu { negative_slope: 0.1 }]);
    let from = net.last();
    let dilated = Window { dilation: [2, 2], ..Window::square(3, 1, 2) };
    net.then(vec![grouped(6, 2, dilated, false), norm(6), Op::Tanh]);
    let branch = net.then(vec![conv(6, 6, dilated, true)]);
    net.on(Op::Add, &[branch, from]);
    net.classify(6)
}

/// Sequences.
pub(super) fn sequence() -> Graph {
    use crate::model::graph::Window1d;
    let window = Window1d { kernel: 3, stride: 1, padding: 1, dilation: 1 };
    let conv =
        |from, to, group_width| Op::Conv1d { in_channels: from, out_channels: to, group_width, window, bias: true };
    let pool = Op::AvgPool1d {
        window: Window1d { stride: 2, padding: 0, ..window },
        ceil_mode: true,
        count_include_pad: false,
    };
    let mut net = Sketch::new(&[2, 9]);
    net.then(vec![conv(2, 5, None), Op::Relu, conv(5, 5, Some(1)), Op::Sigmoid, pool, conv(5, 4, None), Op::Relu]);
    net.then(vec![Op::TokenMean, linear(4, 3, true)]);
    net.graph()
}

/// A vision transformer: one attention in the naming of `PyTorch`, one with its projections apart and without biases.
pub(super) fn vit() -> Graph {
    use crate::model::graph::Projections;
    let mut net = Sketch::new(&[2, 6, 6]);
    net.then(vec![conv(2, 6, Window::square(2, 2, 0), true), Op::Reshape { positions: vec![9] }]);
    net.then(vec![Op::ClassToken { features: 6 }, Op::PositionalEmbedding { tokens: 10, features: 6 }]);
    for (projections, bias) in [(Projections::torch(), true), (Projections::hugging_face(), false)] {
        let from = net.last();
        let attention = Op::Attention { features: 6, heads: 2, projections, bias, output_bias: bias };
        let mixed = net.then(vec![layer_norm(6), attention]);
        let from = net.on(Op::Add, &[mixed, from]);
        let gelu = Op::Gelu { approximate: Approximate::None };
        let branch = net.then(vec![layer_norm(6), linear(6, 9, true), gelu, linear(9, 6, true)]);
        net.on(Op::Add, &[branch, from]);
    }
    net.then(vec![layer_norm(6), Op::TokenSelect { index: 0 }, linear(6, 3, true)]);
    net.graph()
}

/// One network of each family, with its name.
pub(super) fn families() -> Vec<(&'static str, Graph)> {
    vec![
        ("mobilenet v2", mobilenet_v2()),
        ("mobilenet v3", mobilenet_v3()),
        ("efficientnet", efficientnet()),
        ("convnext", convnext()),
        ("densenet", densenet()),
        ("wide resnet", wide_resnet()),
        ("resnext, dilated", resnext()),
        ("sequence", sequence()),
        ("vit", vit()),
    ]
}
