//! What nodes compute, their weights in the layouts of [`crate::kernels`].
#![deny(clippy::wildcard_enum_match_arm)]

use std::borrow::Cow;

use super::value::NodeValue;
use crate::exec::lowering::{
    self, ForwardSettings, ForwardState, Lowered, Mode, Operands, Plain, Weighted, lower, projection as matrix,
};
use crate::exec::{LoadError, RunningStatistics, Transposition};
use crate::kernels::attention::Attention;
use crate::kernels::dropout::Draw;
use crate::kernels::{Workspace, layout};
use crate::model::graph::{Graph, NodeId, Window};
use crate::model::parameters::{self, Role};
use crate::tensors::{CheckpointError, Weights};

/// A weight and perhaps a bias.
#[derive(Debug)]
pub(super) struct WeightAndBias<'a> {
    /// Matrix (out x in), kernels (out x kh x kw x in; of depthwise convolutions kh x kw x channels), factors or embedding.
    pub(super) weight: Cow<'a, [f32]>,
    pub(super) bias: Option<Cow<'a, [f32]>>,
}

/// What a node computes with.
#[derive(Debug)]
pub(super) enum Computation<'a> {
    Input,
    Plain(Plain),
    Weighted {
        operation: Weighted<f32>,
        tensors: WeightAndBias<'a>,
        /// Of a BatchNorm.
        running: Option<RunningStatistics<f32>>,
    },
    Attention {
        sizes: Attention,
        /// Queries, keys and values on top of each other.
        projection: WeightAndBias<'a>,
        output: WeightAndBias<'a>,
    },
}

impl WeightAndBias<'_> {
    fn into_owned(self) -> WeightAndBias<'static> {
        let owned = |values: Cow<'_, [f32]>| Cow::Owned(values.into_owned());
        WeightAndBias { weight: owned(self.weight), bias: self.bias.map(owned) }
    }

    fn slices(&self) -> lowering::OperationTensors<'_, f32> {
        lowering::OperationTensors { weight: &self.weight, bias: self.bias.as_deref() }
    }
}

/// The operands of a node without weights.
struct Read<'a>(&'a [&'a NodeValue]);

impl Operands<f32> for Read<'_> {
    fn get(&self, index: usize) -> &[f32] {
        &self.0[index].values
    }
}

