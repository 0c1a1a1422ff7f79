//! What nodes compute, their weights in the layouts of [`crate::kernels`].

use std::borrow::Cow;

use super::forward::Value;
use crate::kernels::attention::Attention;
use crate::kernels::batch_norm::Affine;
use crate::kernels::conv::{Conv, Depthwise};
use crate::kernels::function::Function;
use crate::kernels::group_norm::{GroupNorm, Moments, Scale};
use crate::kernels::linear::Linear;
use crate::kernels::pool::{self, Cover};
use crate::kernels::{Geometry, Workspace, elementwise, layout, softmax, tokens};
use crate::model::graph::{Approximate, Convolution, Node, Op, PoolKind, Window};
use crate::model::parameters::{self, Role};
use crate::tensors::{CheckpointError, Weights};

/// A weight and perhaps a bias.
#[derive(Debug)]
pub(super) struct Tensors<'a> {
    /// Matrix (out x in), kernels (out x kh x kw x in; of depthwise convolutions kh x kw x channels), factors or embedding.
    pub(super) weight: Cow<'a, [f32]>,
    pub(super) bias: Option<Cow<'a, [f32]>>,
}

/// What a node with weights needs.
#[derive(Debug)]
pub(super) enum Layer<'a> {
    Plain(Tensors<'a>),
    /// A BatchNorm with its running statistics.
    Norm(Affine<f32>),
    /// Queries, keys and values on top of each other, and the output.
    Attention {
        projection: Tensors<'a>,
        output: Tensors<'a>,
    },
}

impl<'w> Layer<'w> {
    /// Reads the weights of `node`; `None` where it has none.
    pub(super) fn of(node: &Node, weights: &'w dyn Weights) -> Result<Option<Self>, CheckpointError> {
        if !node.op.has_parameters() {
            return Ok(None);
        }
        let parameters = parameters::of_node(node);
        // Tensors of one role on top of each other, whether the file has them as one or as several.
        let joined = |role: Role| -> Result<Option<Cow<'w, [f32]>>, CheckpointError> {
            let of_role = parameters.iter().filter(|tensor| tensor.role == role);
            let mut parts: Vec<Cow<'_, [f32]>> =
                of_role.map(|tensor| weights.f32(&tensor.name)).collect::<Result<_, _>>()?;
            Ok(if parts.len() > 1 { Some(Cow::Owned(parts.concat())) } else { parts.pop() })
        };
        let tensors = |weight: Role, bias: Role| -> Result<Tensors<'w>, CheckpointError> {
            Ok(Tensors { weight: joined(weight)?.unwrap_or_default(), bias: joined(bias)? })
        };
        Ok(Some(match &node.op {
            Op::BatchNorm { eps, .. } => {
                let [mean, var, weight, bias] = [Role::RunningMean, Role::RunningVar, Role::Weight, Role::Bias]
                    .map(|role| Ok::<_, CheckpointError>(joined(role)?.unwrap_or_default()));
                let (mean, var, weight, bias) = (mean?, var?, weight?, bias?);
                let channels = mean.iter().zip(&*var).zip(weight.iter().zip(&*bias));
                let mut affine = Affine::default();
                affine.set(*eps, channels.map(|((mean, var), (w, b))| (f64::from(*mean), f64::from(*var), *w, *b)));
                Self::Norm(affine)
            }
            Op::Attention { .. } => Self::Attention {
                projection: tensors(Role::Projection, Role::ProjectionBias)?,
                output: tensors(Role::OutputWeight, Role::OutputBias)?,
            },
            Op::ClassToken { .. } | Op::PositionalEmbedding { .. } => {
                Self::Plain(tensors(Role::Embedding, Role::Bias)?)
            }
            op => {
                let mut plain = tensors(Role::Weight, Role::Bias)?;
                if let Some(conv) = op.convolution() {
                    let channels = if is_depthwise(&conv) { conv.in_channels } else { conv.inputs_of_one() };
                    plain.weight = kernels_last(channels, &conv.window, plain.weight);
                }
                Self::Plain(plain)
            }
        }))
    }

    /// The same, copied.
    pub(super) fn into_owned(self) -> Layer<'static> {
        let owned = |values: Cow<'_, [f32]>| Cow::Owned(values.into_owned());
        let all = |tensors: Tensors<'_>| Tensors { weight: owned(tensors.weight), bias: tensors.bias.map(owned) };
        match self {
            Self::Plain(tensors) => Layer::Plain(all(tensors)),
            Self::Norm(affine) => Layer::Norm(affine),
            Self::Attention { projection, output } => {
                Layer::Attention { projection: all(projection), output: all(output) }
            }
        }
    }

    /// Computes `y` from the only operand of a node with weights.
    pub(super) fn compute(&self, op: &Op, x: &Value, y: &mut Value, work: &mut Workspace<f32>) {
        match self {
            Self::Norm(affine) => affine.apply(&x.values, false, &mut y.values),
            Self::Attention { projection, output } => {
                let triple = project(projection, x, 3 * x.channels, work);
                let Op::Attention { heads, .. } = op else { return };
                let mixed = mix(*heads, &triple, work);
                linear(output, &mixed, y, work);
            }
            Self::Plain(tensors) => plain(op, tensors, x, y, work),
        }
    }
}

