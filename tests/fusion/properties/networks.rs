//! Random small networks with random weights, and inputs for them.

use engraft::model::graph::{Graph, Node, NodeId, Op, Window};
use engraft::model::parameters::{self, Role};
use engraft::tensors::StateDict;
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// One step of a random network.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A convolution, or a matrix behind the flatten, to a new width.
    Dense { norm: bool, bias: bool },
    /// Two dense layers around which the input is added.
    Residual { norm: bool },
    /// As before, with a dense layer on the shortcut and a new width.
    Projection { norm: bool },
    /// Maximum or mean over windows (images only).
    Pool { mean: bool },
    /// A dense layer whose outputs are put behind its inputs.
    Extend { norm: bool },
    /// A convolution of each channel by itself (images only).
    Depthwise { twice: bool, norm: bool },
    /// A dense layer, then a convolution in groups of two channels (images only).
    Grouped { outputs: usize },
    /// Two pairs of dense layers, each pair's outputs put one after another; the layers' widths differ, and the pairs are
    /// added.
    Crossed,
    /// A gate per channel, computed from all of them.
    Excite,
    /// A factor per channel.
    Scale,
    /// More channels, and a shortcut that fills them with zeros.
    Widened,
    /// Zeros on two sides (images only), and a factor for all channels.
    Rimmed,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), any::<bool>()).prop_map(|(norm, bias)| Step::Dense { norm, bias }),
        1 => any::<bool>().prop_map(|norm| Step::Residual { norm }),
        1 => any::<bool>().prop_map(|norm| Step::Projection { norm }),
        1 => any::<bool>().prop_map(|mean| Step::Pool { mean }),
        2 => any::<bool>().prop_map(|norm| Step::Extend { norm }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(twice, norm)| Step::Depthwise { twice, norm }),
        1 => (1_usize..4).prop_map(|outputs| Step::Grouped { outputs }),
        1 => Just(Step::Crossed),
        1 => Just(Step::Excite),
        1 => Just(Step::Scale),
        1 => Just(Step::Widened),
        1 => Just(Step::Rimmed),
    ]
}

/// A random topology; its widths are drawn for each member.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    image: bool,
    steps: Vec<Step>,
    after_flatten: Vec<Step>,
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let steps = prop::collection::vec(step(), 0..5);
    (any::<bool>(), steps, prop::collection::vec(step(), 0..3)).prop_map(|(image, steps, after_flatten)| Plan {
        image,
        steps,
        after_flatten,
    })
}

/// Builds a plan's graph; `width` gives the width of the next free layer.
struct Builder<'a> {
    nodes: Vec<Node>,
    channels: usize,
    size: Option<usize>,
    /// Whether the network's input is among the channels: it has no units of its own.
    shared: bool,
    width: &'a mut dyn FnMut() -> usize,
}

