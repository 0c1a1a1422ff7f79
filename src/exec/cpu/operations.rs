//! What the operations of a graph are to the engine: every one has a form here.

use crate::exec::cpu::compile::Compiler;
use crate::exec::cpu::layer::Operation;
use crate::exec::cpu::parameters::Transposition;
use crate::exec::cpu::plain::Plain;
use crate::exec::cpu::weighted::{Norm, Weighted};
use crate::kernels::attention::Attention;
use crate::kernels::batch_norm::{Affine, Statistics};
use crate::kernels::conv::{Conv, Depthwise};
use crate::kernels::dropout::Mask;
use crate::kernels::function::Function;
use crate::kernels::group_norm::GroupNorm;
use crate::kernels::linear::Linear;
use crate::kernels::pool::Cover;
use crate::kernels::{Float, Geometry};
use crate::model::graph::{Approximate, Graph, Node, NodeId, Op, Shape, Window};
use crate::model::parameters::Role;

/// Channels of a shape, and its positions.
pub(super) fn channels_and_positions(shape: &Shape) -> [usize; 2] {
    [shape[0], shape[1..].iter().product()]
}

/// Height and width; a sequence is an image of height 1.
fn size(shape: &Shape) -> [usize; 2] {
    match shape[1..] {
        [height, width] => [height, width],
        _ => [1, shape[1..].iter().product()],
    }
}

impl<T: Float> Compiler<'_, T> {
    /// The operation of `node`, its tensors registered; an attention's is the one between its projections.
    pub(super) fn operation(&mut self, id: NodeId, node: &Node) -> Operation<T> {
        let operand = node.inputs.first().map_or_else(|| self.graph.input_shape(), |input| self.graph.shape(*input));
        let [channels, positions] = channels_and_positions(operand);
        let parts = |output| Cover::parts(size(operand), output);
        let windows = |window: Window, count_rim| Cover::windows(&geometry(self.graph, id, window), count_rim);
        let plain = match &node.op {
            Op::Input { .. } => {
                let channels = if self.input_stays() { 1 } else { channels };
                return Operation::Input { channels, pixels: positions };
            }
            Op::Relu => Plain::Function(Function::Relu),
            Op::Relu6 => Plain::Function(Function::Relu6),
            Op::LeakyRelu { negative_slope } => Plain::Function(Function::LeakyRelu(*negative_slope)),
            Op::Gelu { approximate: Approximate::None } => Plain::Function(Function::Gelu),
            Op::Gelu { approximate: Approximate::Tanh } => Plain::Function(Function::GeluTanh),
            Op::Silu => Plain::Function(Function::Silu),
            Op::Hardswish => Plain::Function(Function::Hardswish),
            Op::Sigmoid => Plain::Function(Function::Sigmoid),
            Op::Hardsigmoid => Plain::Function(Function::Hardsigmoid),
            Op::Tanh => Plain::Function(Function::Tanh),
            Op::Softmax => Plain::Softmax { channels },
            Op::MaxPool1d { window, .. } => maximum(windows((*window).into(), false), channels),
            Op::MaxPool2d { window, .. } => maximum(windows(*window, false), channels),
            Op::AdaptiveMaxPool2d { output } => maximum(parts(*output), channels),
            Op::AvgPool1d { window, count_include_pad, .. } => {
                Plain::MeanPool { cover: windows((*window).into(), *count_include_pad), channels }
            }
            Op::AvgPool2d { window, count_include_pad, .. } => {
                Plain::MeanPool { cover: windows(*window, *count_include_pad), channels }
            }
            Op::AdaptiveAvgPool2d { output } => Plain::MeanPool { cover: parts(*output), channels },
            Op::GlobalAvgPool2d | Op::TokenMean => Plain::MeanPool { cover: parts([1, 1]), channels },
            Op::Flatten | Op::Reshape { .. } => {
                Plain::Reshape { from: [channels, positions], to: channels_and_positions(self.graph.shape(id)) }
            }
            Op::Add => Plain::Add { relu: self.melts(id) },
            Op::Multiply => multiply(self.graph, node),
            Op::Concat => {
                let channels: Vec<usize> = node.inputs.iter().map(|input| self.graph.shape(*input)[0]).collect();
                Plain::Concat { all: channels.iter().sum(), channels }
            }
            Op::Dropout { p } => Plain::Dropout(Mask { p: *p, layer: self.result.layers.len() }),
            Op::TokenSelect { index } => Plain::TokenSelect { index: *index, tokens: positions, channels },
            Op::Attention { heads, .. } => Plain::Attention(Attention { channels, heads: *heads, tokens: positions }),
            Op::Linear { .. }
            | Op::Conv1d { .. }
            | Op::Conv2d { .. }
            | Op::BatchNorm { .. }
            | Op::LayerNorm { .. }
            | Op::GroupNorm { .. }
            | Op::LayerScale { .. }
            | Op::ClassToken { .. }
            | Op::PositionalEmbedding { .. } => return self.with_weights(id, node),
        };
        Operation::Plain(plain)
    }

    /// The operation of a node with weights.
    fn with_weights(&mut self, id: NodeId, node: &Node) -> Operation<T> {
        let [channels, positions] = channels_and_positions(self.graph.shape(node.inputs[0]));
        let norm = |group, positions, eps| Weighted::GroupNorm {
            sizes: GroupNorm { channels, group, positions, eps },
            moments: Vec::new(),
        };
        let mut order = None;
        let operation = match &node.op {
            Op::Conv1d { group_width, window, .. } => {
                convolution(geometry(self.graph, id, (*window).into()), *group_width, self.graph.shape(id)[0])
            }
            Op::Conv2d { group_width, window, .. } => {
                convolution(geometry(self.graph, id, *window), *group_width, self.graph.shape(id)[0])
            }
            Op::BatchNorm { features, eps } => {
                let running = self.register_running(node, *features);
                let (statistics, affine) = (Statistics::default(), Affine::default());
                Weighted::BatchNorm(Norm { eps: *eps, running, statistics, affine })
            }
            Op::LayerNorm { eps, .. } => norm(channels, 1, *eps),
            Op::GroupNorm { group_width, eps, .. } => norm(group_width.unwrap_or(channels), positions, *eps),
            Op::LayerScale { .. } => Weighted::LayerScale,
            Op::ClassToken { .. } => Weighted::ClassToken { tokens: positions, channels },
            Op::PositionalEmbedding { .. } => Weighted::PositionalEmbedding,
            _ => {
                order = self.order_of_operand(node);
                Weighted::Linear(Linear { input: channels, output: self.graph.shape(id)[0] })
            }
        };
        let order = match &operation {
            Weighted::Conv(conv) => Transposition::new(conv.geometry.channels / conv.groups, conv.geometry.taps()),
            Weighted::Depthwise(conv) => Transposition::new(channels, conv.geometry.taps()),
            _ => order,
        };
        let [weights, biases] = self.register(node, &[Role::Weight, Role::Embedding], &[Role::Bias], order);
        Operation::Weighted { operation, weight: weights[0], bias: biases.first().copied(), relu: self.melts(id) }
    }

    /// Projections, the attention between them, and its output projection.
    pub(super) fn attention(&mut self, id: NodeId, node: &Node, x: usize) -> usize {
        let [channels, tokens] = channels_and_positions(self.graph.shape(id));
        let [matrices, biases] = self.register(node, &[Role::Projection], &[Role::ProjectionBias], None);
        // One matrix for queries, keys and values together, or one for each.
        let width = 3 * channels / matrices.len();
        let mut parts = Vec::new();
        for (index, &weight) in matrices.iter().enumerate() {
            let operation = linear([channels, width], weight, biases.get(index).copied());
            parts.push(self.push(operation, vec![x], width * tokens));
        }
        let triple = if let [all] = parts[..] {
            all
        } else {
            let concat = Plain::Concat { channels: vec![width; parts.len()], all: 3 * channels };
            self.push(Operation::Plain(concat), parts, 3 * channels * tokens)
        };
        let between = self.operation(id, node);
        let mixed = self.push(between, vec![triple], channels * tokens);
        let [matrices, biases] = self.register(node, &[Role::OutputWeight], &[Role::OutputBias], None);
        let output = linear([channels, channels], matrices[0], biases.first().copied());
        self.push(output, vec![mixed], channels * tokens)
    }
}

