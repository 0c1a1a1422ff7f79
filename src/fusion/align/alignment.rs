//! The order in which a member's units are to stand.

use crate::fusion::Ensemble;
use crate::fusion::ensemble::sides::{Side, Tensor};
use crate::model::groups::{Axis, GroupId, Owner, Placed};
use crate::tensors::{CheckpointError, Weights};

/// In which order a member's units stand where the reference's do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alignment {
    /// For each coupling group and each place, the member's unit.
    pub groups: Vec<Vec<usize>>,
    /// For each output, the member's output.
    pub outputs: Vec<usize>,
}

impl Alignment {
    /// Everything where it is.
    pub(super) fn identity(ensemble: &Ensemble<'_>) -> Self {
        let groups = (0..ensemble.groups()).map(|group| (0..ensemble.widths(GroupId(group))[0]).collect());
        Self { groups: groups.collect(), outputs: (0..ensemble.graph().classes()).collect() }
    }

    fn of(&self, owner: Owner) -> Option<&[usize]> {
        match owner {
            Owner::Group(group) => Some(&self.groups[group.0]),
            Owner::Output => Some(&self.outputs),
            Owner::Input => None,
        }
    }

    /// For each position of an axis, the position that comes to stand there; `None` where all stay.
    fn sources(&self, axis: &Axis) -> Option<Vec<usize>> {
        let mut sources = Vec::with_capacity(axis.len());
        for placed @ Placed { start, segment } in axis.placed() {
            for unit in placed.units() {
                let source = self.of(segment.owner).map_or(unit, |order| order[unit]);
                let first = start + source.saturating_sub(segment.first) * segment.repeat;
                sources.extend(first..first + segment.repeat);
            }
        }
        let stays = sources.iter().enumerate().all(|(place, source)| place == *source);
        (!stays).then_some(sources)
    }

    /// The elements of a tensor with every axis but the one called `raw` in this order.
    pub(super) fn reordered(
        &self,
        tensor: &Tensor,
        weights: &dyn Weights,
        raw: Option<usize>,
    ) -> Result<Vec<f32>, CheckpointError> {
        let mut values = weights.f32(&tensor.name)?.into_owned();
        for (_, side) in tensor.sides.iter().enumerate().filter(|(index, _)| Some(*index) != raw) {
            if let Some(sources) = self.sources(&side.axis) {
                values = reorder(side, &values, &sources);
            }
        }
        Ok(values)
    }
}

/// Puts position `sources[p]` at position p.
fn reorder(side: &Side, values: &[f32], sources: &[usize]) -> Vec<f32> {
    let mut reordered = Vec::with_capacity(values.len());
    let block = sources.len() * side.inner;
    for outer in 0..side.outer {
        let block = &values[outer * block..(outer + 1) * block];
        for source in sources {
            reordered.extend_from_slice(&block[source * side.inner..(source + 1) * side.inner]);
        }
    }
    reordered
}