impl Builder<'_> {
    fn push(&mut self, op: Op, inputs: &[usize]) -> usize {
        let name = format!("n{}", self.nodes.len());
        self.nodes.push(Node { name, op, inputs: inputs.iter().map(|&index| NodeId(index)).collect() });
        self.nodes.len() - 1
    }

    fn last(&self) -> usize {
        self.nodes.len() - 1
    }

    fn dense(&mut self, input: usize, from: usize, to: usize, bias: bool, norm: bool) -> usize {
        let op = match self.size {
            Some(_) => Op::conv2d(from, to, Window::square(3, 1, 1), bias),
            None => Op::Linear { in_features: from, out_features: to, bias },
        };
        let out = self.push(op, &[input]);
        if norm { self.push(Op::BatchNorm { affine: true, features: to, eps: 1e-5 }, &[out]) } else { out }
    }

    fn step(&mut self, step: Step) {
        let input = self.last();
        match step {
            // The network's input cannot be tied to the units of a layer.
            Step::Residual { norm } if self.shared => self.step(Step::Dense { norm, bias: true }),
            Step::Depthwise { .. } | Step::Excite | Step::Scale | Step::Widened if self.shared => {
                self.step(Step::Dense { norm: false, bias: true });
            }
            Step::Dense { norm, bias } => {
                let to = (self.width)();
                self.dense(input, self.channels, to, bias, norm);
                self.push(Op::Relu, &[self.last()]);
                (self.channels, self.shared) = (to, false);
            }
            Step::Residual { norm } => {
                let inner = (self.width)();
                self.block(input, inner, self.channels, norm, input);
            }
            Step::Projection { norm } => {
                let (inner, to) = ((self.width)(), (self.width)());
                let shortcut = self.dense(input, self.channels, to, false, norm);
                self.block(input, inner, to, norm, shortcut);
                (self.channels, self.shared) = (to, false);
            }
            Step::Pool { mean } => {
                if let Some(size) = self.size.filter(|size| *size >= 2) {
                    let window = Window::square(2, 2, 0);
                    let (op, size) = match mean {
                        // The same for members of other widths.
                        true if size.is_multiple_of(4) => (Op::BlurPool2d { kernel: 3, stride: 2 }, size.div_ceil(2)),
                        true => (Op::avg_pool2d(window), size / 2),
                        false => (Op::max_pool2d(window), size / 2),
                    };
                    self.push(op, &[input]);
                    self.size = Some(size);
                }
            }
            step => self.channels(step),
        }
    }

    /// The steps in which channels go their own ways.
    fn channels(&mut self, step: Step) {
        let input = self.last();
        match step {
            Step::Extend { norm } => {
                let growth = (self.width)();
                let new = self.dense(input, self.channels, growth, false, norm);
                self.push(Op::Concat, &[input, new]);
                self.channels += growth;
                self.push(if norm { Op::Mish } else { Op::Silu }, &[self.last()]);
            }
            Step::Depthwise { twice, norm } if self.size.is_some() => {
                let to = self.channels * if twice { 2 } else { 1 };
                self.grouped(input, 1, to, norm);
                let bent = if norm { Op::Elu { alpha: 0.5 } } else { Op::LeakyRelu { negative_slope: 0.1 } };
                self.push(bent, &[self.last()]);
            }
            Step::Grouped { outputs } if self.size.is_some() => {
                let width = (self.width)();
                let expanded = self.dense(input, self.channels, 2 * width, true, false);
                (self.channels, self.shared) = (2 * width, false);
                self.grouped(expanded, 2, outputs * width, true);
                self.push(Op::Relu, &[self.last()]);
            }
            Step::Crossed => {
                let [a, b, c] = std::array::from_fn(|_| (self.width)());
                let pair = |builder: &mut Self, widths: [usize; 2]| {
                    let parts = widths.map(|to| builder.dense(input, builder.channels, to, true, false));
                    builder.push(Op::Concat, &parts)
                };
                let sums = [pair(self, [a + b, c]), pair(self, [a, b + c])];
                self.push(Op::Add, &sums);
                self.push(Op::Relu, &[self.last()]);
                (self.channels, self.shared) = (a + b + c, false);
            }
            Step::Excite => {
                let inner = (self.width)();
                let mean = if self.size.is_some() { self.push(Op::GlobalAvgPool2d, &[input]) } else { input };
                let point = |input, output| match self.size {
                    Some(_) => Op::conv2d(input, output, Window::square(1, 1, 0), true),
                    None => Op::Linear { in_features: input, out_features: output, bias: true },
                };
                let (squeeze, excite) = (point(self.channels, inner), point(inner, self.channels));
                self.push(squeeze, &[mean]);
                self.push(Op::Relu, &[self.last()]);
                self.push(excite, &[self.last()]);
                self.push(Op::Sigmoid, &[self.last()]);
                self.push(Op::Multiply, &[self.last(), input]);
            }
            Step::Scale => {
                self.push(Op::LayerScale { features: self.channels, unit_axes: 2 }, &[input]);
            }
            Step::Widened => {
                let [before, behind] = [(self.width)(), (self.width)()];
                let to = before + self.channels + behind;
                let main = self.dense(input, self.channels, to, true, true);
                let zeros = [before, behind].map(|features| self.push(Op::Zeros { features }, &[input]));
                let shortcut = self.push(Op::Concat, &[zeros[0], input, zeros[1]]);
                self.push(Op::Add, &[main, shortcut]);
                self.push(Op::Relu, &[self.last()]);
                self.channels = to;
            }
            Step::Rimmed => {
                if let Some(size) = self.size {
                    self.push(Op::ZeroPad { begin: vec![1, 0], end: vec![0, 1] }, &[input]);
                    self.size = Some(size + 1);
                }
                self.push(Op::Scale { factor: -0.5 }, &[self.last()]);
            }
            _ => {}
        }
    }

    fn grouped(&mut self, input: usize, group_width: usize, to: usize, norm: bool) {
        let window = Window::square(3, 1, 1);
        let (in_channels, group_width) = (self.channels, Some(group_width));
        self.push(Op::Conv2d { in_channels, out_channels: to, group_width, window, bias: norm }, &[input]);
        self.channels = to;
        if norm {
            self.push(Op::BatchNorm { affine: true, features: to, eps: 1e-5 }, &[self.last()]);
        }
    }

    fn block(&mut self, input: usize, inner: usize, to: usize, norm: bool, shortcut: usize) {
        self.dense(input, self.channels, inner, true, norm);
        let relu = self.push(Op::Relu, &[self.last()]);
        let main = self.dense(relu, inner, to, true, norm);
        self.push(Op::Add, &[main, shortcut]);
        self.push(Op::Relu, &[self.last()]);
    }
}

