//! Attention as exporters of PyTorch spell it.

use super::emitter::{AxisOrder, Emitter};
use super::message::Attribute;
use crate::model::graph::NodeId;
use crate::model::parameters::{self, Role};

impl Emitter<'_> {
    /// Multi-head self-attention with its projections; tokens are N x T x C.
    pub(super) fn attention(&mut self, id: NodeId, x: NodeId, features: usize, heads: usize) {
        let roles = parameters::of_node(self.graph.node(id)).into_iter().map(|tensor| tensor.role);
        let tensors: Vec<(Role, String)> = roles.zip(self.weights(id)).collect();
        let of = |role: Role| -> Vec<String> {
            tensors.iter().filter(|(other, _)| *other == role).map(|(_, name)| name.clone()).collect()
        };
        let (matrices, biases) = (of(Role::Projection), of(Role::ProjectionBias));
        let value = self.get(x, AxisOrder::ChannelsLast);
        let mut parts: Vec<String> =
            (0..matrices.len()).map(|index| self.product(&value, &matrices[index], biases.get(index))).collect();
        if let [packed] = &parts[..] {
            let packed = packed.clone();
            parts = self.split_last(&packed, [features; 3]).into();
        }
        let width = features / heads;
        // Queries and values as N x heads x T x width, keys as N x heads x width x T.
        let by_head = |emitter: &mut Self, part: &str, order: [i64; 4]| {
            let split = emitter.reshaped(part, &[0, 0, heads as i64, width as i64]);
            emitter.node("Transpose", &[&split], &[("perm", Attribute::Integers(order.to_vec()))])
        };
        let query = by_head(self, &parts[0], [0, 2, 1, 3]);
        let key = by_head(self, &parts[1], [0, 2, 3, 1]);
        let value = by_head(self, &parts[2], [0, 2, 1, 3]);
        let factor = self.scalar(1.0 / (width as f64).sqrt());
        let query = self.node("Mul", &[&query, &factor], &[]);
        let scores = self.node("MatMul", &[&query, &key], &[]);
        let weights = self.node("Softmax", &[&scores], &[("axis", Attribute::Integer(-1))]);
        let mixed = self.node("MatMul", &[&weights, &value], &[]);
        let order = Attribute::Integers(vec![0, 2, 1, 3]);
        let mixed = self.node("Transpose", &[&mixed], &[("perm", order)]);
        let mixed = self.reshaped(&mixed, &[0, 0, features as i64]);
        let (matrix, bias) = (of(Role::OutputWeight), of(Role::OutputBias));
        let output = self.product(&mixed, &matrix[0], bias.first());
        self.put(AxisOrder::ChannelsLast, output);
    }
}
