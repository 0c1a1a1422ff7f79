//! Rankings by gradients: how much a loss is expected to change without a unit.

use std::collections::BTreeMap;

use crate::fusion::ensemble::sides::Tensor;
use crate::fusion::{Ensemble, FusionError, Scores};
use crate::model::groups::{GroupId, Owner};
use crate::model::parameters::Role;
use crate::settings::Importance;

/// Importance of each weight of a member by its gradients, by tensor in `PyTorch`'s order of elements: `w E[g]` for
/// [`Importance::Taylor`], `w² E[g²]` for [`Importance::Fisher`].
pub type Saliency = BTreeMap<String, Vec<f32>>;

/// Scores of one group's units: the mean over the tensors that [`crate::fusion::magnitude`] counts of the sum over the
/// unit's slice, for Taylor its amount (Molchanov et al., ICLR 2017; Theis et al. 2018). `members` holds the saliencies of each member, by the
/// loss of that member.
///
/// # Errors
/// When a tensor has no saliency.
pub(super) fn score(
    ensemble: &Ensemble<'_>,
    group: GroupId,
    members: &[Saliency],
    importance: Importance,
) -> Result<Scores, FusionError> {
    let of_slice = |sum: f64| if importance == Importance::Taylor { sum.abs() } else { sum };
    let of_member = |(member, saliency): (usize, &Saliency)| {
        let units = ensemble.couplings()[member].group(group).width;
        let (mut scores, mut counted) = (vec![0.0; units], 0);
        let tensors = Tensor::of_member(ensemble, member);
        for tensor in tensors.iter().filter(|tensor| counts(tensor.role)) {
            let owner = Owner::Group(group);
            for side in tensor.sides.iter().filter(|side| side.holds(owner)) {
                let values = saliency.get(&tensor.name).ok_or(FusionError::NoStatistics)?;
                let rows = side.by_unit(values, owner, units);
                for (score, row) in scores.iter_mut().zip(rows.chunks_exact((rows.len() / units).max(1))) {
                    *score += of_slice(row.iter().map(|value| f64::from(*value)).sum());
                }
                counted += 1;
            }
        }
        Ok(scores.into_iter().map(|sum| sum / f64::from(counted.max(1))).collect())
    };
    members.iter().enumerate().map(of_member).collect()
}

/// Whether tensors of this role multiply.
fn counts(role: Role) -> bool {
    matches!(role, Role::Weight | Role::Projection | Role::OutputWeight)
}
