//! Fusions that leave one member as it is but for its last layers: where members are at the capacity of their width, mixing
//! all layers costs more than it brings.

use super::context::Context;
use super::phases::Halt;
use crate::domain::score::Score;
use crate::fusion::{Ensemble, Selection};
use crate::plan::held_out::Validation;
use crate::report::MemberBase;
use crate::settings::{Importance, Order};

/// Hidden groups, counted from the output, that are mixed at most.
const MOST_MIXED: usize = 2;

/// A network that is one member in its first layers.
pub(super) struct Based {
    pub(super) base: MemberBase,
    pub(super) selection: Selection,
}

/// The member that does best on the validation split, and what may be made of it: nothing mixed, the last groups mixed as in
/// `mixed`. None where the validation split may favour members, where the fused network has another size than they, or where
/// the job names a ranking.
pub(super) fn based(
    context: &Context<'_>,
    parts: &Ensemble<'_>,
    targets: &[usize],
    mixed: &Selection,
) -> Result<Option<(usize, Vec<Based>)>, Halt> {
    let method = context.method();
    let decides = context.network().importance == Importance::Auto && method.order == Order::Joint;
    let members = parts.members();
    let fits = |member: usize| {
        let groups = parts.groups_by_depth();
        groups.iter().all(|group| parts.widths(*group)[member] == targets[group.0])
    };
    if !decides || context.validation != Validation::Unseen || members.len() < 2 || !(0..members.len()).all(fits) {
        return Ok(None);
    }
    let Some(scores) = scores(context, parts)? else { return Ok(None) };
    let merit = |member: usize| scores[member].merit();
    let member = (0..scores.len()).rev().max_by(|a, b| merit(*a).total_cmp(&merit(*b))).unwrap_or(0);
    let groups = parts.groups_by_depth();
    let name = &context.task.job.members[member];
    let one = |count: usize| {
        let last = &groups[groups.len() - count..];
        let mixed_names = last.iter().map(|group| parts.group_name(*group)).collect();
        Based {
            base: MemberBase { member: name.clone(), mixed: mixed_names },
            selection: mixed.based_on(parts, member, last),
        }
    };
    // Where all groups are mixed it is the other candidate again.
    Ok(Some((member, (0..=MOST_MIXED).filter(|count| *count < groups.len()).map(one).collect())))
}

/// Of each member on the validation split; none without one.
fn scores(context: &Context<'_>, parts: &Ensemble<'_>) -> Result<Option<Vec<Score>>, Halt> {
    let Some(bench) = context.bench else { return Ok(None) };
    if let Some(known) = &context.member_scores {
        return Ok(Some(known.clone()));
    }
    parts.members().iter().map(|member| bench.validation_score(member.graph, member.weights)).collect()
}
