//! Fusions that leave one member as it is but for its last layers, and members that are pruned alone where the fused network is smaller: where
//! members are at the capacity of their width, mixing all layers costs more than it brings.

use super::choice::Inputs;
use super::context::Context;
use super::phases::Halt;
use super::rank::{AUTO, Join, Ranked};
use crate::domain::score::Score;
use crate::fusion::{Ensemble, Selection};
use crate::plan::held_out::Validation;
use crate::report::MemberBase;
use crate::settings::{Importance, Order};

/// Hidden groups, counted from the output, that are mixed at most.
const MOST_MIXED: usize = 2;

/// What may be made of one member.
pub(super) struct Based {
    /// Its networks.
    pub(super) networks: Vec<Ranked>,
    /// The member, where the fused network has its size: it may be kept as it is.
    pub(super) as_it_is: Option<usize>,
}

/// What may be made of the member that does best on the validation split. Where it has the size of the fused network: nothing mixed, the last groups
/// mixed as in `mixed`; where it is larger, pruned alone by each ranking. None where the validation split may favour members, where a member is
/// narrower than the fused network, or where the job names a ranking.
pub(super) fn based(
    context: &mut Context<'_>,
    join: &Join<'_>,
    mixed: &Selection,
    inputs: Option<&Inputs>,
) -> Result<Option<Based>, Halt> {
    let (parts, method) = (join.parts, context.method());
    let decides = context.network().importance == Importance::Auto && method.order == Order::Joint;
    let members = parts.members();
    let groups = parts.groups_by_depth();
    let all = |holds: fn(&usize, &usize) -> bool| {
        groups.iter().all(|group| parts.widths(*group).iter().all(|width| holds(width, &join.targets[group.0])))
    };
    if !decides || context.validation != Validation::Unseen || members.len() < 2 || !all(usize::ge) {
        return Ok(None);
    }
    let Some(scores) = scores(context, parts)? else { return Ok(None) };
    let merit = |member: usize| scores[member].merit();
    let member = (0..scores.len()).rev().max_by(|a, b| merit(*a).total_cmp(&merit(*b))).unwrap_or(0);
    let name = context.task.job.members[member].clone();
    if !all(usize::eq) {
        let rates: Vec<f64> = (0..members.len()).map(|index| f64::from(u8::from(index == member))).collect();
        let mut networks = Vec::with_capacity(AUTO.len());
        for importance in AUTO {
            let selection = join.select_from_each(context, importance, &rates, inputs)?;
            let base = MemberBase { member: name.clone(), mixed: Vec::new(), is_pruned: true };
            networks.push(Ranked { importance, base: Some(base), selection });
        }
        return Ok(Some(Based { networks, as_it_is: None }));
    }
    let one = |count: usize| {
        let last = &groups[groups.len() - count..];
        let mixed_names = last.iter().map(|group| parts.group_name(*group)).collect();
        let base = MemberBase { member: name.clone(), mixed: mixed_names, is_pruned: false };
        Ranked { importance: Importance::Css, base: Some(base), selection: mixed.based_on(parts, member, last) }
    };
    // Where all groups are mixed it is the other candidate again.
    let networks = (0..=MOST_MIXED).filter(|count| *count < groups.len()).map(one).collect();
    Ok(Some(Based { networks, as_it_is: Some(member) }))
}

/// Of each member on the validation split; none without one.
fn scores(context: &Context<'_>, parts: &Ensemble<'_>) -> Result<Option<Vec<Score>>, Halt> {
    let Some(bench) = context.bench else { return Ok(None) };
    if let Some(known) = &context.member_scores {
        return Ok(Some(known.clone()));
    }
    parts.members().iter().map(|member| bench.validation_score(member.graph, member.weights)).collect()
}
