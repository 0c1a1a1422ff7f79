//! The networks whose speed is measured; benches/training.py and benches/gpu/networks.py have the same ones.

use engraft::model::graph::{Approximate, Graph, Node, NodeId, Op, Projections, Window};

/// The network called `name`, if there is one.
pub(crate) fn by_name(name: &str) -> Option<Graph> {
    match name {
        "mlp" => Some(mlp()),
        "lenet" => Some(lenet()),
        "vgg11" => Some(vgg11()),
        "resnet18" => Some(resnet18()),
        "mobilenet_v2" => Some(mobilenet_v2()),
        "vit_tiny" => Some(vit_tiny()),
        _ => None,
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
