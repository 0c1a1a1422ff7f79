//! Fresh weights, distributed as PyTorch's defaults.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::graph::{Graph, Op};
use crate::model::parameters::{Role, counter, of_node};
use crate::tensors::{StateDict, StateDictError};

/// Weights for `graph`: kernels, matrices and their biases uniform within `1 / sqrt(fan in)` (PyTorch's Kaiming-uniform
/// with a = sqrt 5), BatchNorm as the identity. The same seed gives the same weights.
///
/// # Errors
/// When the tensor library refuses.
pub fn init(graph: &Graph, seed: u64) -> Result<StateDict, StateDictError> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = StateDict::default();
    for node in graph.nodes() {
        let fan_in = match &node.op {
            Op::Linear { in_features, .. } => *in_features,
            Op::Conv2d { in_channels, window, .. } => in_channels * window.kernel[0] * window.kernel[1],
            _ => 1,
        };
        let bound = 1.0 / (fan_in as f32).sqrt();
        let norm = matches!(node.op, Op::BatchNorm { .. });
        for parameter in of_node(node) {
            let len = parameter.shape.iter().product();
            let values: Vec<f32> = match parameter.role {
                Role::Weight | Role::RunningVar if norm => vec![1.0; len],
                _ if norm => vec![0.0; len],
                _ => (0..len).map(|_| generator.random_range(-bound..bound)).collect(),
            };
            weights.insert_f32(&parameter.name, &parameter.shape, values)?;
        }
        if norm {
            weights.insert_counter(&counter(&node.name), 0)?;
        }
    }
    Ok(weights)
}
