//! What the operations of a graph are to kernels: every one has a form here, forward and backward, for whoever runs networks.
//!
//! Training compiles these forms into layers with planned buffers; calibration runs them node by node. Values have their
//! channels last here, in the layouts of [`crate::kernels`].

mod plain;
mod weighted;

pub use plain::{ForwardSettings, Operands, Plain, WithGradient};
pub(in crate::exec) use weighted::MOMENTUM;
pub use weighted::{ForwardState, Norm, OperationTensors, Weighted};

use crate::kernels::attention::Attention;
use crate::kernels::batch_norm::{Affine, BatchStatistics};
use crate::kernels::blur::Blur;
use crate::kernels::conv::{Conv, Depthwise};
use crate::kernels::dropout::Mask;
use crate::kernels::function::Function;
use crate::kernels::group_norm::GroupNorm;
use crate::kernels::linear::Linear;
use crate::kernels::pool::Cover;
use crate::kernels::response_norm::{ResponseNorm, Responses};
use crate::kernels::rim::ZeroRim;
use crate::kernels::{Float, Geometry};
use crate::model::graph::{Approximate, BlurWindow, Graph, NodeId, Op, Shape, Window};

/// What a pass is for: it decides which statistics BatchNorm uses, and whether values drop out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The running statistics.
    Evaluate,
    /// The batch's, which move the running ones; values drop out.
    Train,
    /// The batch's, whose mean over all batches becomes the running ones.
    Reestimate,
}

/// A node's operation.
#[derive(Debug)]
pub enum Lowered<T> {
    /// The network's input, `channels` x `positions` as it comes.
    Input {
        /// Its channels.
        channels: usize,
        /// Its positions.
        positions: usize,
    },
    /// Computed from the operands alone.
    Plain(Plain),
    /// Computed from one operand with a weight and perhaps a bias.
    Weighted(Weighted<T>),
    /// What stands between the projections of an attention, which are a [`projection`] each.
    Attention(Attention),
}

/// Channels of a shape, and its positions.
#[must_use]
pub fn channels_and_positions(shape: &Shape) -> [usize; 2] {
    [shape[0], shape[1..].iter().product()]
}

/// Height and width; a sequence is an image of height 1.
#[must_use]
pub fn size(shape: &Shape) -> [usize; 2] {
    match shape[1..] {
        [height, width] => [height, width],
        _ => [1, shape[1..].iter().product()],
    }
}

