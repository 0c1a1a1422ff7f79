//! Which units stay.

use std::ops::Range;

use crate::fusion::{Ensemble, FusionError};
use crate::model::groups::GroupId;

/// One group's scores, by member and unit.
pub type Scores = Vec<Vec<f64>>;

/// The kept units of every group and member, ascending. Groups that have not been pruned yet keep everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    kept: Vec<Vec<Vec<usize>>>,
    pruned: Vec<bool>,
}

impl Selection {
    /// Everything: the concatenated network.
    #[must_use]
    pub fn all(ensemble: &Ensemble<'_>) -> Self {
        let groups = 0..ensemble.groups();
        let kept: Vec<Vec<Vec<usize>>> = groups
            .map(|group| ensemble.widths(GroupId(group)).into_iter().map(|width| (0..width).collect()).collect())
            .collect();
        Self { pruned: vec![false; kept.len()], kept }
    }

    /// Nothing: the part of a member that gives no units.
    #[must_use]
    pub fn nothing(ensemble: &Ensemble<'_>) -> Self {
        let all = Self::all(ensemble);
        let kept = all.kept.iter().map(|members| vec![Vec::new(); members.len()]).collect();
        Self { kept, pruned: vec![true; all.pruned.len()] }
    }

    /// Everything but what one group loses when it is pruned to the `target` units with the highest scores.
    #[must_use]
    pub fn only(ensemble: &Ensemble<'_>, group: GroupId, scores: &Scores, target: usize) -> Self {
        let mut selection = Self::all(ensemble);
        selection.prune(group, scores, target);
        selection
    }

    /// What selections of one member each keep, side by side.
    #[must_use]
    pub fn beside(members: &[Self]) -> Self {
        let groups = members.first().map_or(0, |first| first.kept.len());
        let of_group = |group: usize| members.iter().map(|member| member.kept[group].concat()).collect();
        let pruned = |group: usize| members.iter().any(|member| member.pruned[group]);
        Self { kept: (0..groups).map(of_group).collect(), pruned: (0..groups).map(pruned).collect() }
    }

    /// All units of one member, and none of the others, but in the groups `mixed`, which are as in `self`.
    #[must_use]
    pub fn based_on(&self, ensemble: &Ensemble<'_>, member: usize, mixed: &[GroupId]) -> Self {
        let mut based = self.clone();
        for group in (0..ensemble.groups()).map(GroupId).filter(|group| !mixed.contains(group)) {
            let widths = ensemble.widths(group).into_iter().enumerate();
            let own = widths.map(|(index, width)| if index == member { (0..width).collect() } else { Vec::new() });
            based.kept[group.0] = own.collect();
            based.pruned[group.0] = true;
        }
        based
    }

    /// The kept units of one member in one group.
    #[must_use]
    pub fn kept(&self, group: GroupId, member: usize) -> &[usize] {
        &self.kept[group.0][member]
    }

    /// Number of units that a group keeps, over all members.
    #[must_use]
    pub fn width(&self, group: GroupId) -> usize {
        self.kept[group.0].iter().map(Vec::len).sum()
    }

    /// Whether units of the group may be missing.
    #[must_use]
    pub fn is_pruned(&self, group: GroupId) -> bool {
        self.pruned[group.0]
    }

    /// The kept ones of these `units`.
    pub(in crate::fusion) fn kept_between(&self, group: GroupId, member: usize, units: Range<usize>) -> &[usize] {
        let kept = self.kept(group, member);
        let from = kept.partition_point(|&unit| unit < units.start);
        let to = kept.partition_point(|&unit| unit < units.end);
        &kept[from..to]
    }

    /// Prunes one group to the `target` units with the highest scores; among equals the earlier member and the lower
    /// unit stay. A score that is not a number counts as the lowest.
    fn prune(&mut self, group: GroupId, scores: &Scores, target: usize) {
        let units = scores.iter().enumerate().flat_map(|(member, of_member)| {
            of_member
                .iter()
                .enumerate()
                .map(move |(unit, &score)| (if score.is_nan() { f64::NEG_INFINITY } else { score }, member, unit))
        });
        let mut units: Vec<(f64, usize, usize)> = units.collect();
        units.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut kept: Vec<Vec<usize>> = vec![Vec::new(); scores.len()];
        for (_, member, unit) in units.into_iter().take(target) {
            kept[member].push(unit);
        }
        for of_member in &mut kept {
            of_member.sort_unstable();
        }
        self.kept[group.0] = kept;
        self.pruned[group.0] = true;
    }
}