impl<'w> Computation<'w> {
    /// Reads what the node `id` needs.
    pub(super) fn of(graph: &Graph, id: NodeId, weights: &'w dyn Weights) -> Result<Self, LoadError> {
        let node = graph.node(id);
        let parameters = parameters::of_node(node);
        // Tensors of one role on top of each other, whether the file has them as one or as several.
        let joined = |role: Role| -> Result<Option<Cow<'w, [f32]>>, CheckpointError> {
            let of_role = parameters.iter().filter(|tensor| tensor.role == role);
            let mut parts: Vec<Cow<'_, [f32]>> =
                of_role.map(|tensor| weights.f32(&tensor.name)).collect::<Result<_, _>>()?;
            Ok(if parts.len() > 1 { Some(Cow::Owned(parts.concat())) } else { parts.pop() })
        };
        let tensors = |weight: Role, bias: Role| -> Result<WeightAndBias<'w>, CheckpointError> {
            Ok(WeightAndBias { weight: joined(weight)?.unwrap_or_default(), bias: joined(bias)? })
        };
        Ok(match lower(graph, id) {
            Lowered::Input { .. } => Self::Input,
            Lowered::Plain(plain) => Self::Plain(plain),
            Lowered::Weighted(operation) => {
                let embeds = parameters.iter().any(|tensor| tensor.role == Role::Embedding);
                let mut tensors = tensors(if embeds { Role::Embedding } else { Role::Weight }, Role::Bias)?;
                tensors.weight = reordered(operation.transposition(), tensors.weight);
                let mut running = None;
                if matches!(operation, Weighted::BatchNorm(_)) {
                    running.insert(RunningStatistics::new(node.name.clone(), graph.shape(id)[0])).load(weights)?;
                }
                Self::Weighted { operation, tensors, running }
            }
            Lowered::Attention(sizes) => Self::Attention {
                sizes,
                projection: tensors(Role::Projection, Role::ProjectionBias)?,
                output: tensors(Role::OutputWeight, Role::OutputBias)?,
            },
        })
    }

    /// The layer with copies of what it borrows.
    pub(super) fn into_owned(self) -> Computation<'static> {
        match self {
            Self::Input => Computation::Input,
            Self::Plain(plain) => Computation::Plain(plain),
            Self::Weighted { operation, tensors, running } => {
                Computation::Weighted { operation, tensors: tensors.into_owned(), running }
            }
            Self::Attention { sizes, projection, output } => {
                Computation::Attention { sizes, projection: projection.into_owned(), output: output.into_owned() }
            }
        }
    }

    /// Computes `y` from the node's operands, of which there is at least one.
    pub(super) fn compute(&self, operands: &[&NodeValue], y: &mut NodeValue, work: &mut Workspace<f32>) {
        let x = operands[0];
        match self {
            Self::Input => y.values.copy_from_slice(&x.values),
            Self::Plain(plain) => {
                let mut settings = ForwardSettings { work, mode: Mode::Evaluate, draw: Draw::default() };
                plain.clone().forward(&mut settings, &Read(operands), &mut y.values);
            }
            Self::Weighted { operation, tensors, running } => {
                let mut running = running.clone();
                let context = ForwardState { work, running: running.as_mut(), mode: Mode::Evaluate };
                operation.clone().forward(context, &x.values, tensors.slices(), false, &mut y.values);
            }
            Self::Attention { sizes, projection, output } => {
                let qkv = project(projection, x, 3 * x.channels, work);
                let mixed = mix(*sizes, &qkv, work);
                linear(output, &mixed, y, work);
            }
        }
    }
}

/// A matrix at every position.
fn linear(tensors: &WeightAndBias<'_>, x: &NodeValue, y: &mut NodeValue, work: &mut Workspace<f32>) {
    let context = ForwardState { work, running: None, mode: Mode::Evaluate };
    matrix(x.channels, y.channels).forward(context, &x.values, tensors.slices(), false, &mut y.values);
}

/// A matrix to `channels` channels at every position.
pub(super) fn project(
    tensors: &WeightAndBias<'_>,
    x: &NodeValue,
    channels: usize,
    work: &mut Workspace<f32>,
) -> NodeValue {
    let mut y = NodeValue { values: vec![0.0; x.values.len() / x.channels.max(1) * channels], channels, size: x.size };
    linear(tensors, x, &mut y, work);
    y
}

/// The heads' outputs side by side, from queries, keys and values.
pub(super) fn mix(sizes: Attention, qkv: &NodeValue, work: &mut Workspace<f32>) -> NodeValue {
    let channels = qkv.channels / 3;
    let mut mixed = NodeValue { values: vec![0.0; qkv.values.len() / 3], channels, size: qkv.size };
    sizes.forward(work, &qkv.values, &mut mixed.values);
    mixed
}

/// A tensor with its blocks in the order of kernels.
fn reordered(transposition: Option<Transposition>, weight: Cow<'_, [f32]>) -> Cow<'_, [f32]> {
    let Some(Transposition { channels, pixels }) = transposition else { return weight };
    let mut inside = vec![0.0; weight.len()];
    layout::channels_last(channels, pixels, &weight, &mut inside);
    Cow::Owned(inside)
}

/// Kernels in the order out x kh x kw x in, from PyTorch's out x in x kh x kw.
pub(in crate::fusion) fn kernels_last<'a>(channels: usize, window: &Window, weight: Cow<'a, [f32]>) -> Cow<'a, [f32]> {
    reordered(Transposition::new(channels, window.kernel[0] * window.kernel[1]), weight)
}
