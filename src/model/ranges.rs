//! Which widths a target leaves to each coupling group.

use std::collections::BTreeMap;

use crate::domain::problem::{Fault, FaultCode};
use crate::model::graph::Graph;
use crate::model::groups::{Axis, Couplings, GroupId, Owner};
use crate::settings::{LayerSize, Target};

/// The widths that a group may get: from `least` to `most` in steps that end at multiples of `step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The smallest width.
    pub least: usize,
    /// The largest width: that of all members together, or the last multiple below it.
    pub most: usize,
    /// Widths above `least` are multiples of this, but for `most`.
    pub step: usize,
    /// Total width divided by the number of members.
    pub member: usize,
    /// Units of all members together.
    pub total: usize,
}

impl Range {
    /// The next wider choice.
    #[must_use]
    pub fn above(&self, width: usize) -> Option<usize> {
        (width < self.most).then(|| ((width / self.step + 1) * self.step).min(self.most))
    }

    /// The widest choice that is not above `width`; `least` where there is none.
    #[must_use]
    pub fn at_most(&self, width: usize) -> usize {
        if width >= self.most { self.most } else { (width / self.step * self.step).max(self.least) }
    }

    /// The choice nearest to `width`, the wider one of two.
    #[must_use]
    pub fn nearest(&self, width: usize) -> usize {
        let below = self.at_most(width);
        match self.above(below) {
            Some(above) if width > below && above.abs_diff(width) <= width - below => above,
            _ => below,
        }
    }
}

/// A group with its name and all its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named<'a> {
    name: String,
    layers: Vec<&'a str>,
    total: usize,
    member: usize,
    /// Channels of a head of the attentions that read or write the units; 1 where there are none.
    head: usize,
}

/// The range of every group of networks of one topology.
///
/// # Errors
/// A fault for each name that `keep` and `layers` should not hold, each pair of layers of one group that disagree, each
/// width that the members do not have together, and each group that no multiple of `round_to` fits.
pub fn of_groups(graphs: &[Graph], couplings: &[Couplings], target: &Target) -> Result<Vec<Range>, Vec<Fault>> {
    let groups = named(graphs, couplings);
    let mut faults = unknown_names(graphs, couplings, &groups, target);
    let several = widths_of_several(&groups, target);
    let rest = target.layers.iter().filter(|(name, _)| !several.contains_key(name.as_str()));
    let target = Target { layers: rest.map(|(name, size)| (name.clone(), *size)).collect(), ..target.clone() };
    faults.extend(several.into_values());
    let ranges = groups.iter().map(|group| range(group, &target, &mut faults)).collect();
    if faults.is_empty() { Ok(ranges) } else { Err(faults) }
}

fn named<'a>(graphs: &'a [Graph], couplings: &[Couplings]) -> Vec<Named<'a>> {
    let group = |index: usize| {
        let total: usize = couplings.iter().map(|member| member.groups[index].width).sum();
        let producers = couplings[0].groups[index].producers.iter();
        let name = couplings[0].name(&graphs[0], GroupId(index));
        // Exactly total / n, unlike the reference implementation, which loses one unit to float rounding for some n.
        let member = (total / couplings.len()).max(1);
        let head = head_width(&couplings[0], GroupId(index));
        Named { name, layers: producers.map(|id| graphs[0].node(*id).name.as_str()).collect(), total, member, head }
    };
    (0..couplings[0].groups.len()).map(group).collect()
}

/// What widths of `group` are multiples of, since attentions have whole heads.
fn head_width(couplings: &Couplings, group: GroupId) -> usize {
    let holds = |axis: &Axis| axis.holds(Owner::Group(group));
    let met = couplings.attentions.iter().filter(|(id, _)| holds(&couplings.rows[id]) || holds(&couplings.columns[id]));
    let widths = met.filter_map(|(_, axis)| Some(axis.segments().first()?.repeat));
    widths.fold(1, least_common_multiple)
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}