/// A linear layer on tokens.
fn linear<T>([input, output]: [usize; 2], weight: usize, bias: Option<usize>) -> Operation<T> {
    let operation = Weighted::Linear(Linear { input, output });
    Operation::Weighted { operation, weight, bias, relu: false }
}

fn geometry(graph: &Graph, id: NodeId, window: Window) -> Geometry {
    let operand = graph.shape(graph.node(id).inputs[0]);
    Geometry {
        channels: operand[0],
        input: size(operand),
        output: size(graph.shape(id)),
        kernel: window.kernel,
        stride: window.stride,
        padding: window.padding,
        dilation: window.dilation,
    }
}

fn maximum(cover: Cover, channels: usize) -> Plain {
    Plain::MaxPool { cover, channels, winners: Vec::new() }
}

fn multiply(graph: &Graph, node: &Node) -> Plain {
    let [left, right] = [0, 1].map(|index| channels_and_positions(graph.shape(node.inputs[index])));
    let (wide, rows) = if left[1] < right[1] { (1, right[1] / left[1]) } else { (0, left[1] / right[1]) };
    Plain::Multiply { wide, rows, width: left[0] * left[1].min(right[1]) }
}

/// A convolution; one with a kernel for each channel by itself has a way of its own.
fn convolution<T>(geometry: Geometry, group_width: Option<usize>, out_channels: usize) -> Weighted<T> {
    if group_width == Some(1) && geometry.channels == out_channels {
        return Weighted::Depthwise(Depthwise { geometry });
    }
    let groups = group_width.map_or(1, |width| geometry.channels / width);
    Weighted::Conv(Conv { geometry, out_channels, groups })
}
