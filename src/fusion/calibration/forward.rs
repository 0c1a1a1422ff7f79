//! One network, its weights in the layouts of [`crate::kernels`], computing node after node.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::fusion::{FusionError, Member};
use crate::job::compensation::runs_in_calibration;
use crate::kernels::batch_norm::Affine;
use crate::kernels::conv::Conv;
use crate::kernels::function::Function;
use crate::kernels::linear::Linear;
use crate::kernels::pool::{self, Cover};
use crate::kernels::{Geometry, Workspace, elementwise, layout};
use crate::model::graph::{Graph, Node, NodeId, Op, Window};
use crate::model::groups::CouplingError;
use crate::tensors::{CheckpointError, Weights};

/// One node's output for a batch: N x P x C for images of P positions, N x D for vectors.
#[derive(Debug, Clone)]
pub(in crate::fusion) struct Value {
    pub(in crate::fusion) values: Vec<f32>,
    pub(in crate::fusion) channels: usize,
    pub(in crate::fusion) size: [usize; 2],
}

impl Value {
    /// Number of positions.
    pub(in crate::fusion) fn positions(&self) -> usize {
        self.size[0] * self.size[1]
    }
}

/// What a node with weights needs.
#[derive(Debug)]
enum Layer<'a> {
    /// Matrix (out x in) or kernels (out x kh x kw x in).
    Dense { weight: Cow<'a, [f32]>, bias: Option<Cow<'a, [f32]>> },
    /// A BatchNorm with its running statistics.
    Norm(Affine<f32>),
}

impl<'w> Layer<'w> {
    /// Reads the weights of `node`; `None` where it has none.
    fn of(node: &Node, weights: &'w dyn Weights) -> Result<Option<Self>, CheckpointError> {
        let tensor = |role: &str| weights.f32(&format!("{}.{role}", node.name));
        Ok(match &node.op {
            Op::Linear { bias, .. } => {
                Some(Self::Dense { weight: tensor("weight")?, bias: bias.then(|| tensor("bias")).transpose()? })
            }
            Op::Conv2d { in_channels, window, bias, .. } => {
                let weight = kernels_last(*in_channels, window, tensor("weight")?);
                Some(Self::Dense { weight, bias: bias.then(|| tensor("bias")).transpose()? })
            }
            Op::BatchNorm { eps, .. } => {
                let (mean, var) = (tensor("running_mean")?, tensor("running_var")?);
                let (weight, bias) = (tensor("weight")?, tensor("bias")?);
                let channels = mean.iter().zip(&*var).zip(weight.iter().zip(&*bias));
                let mut affine = Affine::default();
                affine.set(*eps, channels.map(|((mean, var), (w, b))| (f64::from(*mean), f64::from(*var), *w, *b)));
                Some(Self::Norm(affine))
            }
            _ => None,
        })
    }

    /// The same, copied.
    fn into_owned(self) -> Layer<'static> {
        let owned = |values: Cow<'_, [f32]>| Cow::Owned(values.into_owned());
        match self {
            Self::Dense { weight, bias } => Layer::Dense { weight: owned(weight), bias: bias.map(owned) },
            Self::Norm(affine) => Layer::Norm(affine),
        }
    }
}

/// A network ready to run.
#[derive(Debug)]
pub(in crate::fusion) struct Network<'a> {
    graph: &'a Graph,
    layers: BTreeMap<NodeId, Layer<'a>>,
    last_use: Vec<usize>,
}

impl<'a> Network<'a> {
    /// Reads a member's weights.
    pub(in crate::fusion) fn of(member: Member<'a>) -> Result<Self, FusionError> {
        let mut network = Self { graph: member.graph, layers: BTreeMap::new(), last_use: last_uses(member.graph) };
        for (id, node) in member.graph.iter() {
            if !runs_in_calibration(member.graph, id) {
                let detail = "compensation is not supported yet for this operation; set `compensate` to `none`";
                return Err(CouplingError { node: node.name.clone(), detail: detail.to_owned() }.into());
            }
            if let Some(layer) = Layer::of(node, member.weights)? {
                network.layers.insert(id, layer);
            }
        }
        Ok(network)
    }