/// An operation with a weight and perhaps a bias.
fn plain(op: &Op, tensors: &Tensors<'_>, x: &Value, y: &mut Value, work: &mut Workspace<f32>) {
    let (weight, bias) = (&*tensors.weight, tensors.bias.as_deref());
    if let Some(conv) = op.convolution() {
        let geometry = geometry(x, y, &conv.window);
        if is_depthwise(&conv) {
            return Depthwise { geometry }.forward(&x.values, weight, bias, false, &mut y.values);
        }
        let sizes = Conv { geometry, out_channels: conv.out_channels, groups: conv.groups() };
        return sizes.forward(work, &x.values, weight, bias, false, &mut y.values);
    }
    let mut normalise = |group: usize, positions: usize, eps: f64| {
        let sizes = GroupNorm { channels: x.channels, group, positions, eps };
        let mut moments = vec![Moments::default(); sizes.moments(x.values.len())];
        sizes.forward(&x.values, Scale { weight, bias: bias.unwrap_or(&[]) }, &mut moments, &mut y.values);
    };
    match op {
        Op::LayerNorm { eps, .. } => normalise(x.channels, 1, *eps),
        Op::GroupNorm { group_width, eps, .. } => normalise(group_width.unwrap_or(x.channels), x.positions(), *eps),
        Op::LayerScale { .. } => elementwise::scale_rows(&x.values, weight, &mut y.values, false),
        Op::ClassToken { .. } => tokens::prepend(weight, x.positions(), &x.values, &mut y.values),
        Op::PositionalEmbedding { .. } => tokens::embed(weight, &x.values, &mut y.values),
        _ => linear(tensors, x, y, work),
    }
}

/// A matrix at every position.
fn linear(tensors: &Tensors<'_>, x: &Value, y: &mut Value, work: &mut Workspace<f32>) {
    let sizes = Linear { input: x.channels, output: y.channels };
    sizes.forward(work, &x.values, &tensors.weight, tensors.bias.as_deref(), false, &mut y.values);
}

/// A matrix to `channels` channels at every position.
pub(super) fn project(tensors: &Tensors<'_>, x: &Value, channels: usize, work: &mut Workspace<f32>) -> Value {
    let mut y = Value { values: vec![0.0; x.values.len() / x.channels.max(1) * channels], channels, size: x.size };
    linear(tensors, x, &mut y, work);
    y
}

/// The heads' outputs side by side, from queries, keys and values.
pub(super) fn mix(heads: usize, triple: &Value, work: &mut Workspace<f32>) -> Value {
    let channels = triple.channels / 3;
    let mut mixed = Value { values: vec![0.0; triple.values.len() / 3], channels, size: triple.size };
    let sizes = Attention { channels, heads, tokens: triple.positions() };
    sizes.forward(work, &triple.values, &mut mixed.values);
    mixed
}

