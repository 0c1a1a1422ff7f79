//! A member as it is when one group alone is pruned: nobody reads the units that are dropped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::fusion::{Ensemble, Member, Selection};
use crate::model::groups::{GroupId, Owner};
use crate::model::parameters::{self, Role};
use crate::tensors::{CheckpointError, Weights};

/// Weights of a member with zeros in the columns of dropped units. In the concatenated network a member's units are read by
/// its own layers only, so masking each member by itself masks the concatenation.
pub struct Masked<'a> {
    inner: &'a dyn Weights,
    /// By tensor: elements of a row, and the stretches of it that become zero.
    zeros: BTreeMap<String, (usize, Vec<std::ops::Range<usize>>)>,
}

impl std::fmt::Debug for Masked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masked").field("zeros", &self.zeros).finish_non_exhaustive()
    }
}

impl<'a> Masked<'a> {
    /// Member `index` without the units of `group` that `selection` drops; `None` where it keeps all of them.
    #[must_use]
    pub fn new(ensemble: &'a Ensemble<'a>, index: usize, group: GroupId, selection: &Selection) -> Option<Self> {
        let tied = ensemble.couplings()[index].group(group);
        if selection.kept(group, index).len() == tied.width {
            return None;
        }
        let Member { graph, weights } = ensemble.members()[index];
        let mut zeros = BTreeMap::new();
        for &node in &tied.consumers {
            let inner = graph.node(node).op.taps();
            let axis = ensemble.columns(index, node);
            let mut stretches = Vec::new();
            for placed in axis.placed_of(Owner::Group(group)) {
                for unit in placed.units() {
                    if selection.kept(group, index).binary_search(&unit).is_err() {
                        let positions = placed.positions_of(unit);
                        stretches.push(positions.start * inner..positions.end * inner);
                    }
                }
            }
            let read = |role: Role| matches!(role, Role::Weight | Role::Projection);
            for tensor in parameters::of_node(graph.node(node)).into_iter().filter(|tensor| read(tensor.role)) {
                zeros.insert(tensor.name, (axis.len() * inner, stretches.clone()));
            }
        }
        Some(Self { inner: weights, zeros })
    }
}

impl Weights for Masked<'_> {
    fn f32(&self, name: &str) -> Result<Cow<'_, [f32]>, CheckpointError> {
        let mut values = self.inner.f32(name)?;
        if let Some((row_len, stretches)) = self.zeros.get(name) {
            for row in values.to_mut().chunks_exact_mut((*row_len).max(1)) {
                for stretch in stretches {
                    row[stretch.clone()].fill(0.0);
                }
            }
        }
        Ok(values)
    }

    fn counter(&self, name: &str) -> Option<i64> {
        self.inner.counter(name)
    }
}
