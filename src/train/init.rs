//! Fresh weights, distributed as PyTorch's defaults.

use candle_core::Shape;
use candle_nn::init::{FanInOut, NonLinearity};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::graph::{Graph, Op};
use crate::model::parameters::{Role, counter, of_node};
use crate::tensors::{StateDict, StateDictError};

/// How far fresh weights of a kernel or a matrix of this shape, and its biases, lie from 0: gain by the root of the fan in, which is
/// PyTorch's Kaiming-uniform with a = sqrt 5. In single precision, which differs from the rounded double by a bit for some fans:
/// the same seed has to give the same weights.
#[must_use]
pub fn bound(shape: &[usize]) -> f32 {
    let fan_in = FanInOut::FanIn.for_shape(&Shape::from(shape));
    NonLinearity::Linear.gain() as f32 / (fan_in as f32).sqrt()
}

/// Weights for `graph`: kernels, matrices and their biases uniform within their [`bound`], normalisations and layer scales as the
/// identity, embeddings 0. The same seed gives the same weights.
///
/// # Errors
/// When the tensor library refuses.
pub fn init(graph: &Graph, seed: u64) -> Result<StateDict, StateDictError> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = StateDict::default();
    for node in graph.nodes() {
        let parameters = of_node(node);
        let bound = parameters.first().map_or(0.0, |first| bound(&first.shape));
        let multiplies = node.op.is_dense() || node.op.convolution().is_some();
        for parameter in parameters {
            let len = parameter.shape.iter().product();
            let values: Vec<f32> = match parameter.role {
                _ if multiplies => (0..len).map(|_| generator.random_range(-bound..bound)).collect(),
                Role::Weight | Role::RunningVar => vec![1.0; len],
                _ => vec![0.0; len],
            };
            weights.insert_f32(&parameter.name, &parameter.shape, values)?;
        }
        if matches!(node.op, Op::BatchNorm { .. }) {
            weights.insert_counter(&counter(&node.name), 0)?;
        }
    }
    Ok(weights)
}