/// Computes `y` from the operands of a node without weights.
pub(super) fn without_weights(op: &Op, operands: &[&Value], y: &mut Value) {
    let x = operands[0];
    if let Some(function) = function(op) {
        return function.apply(&x.values, &mut y.values);
    }
    if let Some(of_op) = op.pool() {
        let cover =
            Cover::windows(&geometry(x, y, &of_op.window), of_op.kind == PoolKind::Mean { count_padding: true });
        return reduce(&cover, of_op.kind == PoolKind::Max, x, y);
    }
    match op {
        Op::AdaptiveMaxPool2d { output } => reduce(&Cover::parts(x.size, *output), true, x, y),
        Op::AdaptiveAvgPool2d { output } => reduce(&Cover::parts(x.size, *output), false, x, y),
        Op::GlobalAvgPool2d | Op::TokenMean => reduce(&Cover::parts(x.size, [1, 1]), false, x, y),
        Op::Softmax => softmax::softmax(x.channels, &x.values, &mut y.values),
        Op::Flatten | Op::Reshape { .. } => {
            let (from, to) = ([x.channels, x.positions()], [y.channels, y.positions()]);
            layout::reshape(from, to, &x.values, &mut y.values, false);
        }
        Op::Add => elementwise::add(&x.values, &operands[1].values, false, &mut y.values),
        Op::Multiply => {
            let (wide, narrow) =
                if x.positions() < operands[1].positions() { (operands[1], x) } else { (x, operands[1]) };
            let rows = wide.positions() / narrow.positions();
            let width = narrow.channels * narrow.positions();
            elementwise::multiply(rows, width, &wide.values, &narrow.values, &mut y.values, false);
        }
        Op::Concat => {
            let mut first = 0;
            for operand in operands {
                elementwise::put_columns(&operand.values, operand.channels, &mut y.values, first, y.channels);
                first += operand.channels;
            }
        }
        Op::TokenSelect { index } => {
            tokens::select(*index, x.positions(), x.channels, &x.values, &mut y.values);
        }
        // Dropout, which is the identity here.
        _ => y.values.copy_from_slice(&x.values),
    }
}

/// Maxima or means over what each position covers.
fn reduce(cover: &Cover, maximum: bool, x: &Value, y: &mut Value) {
    if maximum {
        let mut winners = vec![0; y.values.len()];
        pool::max(cover, x.channels, &x.values, &mut y.values, &mut winners);
    } else {
        pool::mean(cover, x.channels, &x.values, &mut y.values);
    }
}

/// The function that `op` applies to every value by itself, if it is such an operation.
fn function(op: &Op) -> Option<Function> {
    Some(match op {
        Op::Relu => Function::Relu,
        Op::Relu6 => Function::Relu6,
        Op::LeakyRelu { negative_slope } => Function::LeakyRelu(*negative_slope),
        Op::Gelu { approximate: Approximate::None } => Function::Gelu,
        Op::Gelu { approximate: Approximate::Tanh } => Function::GeluTanh,
        Op::Silu => Function::Silu,
        Op::Hardswish => Function::Hardswish,
        Op::Sigmoid => Function::Sigmoid,
        Op::Hardsigmoid => Function::Hardsigmoid,
        Op::Tanh => Function::Tanh,
        _ => return None,
    })
}

/// Whether every channel has a kernel by itself.
fn is_depthwise(conv: &Convolution) -> bool {
    conv.group_width == Some(1) && conv.in_channels == conv.out_channels
}

/// Kernels in the order out x kh x kw x in, from PyTorch's out x in x kh x kw.
pub(in crate::fusion) fn kernels_last<'a>(channels: usize, window: &Window, weight: Cow<'a, [f32]>) -> Cow<'a, [f32]> {
    let taps = window.kernel[0] * window.kernel[1];
    if taps == 1 || channels == 1 {
        return weight;
    }
    let mut reordered = vec![0.0; weight.len()];
    layout::channels_last(channels, taps, &weight, &mut reordered);
    Cow::Owned(reordered)
}

fn geometry(x: &Value, y: &Value, window: &Window) -> Geometry {
    Geometry {
        channels: x.channels,
        input: x.size,
        output: y.size,
        kernel: window.kernel,
        stride: window.stride,
        padding: window.padding,
        dilation: window.dilation,
    }
}
