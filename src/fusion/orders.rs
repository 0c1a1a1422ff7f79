//! In which order members are joined: all at once, one after another, or as in a merge sort.

use crate::fusion::gather::{Fused, gather};
use crate::fusion::{Ensemble, FusionError, Member, magnitude, select};

/// All members at once: the best of the orders in the paper.
///
/// # Errors
/// See [`Ensemble::new`] and [`select`].
pub fn joint(members: &[Member<'_>], targets: &[usize]) -> Result<Fused, FusionError> {
    let ensemble = Ensemble::new(members.to_vec())?;
    let selection = select(&ensemble, targets, magnitude, |_, _| {})?;
    gather(&ensemble, &selection, |_, _| {})
}

/// A running pair: the first two, the result with the third, and so on.
///
/// # Errors
/// See [`joint`].
pub fn iterative(members: &[Member<'_>], targets: &[usize]) -> Result<Fused, FusionError> {
    let (first, rest) = members.split_first().ok_or(FusionError::Empty)?;
    let mut running = joint(&[*first], targets)?;
    for (index, member) in rest.iter().enumerate() {
        let pair = if index == 0 {
            joint(&[*first, *member], targets)?
        } else {
            let mut pair = joint(&[running.as_member(), *member], targets)?;
            pair.provenance = pair.provenance.through(&[(Some(&running.provenance), 0), (None, index + 1)]);
            pair
        };
        running = pair;
    }
    Ok(running)
}

/// As a merge sort: halves until two or three members are left, which are fused jointly, then pairs of results.
///
/// # Errors
/// See [`joint`].
pub fn hierarchical(members: &[Member<'_>], targets: &[usize]) -> Result<Fused, FusionError> {
    if members.len() <= 3 {
        return joint(members, targets);
    }
    let middle = members.len() / 2;
    let left = hierarchical(&members[..middle], targets)?;
    let right = hierarchical(&members[middle..], targets)?;
    let mut pair = joint(&[left.as_member(), right.as_member()], targets)?;
    pair.provenance = pair.provenance.through(&[(Some(&left.provenance), 0), (Some(&right.provenance), middle)]);
    Ok(pair)
}

impl Fused {
    /// A fused network as the member of another fusion.
    #[must_use]
    pub fn as_member(&self) -> Member<'_> {
        Member { graph: &self.graph, weights: &self.weights }
    }
}
