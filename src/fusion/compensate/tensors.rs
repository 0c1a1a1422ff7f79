//! Tensors of fused networks as fits read and write them.

use crate::fusion::{Fused, FusionError};
use crate::kernels::layout;
use crate::model::graph::{Node, Op};
use crate::model::header::Dtype;
use crate::model::parameters::{self, Parameter, Role};
use crate::tensors::{Elements, StateDict, Weights};

/// A fused network's tensors, in memory; f64 where its file has that, so that what is not refitted is written back as it was.
///
/// # Errors
/// When they cannot be read.
pub fn copy(fused: &Fused<impl Weights>) -> Result<StateDict, FusionError> {
    let mut weights = StateDict::default();
    for parameter in parameters::of_graph(&fused.graph) {
        let elements = fused.weights.elements(&parameter.name)?;
        if matches!(elements, Elements::Bytes { dtype: Dtype::F64, .. }) {
            let mut values = vec![0.0_f64; elements.len()];
            elements.copy_to(0, &mut values);
            weights.insert_f64(&parameter.name, &parameter.shape, values)?;
        } else {
            let mut values = vec![0.0_f32; elements.len()];
            elements.copy_to(0, &mut values);
            weights.insert_f32(&parameter.name, &parameter.shape, values)?;
        }
    }
    for node in fused.graph.nodes() {
        let counter = parameters::counter(&node.name);
        if let Some(count) = fused.weights.counter(&counter) {
            weights.insert_counter(&counter, count)?;
        }
    }
    Ok(weights)
}

/// The tensors of `node` with this role, one after another.
pub(super) fn joined(weights: &StateDict, node: &Node, role: Role) -> Result<Vec<f32>, FusionError> {
    let mut values = Vec::new();
    for tensor in parameters::of_node(node).iter().filter(|tensor| tensor.role == role) {
        values.extend_from_slice(&weights.f32(&tensor.name)?);
    }
    Ok(values)
}

/// Writes the tensors of `node` with this role, whose values come one after another.
pub(in crate::fusion) fn put(
    weights: &mut StateDict,
    node: &Node,
    role: Role,
    values: &[f32],
) -> Result<(), FusionError> {
    let mut rest = values;
    for Parameter { name, shape, .. } in parameters::of_node(node).into_iter().filter(|tensor| tensor.role == role) {
        let (own, others) = rest.split_at(shape.iter().product());
        weights.insert_f32(&name, &shape, own.to_vec())?;
        rest = others;
    }
    Ok(())
}

/// A weight in PyTorch's order, from the order out x kernel x in.
pub(in crate::fusion) fn pytorch(op: &Op, weight: Vec<f32>) -> Vec<f32> {
    let Some(conv) = op.convolution() else { return weight };
    let taps = conv.window.kernel[0] * conv.window.kernel[1];
    let mut reordered = vec![0.0; weight.len()];
    layout::channels_first(conv.inputs_of_one(), taps, &weight, &mut reordered, false);
    reordered
}