    pub(in crate::fusion) fn graph(&self) -> &'a Graph {
        self.graph
    }

    /// For every node, the last node that reads it.
    pub(super) fn last_use(&self, node: NodeId) -> usize {
        self.last_use[node.0]
    }

    /// Takes new weights for the node `id`.
    pub(in crate::fusion) fn reload(&mut self, id: NodeId, weights: &dyn Weights) -> Result<(), FusionError> {
        if let Some(layer) = Layer::of(self.graph.node(id), weights)? {
            self.layers.insert(id, layer.into_owned());
        }
        Ok(())
    }

    /// The weight of a dense node: matrix (out x in) or kernels (out x kh x kw x in).
    pub(in crate::fusion) fn weight(&self, id: NodeId) -> &[f32] {
        match self.layers.get(&id) {
            Some(Layer::Dense { weight, .. }) => weight,
            _ => &[],
        }
    }

    /// Computes the node `id` from its operands.
    pub(super) fn compute(&self, id: NodeId, operands: &[&Value], work: &mut Workspace<f32>) -> Value {
        let node = self.graph.node(id);
        let Some(x) = operands.first() else { return Value { values: Vec::new(), channels: 0, size: [1, 1] } };
        let mut y = self.empty_output(id, x);
        match (&node.op, self.layers.get(&id)) {
            (Op::Linear { in_features, out_features, .. }, Some(Layer::Dense { weight, bias })) => {
                let sizes = Linear { input: *in_features, output: *out_features };
                sizes.forward(work, &x.values, weight, bias.as_deref(), false, &mut y.values);
            }
            (Op::Conv2d { out_channels, window, .. }, Some(Layer::Dense { weight, bias })) => {
                let sizes = Conv { geometry: geometry(x, &y, window), out_channels: *out_channels, groups: 1 };
                sizes.forward(work, &x.values, weight, bias.as_deref(), false, &mut y.values);
            }
            (_, Some(Layer::Norm(affine))) => affine.apply(&x.values, false, &mut y.values),
            (Op::Relu, _) => Function::Relu.apply(&x.values, &mut y.values),
            (Op::MaxPool2d { window, .. }, _) => {
                let mut winners = vec![0; y.values.len()];
                let cover = Cover::windows(&geometry(x, &y, window), false);
                pool::max(&cover, x.channels, &x.values, &mut y.values, &mut winners);
            }
            (Op::AvgPool2d { window, count_include_pad, .. }, _) => {
                let cover = Cover::windows(&geometry(x, &y, window), *count_include_pad);
                pool::mean(&cover, x.channels, &x.values, &mut y.values);
            }
            (Op::GlobalAvgPool2d, _) => {
                pool::mean(&Cover::parts(x.size, [1, 1]), x.channels, &x.values, &mut y.values);
            }
            (Op::Flatten, _) if x.positions() == 1 => y.values.copy_from_slice(&x.values),
            (Op::Flatten, _) => {
                layout::channels_first(x.channels, x.positions(), &x.values, &mut y.values, false);
            }
            (Op::Add, _) => elementwise::add(&x.values, &operands[1].values, false, &mut y.values),
            _ => {}
        }
        y
    }

    fn empty_output(&self, id: NodeId, x: &Value) -> Value {
        let (channels, size) = channels_and_size(self.graph, id);
        let examples = x.values.len() / (x.channels * x.positions()).max(1);
        Value { values: vec![0.0; examples * channels * size[0] * size[1]], channels, size }
    }
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

/// Channels and size of a node's output.
pub(super) fn channels_and_size(graph: &Graph, id: NodeId) -> (usize, [usize; 2]) {
    match graph.shape(id)[..] {
        [channels, h, w] => (channels, [h, w]),
        ref vector => (vector.iter().product(), [1, 1]),
    }
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

fn last_uses(graph: &Graph) -> Vec<usize> {
    let mut last = vec![0; graph.nodes().len()];
    for (id, Node { inputs, .. }) in graph.iter() {
        for input in inputs {
            last[input.0] = id.0;
        }
    }
    last
}