/// Prunes the virtual concatenation group by group, in pruning order, to `targets` units each. `score` ranks one group's
/// units, given what is left of the others; `progress` is called with (finished groups, all groups).
///
/// # Errors
/// When a target is 0 or above the members' units together, and what `score` returns.
pub fn select(
    ensemble: &Ensemble<'_>,
    targets: &[usize],
    score: impl FnMut(&Ensemble<'_>, &Selection, GroupId) -> Result<Scores, FusionError>,
    progress: impl FnMut(usize, usize),
) -> Result<Selection, FusionError> {
    select_down_to(1, ensemble, targets, score, progress)
}

/// As [`select`], for an ensemble whose units become a part of a larger network: a target may be 0.
///
/// # Errors
/// See [`select`].
pub fn select_part(
    ensemble: &Ensemble<'_>,
    targets: &[usize],
    score: impl FnMut(&Ensemble<'_>, &Selection, GroupId) -> Result<Scores, FusionError>,
    progress: impl FnMut(usize, usize),
) -> Result<Selection, FusionError> {
    select_down_to(0, ensemble, targets, score, progress)
}

fn select_down_to(
    least: usize,
    ensemble: &Ensemble<'_>,
    targets: &[usize],
    mut score: impl FnMut(&Ensemble<'_>, &Selection, GroupId) -> Result<Scores, FusionError>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Selection, FusionError> {
    let mut selection = Selection::all(ensemble);
    for (index, &target) in targets.iter().enumerate() {
        let group = GroupId(index);
        let available: usize = ensemble.widths(group).iter().sum();
        if target < least || target > available {
            return Err(FusionError::Target { layer: ensemble.group_name(group), available, target });
        }
        if target < available {
            let scores = score(ensemble, &selection, group)?;
            selection.prune(group, &scores, target);
        }
        progress(index + 1, targets.len());
    }
    Ok(selection)
}

/// How many units of each group each member keeps, when all together keep `targets`: by `rates`, rounded so that the targets
/// are met (largest remainders, earlier members first), and no more than the member has; what one lacks, others give.
#[must_use]
pub fn quotas(ensemble: &Ensemble<'_>, targets: &[usize], rates: &[f64]) -> Vec<Vec<usize>> {
    let of_group = |(group, &target): (usize, &usize)| {
        let widths = ensemble.widths(GroupId(group));
        let mut quotas = vec![0; widths.len()];
        let mut left = target.min(widths.iter().sum());
        while left > 0 {
            let open: Vec<usize> = (0..widths.len()).filter(|member| quotas[*member] < widths[*member]).collect();
            let rate = |member: usize| rates.get(member).copied().unwrap_or(0.0);
            let total: f64 = open.iter().map(|member| rate(*member)).sum();
            let exact = |member: usize| {
                let rate = if total > 0.0 { rate(member) / total } else { 1.0 / open.len() as f64 };
                left as f64 * rate
            };
            let mut parts: Vec<(usize, usize, f64)> =
                open.iter().map(|&member| (member, exact(member) as usize, exact(member).fract())).collect();
            let whole: usize = parts.iter().map(|(_, whole, _)| whole).sum();
            parts.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
            for (place, (member, whole_part, _)) in parts.into_iter().enumerate() {
                let part = whole_part + usize::from(place < left - whole);
                quotas[member] = (quotas[member] + part).min(widths[member]);
            }
            left = target.min(widths.iter().sum()) - quotas.iter().sum::<usize>();
        }
        quotas
    };
    targets.iter().enumerate().map(of_group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_index_and_nan_goes_last() {
        let mut selection = Selection { kept: vec![vec![vec![0, 1, 2], vec![0, 1, 2]]], pruned: vec![false] };
        let scores = vec![vec![1.0, 2.0, f64::NAN], vec![2.0, 1.0, 1.0]];
        selection.prune(GroupId(0), &scores, 4);
        assert_eq!(selection.kept(GroupId(0), 0), [0, 1]);
        assert_eq!(selection.kept(GroupId(0), 1), [0, 1]);
        assert_eq!(selection.width(GroupId(0)), 4);
        assert_eq!(selection.kept_between(GroupId(0), 0, 1..3), [1]);
    }
}
