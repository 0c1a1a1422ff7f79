//! Where a member's units stand in its tensors: every tensor as blocks along each axis that holds units.

use crate::fusion::Ensemble;
use crate::model::graph::NodeId;
use crate::model::groups::{Axis, Owner, Placed};
use crate::model::parameters::{self, Role};

/// One axis of a tensor, the tensor seen as (outer x positions x inner).
#[derive(Debug, Clone)]
pub(in crate::fusion) struct Side {
    pub(in crate::fusion) axis: Axis,
    pub(in crate::fusion) outer: usize,
    pub(in crate::fusion) inner: usize,
}

/// A tensor with every axis that holds units or outputs.
#[derive(Debug, Clone)]
pub(in crate::fusion) struct Tensor {
    pub(in crate::fusion) name: String,
    pub(in crate::fusion) node: NodeId,
    pub(in crate::fusion) role: Role,
    pub(in crate::fusion) sides: Vec<Side>,
}

impl Tensor {
    /// The float tensors of `member`, in order of computation.
    pub(in crate::fusion) fn of_member(ensemble: &Ensemble<'_>, member: usize) -> Vec<Self> {
        let graph = ensemble.members()[member].graph;
        let mut tensors = Vec::new();
        for (id, node) in graph.iter() {
            let of_node = parameters::of_node(node);
            for parameter in of_node.iter().cloned() {
                let elements: usize = parameter.shape.iter().product();
                let rows = || ensemble.rows(member, id).clone();
                let whole = |axis: Axis| {
                    let inner = elements / axis.len().max(1);
                    Side { axis, outer: 1, inner }
                };
                let sides = match parameter.role {
                    Role::Weight if node.op.is_dense() => {
                        let columns = ensemble.columns(member, id).clone();
                        let inner = node.op.taps();
                        let outer = elements / (columns.len() * inner).max(1);
                        vec![whole(rows()), Side { axis: columns, outer, inner }]
                    }
                    Role::Weight | Role::Bias | Role::RunningMean | Role::RunningVar => vec![whole(rows())],
                    Role::Embedding => {
                        let axis = rows();
                        let outer = elements / axis.len().max(1);
                        vec![Side { axis, outer, inner: 1 }]
                    }
                    Role::Projection | Role::ProjectionBias | Role::OutputWeight | Role::OutputBias => {
                        let separate = of_node.iter().filter(|other| other.role == Role::Projection).count() > 1;
                        let (rows, columns) = ensemble.couplings()[member].axes(id, parameter.role, separate);
                        let columns = columns.map(|axis| Side { outer: elements / axis.len().max(1), axis, inner: 1 });
                        std::iter::once(whole(rows)).chain(columns).collect()
                    }
                };
                tensors.push(Self { name: parameter.name, node: id, role: parameter.role, sides });
            }
        }
        tensors
    }
}

impl Side {
    /// Whether units of `owner` stand on this axis.
    pub(in crate::fusion) fn holds(&self, owner: Owner) -> bool {
        self.axis.holds(owner)
    }

    /// Everything that belongs to each of `units` units of `owner` on this axis, unit by unit; zeros where a stretch lacks
    /// one.
    pub(in crate::fusion) fn by_unit(&self, values: &[f32], owner: Owner, units: usize) -> Vec<f32> {
        let block = self.axis.len() * self.inner;
        let own = |placed: &Placed| placed.segment.repeat * self.inner;
        let len = self.outer * self.axis.placed_of(owner).map(|placed| own(&placed)).sum::<usize>();
        let mut rows = vec![0.0; units * len];
        let mut place = 0;
        for placed in self.axis.placed_of(owner) {
            let own = own(&placed);
            for unit in placed.units() {
                let row = &mut rows[unit * len..][..len];
                for outer in 0..self.outer {
                    let source = outer * block + placed.positions_of(unit).start * self.inner;
                    row[place + outer * own..][..own].copy_from_slice(&values[source..source + own]);
                }
            }
            place += self.outer * own;
        }
        rows
    }
}