/// The form of the node `id`.
#[must_use]
pub fn lower<T: Float>(graph: &Graph, id: NodeId) -> Lowered<T> {
    let node = graph.node(id);
    let operand = node.inputs.first().map_or_else(|| graph.input_shape(), |input| graph.shape(*input));
    let [channels, positions] = channels_and_positions(operand);
    let parts = |output| Cover::parts(size(operand), output);
    let windows = |window: Window, count_rim| Cover::windows(&geometry(graph, id, window), count_rim);
    let convolution = |window, group_width| convolution(geometry(graph, id, window), group_width, graph.shape(id)[0]);
    let norm = |group, positions, eps| {
        let sizes = GroupNorm { channels, group, positions, eps };
        Lowered::Weighted(Weighted::GroupNorm { sizes, moments: Vec::new() })
    };
    let plain = match &node.op {
        Op::Input { .. } => return Lowered::Input { channels, positions },
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
        Op::Elu { alpha } => Plain::Function(Function::Elu(*alpha)),
        Op::Selu => Plain::Function(Function::Selu),
        Op::Mish => Plain::Function(Function::Mish),
        Op::Softplus => Plain::Function(Function::Softplus),
        Op::Scale { factor } => Plain::Function(Function::Scale(*factor)),
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
        Op::BlurPool2d { .. } => blurred(graph, id),
        Op::Flatten | Op::Reshape { .. } => {
            Plain::Reshape { from: [channels, positions], to: channels_and_positions(graph.shape(id)) }
        }
        Op::ZeroPad { begin, .. } => zero_pad(graph, id, begin),
        Op::Zeros { .. } => Plain::Zeros,
        Op::Add => Plain::Add { relu: false },
        Op::Multiply => multiply([0, 1].map(|index| channels_and_positions(graph.shape(node.inputs[index])))),
        Op::Concat => {
            let channels: Vec<usize> = node.inputs.iter().map(|input| graph.shape(*input)[0]).collect();
            Plain::Concat { all: channels.iter().sum(), channels }
        }
        Op::Dropout { p } => Plain::Dropout(Mask { p: *p, layer: 0 }),
        Op::TokenSelect { index } => Plain::TokenSelect { index: *index, tokens: positions, channels },
        Op::Attention { heads, .. } => {
            return Lowered::Attention(Attention { channels, heads: *heads, tokens: positions });
        }
        Op::Linear { .. } => return Lowered::Weighted(projection(channels, graph.shape(id)[0])),
        Op::Conv1d { group_width, window, .. } => return convolution((*window).into(), *group_width),
        Op::Conv2d { group_width, window, .. } => return convolution(*window, *group_width),
        Op::BatchNorm { eps, .. } => {
            let (statistics, affine) = (BatchStatistics::default(), Affine::default());
            return Lowered::Weighted(Weighted::BatchNorm(Norm { eps: *eps, statistics, affine }));
        }
        Op::GlobalResponseNorm { eps, .. } => {
            let (sizes, responses) = (ResponseNorm { channels, positions, eps: *eps }, Responses::default());
            return Lowered::Weighted(Weighted::ResponseNorm { sizes, responses });
        }
        Op::LayerNorm { eps, .. } => return norm(channels, 1, *eps),
        Op::GroupNorm { group_width, eps, .. } => return norm(group_width.unwrap_or(channels), positions, *eps),
        Op::LayerScale { .. } => return Lowered::Weighted(Weighted::LayerScale),
        Op::ClassToken { .. } => return Lowered::Weighted(Weighted::ClassToken { tokens: positions, channels }),
        Op::PositionalEmbedding { .. } => return Lowered::Weighted(Weighted::PositionalEmbedding),
    };
    Lowered::Plain(plain)
}

/// A matrix at every position.
#[must_use]
pub fn projection<T>(input: usize, output: usize) -> Weighted<T> {
    Weighted::Linear(Linear { input, output })
}

fn blurred(graph: &Graph, id: NodeId) -> Plain {
    let (node, output) = (graph.node(id), graph.shape(id));
    let input = size(graph.shape(node.inputs[0]));
    let window = node.op.blur().unwrap_or(BlurWindow { kernel: 1, stride: 1, padding: 0 });
    let blur = Blur::new(input, size(output), window.kernel, window.stride, window.padding);
    Plain::Blur { blur, channels: output[0] }
}

fn zero_pad(graph: &Graph, id: NodeId, begin: &[usize]) -> Plain {
    let (operand, output) = (graph.shape(graph.node(id).inputs[0]), graph.shape(id));
    let begin = match *begin {
        [height, width] => [height, width],
        _ => [0, begin.iter().sum()],
    };
    Plain::ZeroPad(ZeroRim { inner: size(operand), outer: size(output), begin, channels: output[0] })
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
    Plain::MaxPool { cover, channels, argmax: Vec::new() }
}

/// The product of two values of these `[channels, positions]`, one of which may have a single position.
fn multiply([left, right]: [[usize; 2]; 2]) -> Plain {
    let (wide, rows) = if left[1] < right[1] { (1, right[1] / left[1]) } else { (0, left[1] / right[1]) };
    Plain::Multiply { wide, rows, width: left[0] * left[1].min(right[1]) }
}

/// A convolution; one with a kernel for each channel by itself has a way of its own.
fn convolution<T>(geometry: Geometry, group_width: Option<usize>, out_channels: usize) -> Lowered<T> {
    if group_width == Some(1) && geometry.channels == out_channels {
        return Lowered::Weighted(Weighted::Depthwise(Depthwise { geometry }));
    }
    let groups = group_width.map_or(1, |width| geometry.channels / width);
    Lowered::Weighted(Weighted::Conv(Conv { geometry, out_channels, groups }))
}