/// Names that are those of no layer with units of its own.
fn unknown_names(graphs: &[Graph], couplings: &[Couplings], groups: &[Named<'_>], target: &Target) -> Vec<Fault> {
    let is_layer = |name: &str| groups.iter().any(|group| group.layers.contains(&name));
    let is_output_layer = |name: &str| couplings[0].output_layers.iter().any(|id| graphs[0].node(*id).name == name);
    let known = || {
        let names: Vec<&str> = groups.iter().flat_map(|group| group.layers.iter().copied()).take(20).collect();
        let more = if groups.iter().map(|group| group.layers.len()).sum::<usize>() > 20 { ", …" } else { "" };
        format!("{}{more}", names.join(", "))
    };
    let unknown = |pointer: String, name: &str| {
        Fault::new(
            pointer,
            FaultCode::UnknownLayer,
            format!("there is no layer `{name}`; layers that can be pruned: {}", known()),
        )
    };
    let kept = target.keep.iter().enumerate().filter(|(_, name)| !is_layer(name) && !is_output_layer(name));
    let mut faults: Vec<Fault> = kept.map(|(index, name)| unknown(format!("/target/keep/{index}"), name)).collect();
    for name in target.layers.keys().filter(|name| !is_layer(name)) {
        faults.push(if is_output_layer(name) {
            let detail = format!("the width of the output layer `{name}` is the number of outputs and stays");
            Fault::new(pointer_to(name), FaultCode::InvalidValue, detail)
        } else {
            unknown(pointer_to(name), name)
        });
    }
    faults
}

/// Faults of layers that make the units of several groups, where the target gives one width for all of them.
fn widths_of_several<'t>(groups: &[Named<'_>], target: &'t Target) -> BTreeMap<&'t str, Fault> {
    let widths = target.layers.iter().filter(|(_, size)| matches!(size, LayerSize::Width(_)));
    let several = widths.filter_map(|(name, _)| {
        let own = groups.iter().filter(|group| group.layers.contains(&name.as_str()));
        let own: Vec<String> = own.map(|group| format!("`{}`", group.name)).collect();
        (own.len() > 1).then_some((name.as_str(), own))
    });
    let fault = |(name, own): (&'t str, Vec<String>)| {
        let detail = format!(
            "the outputs of `{name}` are added to a concatenation of {}: expected widths for these, or a factor",
            own.join(", ")
        );
        (name, Fault::new(pointer_to(name), FaultCode::SeveralGroups, detail))
    };
    several.map(fault).collect()
}

fn pointer_to(layer: &str) -> String {
    format!("/target/layers/{}", layer.replace('~', "~0").replace('/', "~1"))
}

fn range(group: &Named<'_>, target: &Target, faults: &mut Vec<Fault>) -> Range {
    let &Named { total, member, .. } = group;
    let kept = target.keep.iter().any(|name| group.layers.contains(&name.as_str()));
    let given: BTreeMap<&str, usize> = target
        .layers
        .iter()
        .filter(|(name, _)| group.layers.contains(&name.as_str()))
        .map(|(name, size)| (name.as_str(), width(*size, member)))
        .collect();
    if let Some(fixed) = given.values().next().copied() {
        faults.extend(faults_of_widths(group, kept, &given));
        return Range { least: fixed, most: fixed, step: 1, member, total };
    }
    let step = least_common_multiple(target.round_to, group.head);
    let most = total / step * step;
    if most == 0 {
        let detail = format!(
            "layer `{}` has {total} units in all members together, fewer than {step}; give it a width in `layers`{}",
            group.name,
            if group.head > 1 { format!(", in whole heads of {} channels", group.head) } else { String::new() }
        );
        faults.push(Fault::new("/target/round_to", FaultCode::TooWide, detail));
    }
    let least = match member.next_multiple_of(step) {
        _ if !kept => step,
        rounded if rounded <= most => rounded,
        // No wider multiple fits: a kept layer stays as wide as a member.
        _ => member,
    };
    Range { least, most: most.max(least), step, member, total }
}

/// A width, given as such or as a factor.
fn width(size: LayerSize, member: usize) -> usize {
    match size {
        LayerSize::Width(width) => width,
        LayerSize::Factor(factor) => scaled(member, factor),
    }
}

/// `factor` times the member width, rounded, at least one unit.
#[must_use]
pub fn scaled(member: usize, factor: f64) -> usize {
    ((member as f64 * factor).round() as usize).max(1)
}

/// What is wrong with the widths that are given for layers of one group.
fn faults_of_widths(group: &Named<'_>, kept: bool, given: &BTreeMap<&str, usize>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut first: Option<(&str, usize)> = None;
    for (&name, &width) in given {
        if width > group.total {
            let detail = format!("layer `{name}` would keep {width} units, the members have {} together", group.total);
            faults.push(Fault::new(pointer_to(name), FaultCode::TooWide, detail));
        } else if kept && width < group.member {
            let detail =
                format!("`keep` names this layer: expected at least the member width {}, got {width}", group.member);
            faults.push(Fault::new(pointer_to(name), FaultCode::TooNarrow, detail));
        }
        if !width.is_multiple_of(group.head) {
            let head = group.head;
            let detail = format!("an attention reads or writes `{name}`: expected whole heads of {head}, got {width}");
            faults.push(Fault::new(pointer_to(name), FaultCode::NotWholeHeads, detail));
        }
        match first {
            Some((other, expected)) if expected != width => {
                let detail =
                    format!("`{name}` and `{other}` share their units: expected {expected} as there, got {width}");
                faults.push(Fault::new(pointer_to(name), FaultCode::LayersDisagree, detail));
            }
            Some(_) => {}
            None => first = Some((name, width)),
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_go_up_in_steps() {
        let range = Range { least: 8, most: 24, step: 8, member: 13, total: 26 };
        assert_eq!([range.above(8), range.above(16), range.above(24)], [Some(16), Some(24), None]);
        assert_eq!([0, 8, 15, 16, 90].map(|width| range.at_most(width)), [8, 8, 8, 16, 24]);
        assert_eq!([0, 11, 12, 13, 90].map(|width| range.nearest(width)), [8, 8, 16, 16, 24]);
        let kept = Range { least: 13, most: 13, ..range };
        assert_eq!((kept.above(13), kept.at_most(2), kept.nearest(20)), (None, 13, 13));
    }
}
