//! Baselines that average weights after putting the members' units in one order: optimal-transport fusion (Singh & Jaggi,
//! NeurIPS 2020) and permutation alignment (Ainsworth et al., Git Re-Basin, ICLR 2023).
//!
//! Members have one shape here and every unit the same mass, so an optimal transport is a permutation: both methods come
//! down to one linear assignment per coupling group, and differ in what a pair of units costs.

mod alignment;
mod assignment;
mod matching;
mod transport;

use std::borrow::Cow;
use std::collections::BTreeMap;

pub use alignment::Alignment;
pub(in crate::fusion) use assignment::assign;
pub use matching::match_weights;
pub use transport::{match_activations, transport};

use crate::fusion::ensemble::sides::Tensor;
use crate::fusion::{Ensemble, FusionError};
use crate::model::groups::GroupId;
use crate::model::parameters;
use crate::tensors::{CheckpointError, Weights};

/// A member with its units in another order: the same network, but for outputs that were reordered too.
pub struct Permuted<'a> {
    inner: &'a dyn Weights,
    tensors: BTreeMap<String, Tensor>,
    alignment: Alignment,
}

impl std::fmt::Debug for Permuted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permuted").field("alignment", &self.alignment).finish_non_exhaustive()
    }
}

/// The members with their units in the order of `alignments`, one for each.
#[must_use]
pub fn permuted<'a>(ensemble: &Ensemble<'a>, alignments: Vec<Alignment>) -> Vec<Permuted<'a>> {
    let members = ensemble.members().iter().zip(alignments).enumerate();
    members
        .map(|(index, (member, alignment))| {
            let tensors = Tensor::of_member(ensemble, index).into_iter();
            let tensors = tensors.map(|tensor| (tensor.name.clone(), tensor)).collect();
            Permuted { inner: member.weights, tensors, alignment }
        })
        .collect()
}

impl Weights for Permuted<'_> {
    fn f32(&self, name: &str) -> Result<Cow<'_, [f32]>, CheckpointError> {
        match self.tensors.get(name) {
            Some(tensor) => Ok(Cow::Owned(self.alignment.reordered(tensor, self.inner, None)?)),
            None => self.inner.f32(name),
        }
    }

    fn counter(&self, name: &str) -> Option<i64> {
        self.inner.counter(name)
    }
}

/// The groups whose units can be reordered, in order of computation of their first producers; those of attentions cannot.
///
/// # Errors
/// When members have different widths.
fn movable(ensemble: &Ensemble<'_>) -> Result<Vec<GroupId>, FusionError> {
    let graph = ensemble.graph();
    let expected = parameters::of_graph(graph);
    for (index, member) in ensemble.members().iter().enumerate().skip(1) {
        let pairs = expected.iter().zip(parameters::of_graph(member.graph));
        if let Some((_, got)) = pairs.into_iter().find(|(expected, got)| expected.shape != got.shape) {
            return Err(FusionError::WidthsDiffer { member: index, tensor: got.name.clone() });
        }
    }
    let couplings = &ensemble.couplings()[0];
    let mut groups: Vec<GroupId> = (0..ensemble.groups()).map(GroupId).collect();
    groups.retain(|group| !couplings.meets_attention(*group));
    groups.sort_by_key(|group| couplings.group(*group).producers.iter().min().copied());
    Ok(groups)
}

#[cfg(test)]
mod tests;
