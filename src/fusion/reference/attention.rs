//! Multi-head self-attention (Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.2), on the tokens of one member.

use std::borrow::Cow;
use std::num::NonZeroUsize;

use rayon::prelude::*;

use crate::fusion::reference::dense::linear;
use crate::fusion::reference::feature_map::FeatureMap;
use crate::fusion::reference::normalise::softmax;
use crate::kernels::{Matrix, matmul};
use crate::model::graph::Node;
use crate::model::parameters::{self, Role};

const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// The attention `node` with its `tensors` (in the order of [`parameters::of_node`]) on `x`, N x C x T.
pub(super) fn attend(x: &FeatureMap, heads: usize, node: &Node, tensors: &[Cow<'_, [f32]>]) -> Vec<f32> {
    let roles: Vec<Role> = parameters::of_node(node).into_iter().map(|tensor| tensor.role).collect();
    // Queries, keys and values on top of each other, whether the file has them as one tensor or as three.
    let joined = |role: Role| -> Option<Cow<'_, [f32]>> {
        let parts: Vec<&[f32]> =
            roles.iter().zip(tensors).filter(|(other, _)| **other == role).map(|(_, tensor)| &**tensor).collect();
        (!parts.is_empty()).then(|| Cow::Owned(parts.concat()))
    };
    let module = |matrix, bias| -> Vec<Cow<'_, [f32]>> { joined(matrix).into_iter().chain(joined(bias)).collect() };
    let qkv = linear(x, 3 * x.channels, &module(Role::Projection, Role::ProjectionBias));
    let mut mixed = vec![0.0; x.values.len()];
    let examples = mixed.par_chunks_exact_mut(x.example()).zip(qkv.par_chunks_exact(3 * x.example()));
    examples.for_each(|(mixed, qkv)| mix(mixed, qkv, heads, x.positions()));
    linear(&x.with(mixed), x.channels, &module(Role::OutputWeight, Role::OutputBias))
}

/// Every head's values, mixed by `softmax(qᵀ k / √d)`; `qkv` is queries, keys and values, each C x T.
fn mix(mixed: &mut [f32], qkv: &[f32], heads: usize, tokens: usize) {
    let len = mixed.len() / heads;
    let width = len / tokens;
    let factor = 1.0 / (width as f32).sqrt();
    let mut scores = vec![0.0; tokens * tokens];
    for (head, mixed) in mixed.chunks_exact_mut(len).enumerate() {
        let part = |index: usize| Matrix::new(&qkv[(index * heads + head) * len..][..len], width, tokens);
        matmul(ONE, part(0).transposed(), part(1), &mut scores, false);
        for row in scores.chunks_exact_mut(tokens) {
            for score in &mut *row {
                *score *= factor;
            }
            softmax(row);
        }
        matmul(ONE, part(2), Matrix::new(&scores, tokens, tokens).transposed(), mixed, false);
    }
}