fn graph(plan: &Plan, width: &mut dyn FnMut() -> usize) -> Graph {
    let size = plan.image.then_some(4);
    let shape = if plan.image { vec![2, 4, 4] } else { vec![6] };
    let channels = shape[0];
    let mut builder = Builder { nodes: Vec::new(), channels, size, shared: true, width };
    builder.push(Op::Input { shape }, &[]);
    plan.steps.iter().for_each(|step| builder.step(*step));
    if let Some(size) = builder.size.take() {
        builder.push(Op::Flatten, &[builder.last()]);
        builder.channels *= size * size;
    }
    plan.after_flatten.iter().for_each(|step| builder.step(*step));
    builder.dense(builder.last(), builder.channels, 3, true, false);
    Graph::new(builder.nodes).unwrap()
}

pub(crate) fn weights(graph: &Graph, rng: &mut ChaCha8Rng) -> StateDict {
    let mut weights = StateDict::default();
    for parameter in parameters::of_graph(graph) {
        let count = parameter.shape.iter().product();
        let low = if parameter.role == Role::RunningVar { 0.1 } else { -1.0 };
        let values = (0..count).map(|_| rng.random_range(low..1.0_f32)).collect();
        weights.insert_f32(&parameter.name, &parameter.shape, values).unwrap();
    }
    weights
}
/// The members of a random topology, each with widths of its own.
pub(crate) fn topology(plan: &Plan, members: usize, rng: &mut ChaCha8Rng) -> Vec<Graph> {
    (0..members).map(|_| graph(plan, &mut || rng.random_range(1..9))).collect()
}
/// Members of one topology with widths of their own, or all alike.
pub(crate) fn members(plan: &Plan, members: usize, rng: &mut ChaCha8Rng) -> (Vec<Graph>, Vec<StateDict>) {
    let same_widths = rng.random_range(0..2) == 0;
    let fixed: Vec<usize> = (0..64).map(|_| rng.random_range(1..5)).collect();
    let graphs: Vec<Graph> = (0..members)
        .map(|_| {
            let mut at = 0;
            graph(plan, &mut || {
                at += 1;
                if same_widths { fixed[at - 1] } else { rng.random_range(1..5) }
            })
        })
        .collect();
    let states = graphs.iter().map(|graph| weights(graph, rng)).collect();
    (graphs, states)
}

pub(crate) fn noise(graph: &Graph, batch: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let len = batch * graph.input_shape().iter().product::<usize>();
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}
