//! The weights of a member that is padded to a greater depth.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::model::depth::{DepthPadding, NodeSource};
use crate::model::graph::{Graph, Node, Op};
use crate::model::parameters::{self, Parameter, Role};
use crate::tensors::{CheckpointError, Elements, Weights};

/// A member's weights under the names of the deeper network, with identities and zeros for what the member lacks.
pub struct PaddedMember<'a> {
    inner: &'a dyn Weights,
    tensors: BTreeMap<String, Tensor>,
    counters: BTreeMap<String, Counter>,
}

/// A float tensor of the padded network.
enum Tensor {
    Own(String),
    Made(Vec<f32>),
}

/// A counter of the padded network.
enum Counter {
    Own(String),
    Zero,
}

impl std::fmt::Debug for PaddedMember<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PaddedMember").field("tensors", &self.tensors.keys()).finish_non_exhaustive()
    }
}

impl<'a> PaddedMember<'a> {
    /// The weights of `padding.graph`, where `own` is the network that `inner` has the weights of.
    #[must_use]
    pub fn new(inner: &'a dyn Weights, own: &Graph, padding: &DepthPadding) -> Self {
        let nodes: BTreeMap<&str, &Node> = own.nodes().iter().map(|node| (node.name.as_str(), node)).collect();
        let (mut tensors, mut counters) = (BTreeMap::new(), BTreeMap::new());
        for node in padding.graph.nodes() {
            let Some(source) = padding.sources.get(&node.name) else { continue };
            let from = if let NodeSource::Own(name) = source { nodes.get(name.as_str()) } else { None };
            for (index, parameter) in parameters::of_node(node).into_iter().enumerate() {
                let own = from.and_then(|own| parameters::of_node(own).into_iter().nth(index));
                let tensor =
                    own.map_or_else(|| Tensor::Made(made(node, &parameter, source)), |own| Tensor::Own(own.name));
                tensors.insert(parameter.name, tensor);
            }
            if matches!(node.op, Op::BatchNorm { .. }) {
                let own = from.map(|own| Counter::Own(parameters::counter(&own.name)));
                counters.insert(parameters::counter(&node.name), own.unwrap_or(Counter::Zero));
            }
        }
        Self { inner, tensors, counters }
    }
}

/// The elements of a tensor that the member lacks.
fn made(node: &Node, parameter: &Parameter, source: &NodeSource) -> Vec<f32> {
    let elements: usize = parameter.shape.iter().product();
    let identity = *source == NodeSource::Identity;
    match (parameter.role, &node.op) {
        // With this variance the divisor is 1.
        (Role::RunningVar, Op::BatchNorm { eps, .. }) if identity => vec![(1.0 - eps) as f32; elements],
        (Role::RunningVar, _) => vec![1.0; elements],
        (Role::Weight, Op::BatchNorm { .. } | Op::LayerScale { .. }) if identity => vec![1.0; elements],
        (Role::Weight, _) if identity => diagonal(&parameter.shape),
        _ => vec![0.0; elements],
    }
}

/// Ones in the middle of the kernels from each channel to itself; in a grouped convolution a row's own channel stands at
/// its place within the group.
fn diagonal(shape: &[usize]) -> Vec<f32> {
    let kernel: usize = shape[2..].iter().product();
    let mut values = vec![0.0; shape.iter().product()];
    for row in 0..shape[0] {
        values[(row * shape[1] + row % shape[1]) * kernel + kernel / 2] = 1.0;
    }
    values
}

impl PaddedMember<'_> {
    fn tensor(&self, name: &str) -> Result<&Tensor, CheckpointError> {
        self.tensors.get(name).ok_or_else(|| CheckpointError::Missing(name.to_owned()))
    }
}

impl Weights for PaddedMember<'_> {
    fn f32(&self, name: &str) -> Result<Cow<'_, [f32]>, CheckpointError> {
        match self.tensor(name)? {
            Tensor::Own(own) => self.inner.f32(own),
            Tensor::Made(values) => Ok(Cow::Borrowed(values)),
        }
    }

    fn elements(&self, name: &str) -> Result<Elements<'_>, CheckpointError> {
        match self.tensor(name)? {
            Tensor::Own(own) => self.inner.elements(own),
            Tensor::Made(values) => Ok(Elements::Floats(Cow::Borrowed(values))),
        }
    }

    fn counter(&self, name: &str) -> Option<i64> {
        match self.counters.get(name)? {
            Counter::Own(own) => self.inner.counter(own),
            Counter::Zero => Some(0),
        }
    }
}
