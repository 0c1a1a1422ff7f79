//! In which order members are joined: all at once, one after another, or as in a merge sort.

use crate::fusion::assemble::gather;
use crate::fusion::{Ensemble, Fused, FusionError, Member, magnitude, select};
use crate::model::groups::GroupId;
use crate::settings::Order;
use crate::tensors::Weights;

/// All members at once: the best of the orders in the paper.
///
/// # Errors
/// See [`Ensemble::new`] and [`select`].
pub fn joint(members: &[Member<'_>], targets: &[usize]) -> Result<Fused, FusionError> {
    let ensemble = Ensemble::new(members.to_vec())?;
    let selection = select(&ensemble, targets, magnitude, |_, _| {})?;
    gather(&ensemble, &selection)?.build()
}

/// The first two, the result with the third, and so on.
///
/// # Errors
/// See [`joint`].
pub fn iterative(members: &[Member<'_>], targets: &[usize]) -> Result<Fused, FusionError> {
    in_order(Order::Iterative, members, targets, &mut joint)
}

/// As a merge sort: halves until two or three members are left, which are fused jointly, then pairs of results.
///
/// # Errors
/// See [`joint`].
pub fn hierarchical(members: &[Member<'_>], targets: &[usize]) -> Result<Fused, FusionError> {
    in_order(Order::Hierarchical, members, targets, &mut joint)
}

/// Fuses a few networks jointly to so many units per group.
pub type FuseJointly<'j, W, E> = &'j mut dyn FnMut(&[Member<'_>], &[usize]) -> Result<Fused<W>, E>;

/// Joins members in an order, each time to `targets` units per group, or to all units where the parts have fewer together.
///
/// # Errors
/// When there is no member, and what `join` returns.
pub fn in_order<W: Weights, E: From<FusionError>>(
    order: Order,
    members: &[Member<'_>],
    targets: &[usize],
    join: FuseJointly<'_, W, E>,
) -> Result<Fused<W>, E> {
    match (order, members) {
        (_, []) => Err(FusionError::Empty.into()),
        (Order::Iterative, [first, second, rest @ ..]) => {
            let mut running = cut(&[*first, *second], targets, join)?;
            for (index, member) in rest.iter().enumerate() {
                let mut pair = cut(&[running.as_member(), *member], targets, join)?;
                pair.provenance = pair.provenance.through(&[(Some(&running.provenance), 0), (None, index + 2)]);
                running = pair;
            }
            Ok(running)
        }
        (Order::Hierarchical, [_, _, _, _, ..]) => {
            let middle = members.len() / 2;
            let left = in_order(order, &members[..middle], targets, join)?;
            let right = in_order(order, &members[middle..], targets, join)?;
            let mut pair = cut(&[left.as_member(), right.as_member()], targets, join)?;
            let parts = [(Some(&left.provenance), 0), (Some(&right.provenance), middle)];
            pair.provenance = pair.provenance.through(&parts);
            Ok(pair)
        }
        _ => cut(members, targets, join),
    }
}

/// Joins to `targets`, as far as the parts have so many units.
fn cut<W: Weights, E: From<FusionError>>(
    parts: &[Member<'_>],
    targets: &[usize],
    join: FuseJointly<'_, W, E>,
) -> Result<Fused<W>, E> {
    let ensemble = Ensemble::new(parts.to_vec())?;
    let available = (0..ensemble.groups()).map(|group| ensemble.widths(GroupId(group)).iter().sum());
    let targets: Vec<usize> = targets.iter().zip(available).map(|(target, all)| (*target).min(all)).collect();
    join(parts, &targets)
}
