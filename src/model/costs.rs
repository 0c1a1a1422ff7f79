//! What a network costs: weights, operations, bytes.

use serde::{Deserialize, Serialize};

use crate::model::graph::{Graph, Node, Op, Shape};
use crate::model::parameters::{self, Role};
use crate::model::precision::Precision;
use crate::settings::Resource;

/// What a network costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Costs {
    /// Trainable weights; running statistics are not counted.
    pub parameters: u64,
    /// Multiply-accumulate operations of matrices, convolutions and attentions for one example.
    pub macs: u64,
    /// Bytes of all float tensors, in their own element types.
    pub bytes: u64,
}

impl std::ops::Add for Costs {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            parameters: self.parameters.saturating_add(other.parameters),
            macs: self.macs.saturating_add(other.macs),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl std::iter::Sum for Costs {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), std::ops::Add::add)
    }
}

impl Costs {
    /// Costs of one network with weights of `precision`.
    #[must_use]
    pub fn of(graph: &Graph, precision: &Precision) -> Self {
        graph.iter().map(|(id, node)| Self::of_node(node, graph.shape(id), precision)).sum()
    }

    /// How much of one resource.
    #[must_use]
    pub fn get(self, resource: Resource) -> u64 {
        match resource {
            Resource::Parameters => self.parameters,
            Resource::Macs => self.macs,
            Resource::Bytes => self.bytes,
        }
    }

    /// Costs of one operation whose output has `shape`; of the shape only the positions count, not the channels.
    #[must_use]
    pub fn of_node(node: &Node, shape: &Shape, precision: &Precision) -> Self {
        let mut costs = Self::default();
        let product = |shape: &[usize]| shape.iter().fold(1_u64, |all, &axis| all.saturating_mul(axis as u64));
        for parameter in parameters::of_node(node) {
            let elements = product(&parameter.shape);
            let size = precision.of(&parameter.name).size() as u64;
            costs.bytes = costs.bytes.saturating_add(elements.saturating_mul(size));
            if !parameter.role.is_statistic() {
                costs.parameters = costs.parameters.saturating_add(elements);
            }
            let multiplies = match parameter.role {
                Role::Weight => node.op.is_dense() || node.op.convolution().is_some(),
                role => matches!(role, Role::Projection | Role::OutputWeight),
            };
            if multiplies {
                costs.macs = costs.macs.saturating_add(elements.saturating_mul(product(&shape[1..])));
            }
        }
        if let (Op::Attention { features, .. }, [_, tokens]) = (&node.op, &shape[..]) {
            // Queries with keys, and scores with values.
            costs.macs = costs.macs.saturating_add(product(&[2, *tokens, *tokens, *features]));
        }
        costs
    }
}
