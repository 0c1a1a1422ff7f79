//! How a budget is spent on the widths of a network's groups.
//!
//! Costs only ever grow with a width. So a group whose next step no longer fits never grows again, and when no group is
//! left that could grow, the budget is as tight as whole steps allow.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::costs::Costs;
use crate::model::graph::{Graph, NodeId};
use crate::model::groups::{Couplings, GroupId};
use crate::model::parameters;
use crate::model::precision::Precision;
use crate::model::ranges::Range;
use crate::settings::{Budget, Resource};

/// What pruning a group alone does to the network's outputs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curve {
    /// Width and relative change of the outputs, ascending by width; 0 change at the full width.
    pub points: Vec<(usize, f64)>,
}

impl Curve {
    /// Change at `width`: between points on a straight line, never less than at any greater width.
    #[must_use]
    pub fn at(&self, width: usize) -> f64 {
        let rest = self.points.iter().filter(|(point, _)| *point >= width).map(|(_, change)| *change);
        let above = rest.fold(0.0, f64::max);
        let right = self.points.iter().position(|(point, _)| *point >= width);
        let (Some(right), Some(left)) = (right, right.and_then(|right| right.checked_sub(1))) else { return above };
        let ((x0, _), (x1, _)) = (self.points[left], self.points[right]);
        let below = self.points[left..].iter().map(|(_, change)| *change).fold(0.0, f64::max);
        above + (below - above) * (x1 - width) as f64 / (x1 - x0) as f64
    }
}

/// The budget cannot be met: even the narrowest network costs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSmall {
    /// What the narrowest network costs.
    pub smallest: u64,
}

/// Spends the budget evenly: every group about the same factor of its member width, but for the last steps.
///
/// # Errors
/// When the narrowest network costs more.
pub fn uniform(mut ledger: Ledger<'_>, ranges: &[Range], budget: Budget) -> Result<Vec<usize>, TooSmall> {
    begin(&mut ledger, ranges, budget)?;
    let at = |factor: f64| -> Vec<usize> {
        ranges.iter().map(|range| range.at_most((range.member as f64 * factor) as usize)).collect()
    };
    let most = ranges.iter().map(|range| range.most as f64 / range.member as f64).fold(1.0, f64::max);
    let (mut fits, mut too_much) = (0.0, most + 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(fits, too_much);
        ledger.set_all(&at(middle));
        if ledger.spent(budget.resource) <= budget.limit { fits = middle } else { too_much = middle }
    }
    ledger.set_all(&at(fits));
    grow(&mut ledger, ranges, budget, |_, group, width, _| width as f64 / ranges[group].member as f64);
    Ok(ledger.widths)
}

/// Spends the budget where it saves most: the group, and the width of its curve, that lower the change of the outputs most
/// for what they cost come first.
///
/// # Errors
/// When the narrowest network costs more.
pub fn by_sensitivity(
    mut ledger: Ledger<'_>,
    ranges: &[Range],
    budget: Budget,
    curves: &[Curve],
) -> Result<Vec<usize>, TooSmall> {
    begin(&mut ledger, ranges, budget)?;
    while let Some((group, width)) = best_leap(&ledger, ranges, budget, curves) {
        ledger.set(group, width);
    }
    grow(&mut ledger, ranges, budget, |ledger, group, width, next| {
        let gain = curves[group].at(width) - curves[group].at(next);
        -gain / ledger.extra(budget.resource, group, next).max(1) as f64
    });
    Ok(ledger.widths)
}

/// Sets every group to its least width.
fn begin(ledger: &mut Ledger<'_>, ranges: &[Range], budget: Budget) -> Result<(), TooSmall> {
    ledger.set_all(&ranges.iter().map(|range| range.least).collect::<Vec<_>>());
    let smallest = ledger.spent(budget.resource);
    if smallest > budget.limit { Err(TooSmall { smallest }) } else { Ok(()) }
}

/// The affordable point of a curve with the greatest gain for its costs.
fn best_leap(ledger: &Ledger<'_>, ranges: &[Range], budget: Budget, curves: &[Curve]) -> Option<(usize, usize)> {
    let mut best: Option<(f64, usize, usize)> = None;
    for (group, (range, curve)) in ranges.iter().zip(curves).enumerate() {
        let now = ledger.widths[group];
        let widths: BTreeSet<usize> = curve.points.iter().map(|(width, _)| range.at_most(*width)).collect();
        for width in widths.into_iter().filter(|width| *width > now) {
            let extra = ledger.extra(budget.resource, group, width);
            let gain = (curve.at(now) - curve.at(width)) / extra.max(1) as f64;
            if ledger.spent(budget.resource) + extra <= budget.limit
                && gain > 0.0
                && best.is_none_or(|(other, ..)| gain > other)
            {
                best = Some((gain, group, width));
            }
        }
    }
    best.map(|(_, group, width)| (group, width))
}

/// Widens, step by step, the group of the lowest `rank` (given the ledger, the group, its width and the next one), the
/// first among equals, until no step of any group fits.
fn grow(
    ledger: &mut Ledger<'_>,
    ranges: &[Range],
    budget: Budget,
    rank: impl Fn(&Ledger<'_>, usize, usize, usize) -> f64,
) {
    let mut open: BTreeSet<usize> = (0..ranges.len()).collect();
    loop {
        let steps = open.iter().filter_map(|&group| {
            let width = ledger.widths[group];
            let next = ranges[group].above(width)?;
            Some((rank(ledger, group, width, next), group, next))
        });
        let Some((_, group, next)) = steps.min_by(|a, b| a.0.total_cmp(&b.0)) else { return };
        if ledger.spent(budget.resource) + ledger.extra(budget.resource, group, next) <= budget.limit {
            ledger.set(group, next);
        } else {
            open.remove(&group);
        }
    }
}

/// A network's costs while the widths of its groups change.
#[derive(Debug)]
pub struct Ledger<'a> {
    graph: &'a Graph,
    couplings: &'a Couplings,
    precision: &'a Precision,
    /// Nodes whose weights a group's width changes.
    touched: Vec<Vec<NodeId>>,
    by_node: BTreeMap<NodeId, Costs>,
    total: Costs,
    widths: Vec<usize>,
}

impl<'a> Ledger<'a> {
    /// Of the network as it is.
    #[must_use]
    pub fn new(graph: &'a Graph, couplings: &'a Couplings, precision: &'a Precision) -> Self {
        let mut touched = vec![BTreeSet::new(); couplings.groups.len()];
        // What has no weights costs nothing.
        let costs = |id: &NodeId| graph.node(*id).op.has_parameters();
        for (id, axis) in couplings.rows.iter().chain(&couplings.columns).filter(|(id, _)| costs(id)) {
            for GroupId(group) in axis.groups() {
                touched[group].insert(*id);
            }
        }
        let touched = touched.into_iter().map(|nodes| nodes.into_iter().collect()).collect();
        let widths: Vec<usize> = couplings.groups.iter().map(|group| group.width).collect();
        let (by_node, total) = (BTreeMap::new(), Costs::default());
        let mut ledger = Self { graph, couplings, precision, touched, by_node, total, widths: Vec::new() };
        ledger.set_all(&widths);
        ledger
    }

    fn set_all(&mut self, widths: &[usize]) {
        self.widths = widths.to_vec();
        let nodes = self.graph.iter().filter(|(_, node)| node.op.has_parameters());
        self.by_node = nodes.map(|(id, _)| (id, self.costs(id, None))).collect();
        self.total = self.by_node.values().copied().sum();
    }

    fn set(&mut self, group: usize, width: usize) {
        self.widths[group] = width;
        for &id in &self.touched[group] {
            let costs = self.costs(id, None);
            self.by_node.insert(id, costs);
        }
        self.total = self.by_node.values().copied().sum();
    }

    fn spent(&self, resource: Resource) -> u64 {
        self.total.get(resource)
    }

    /// What `group` would cost more with `width` units.
    fn extra(&self, resource: Resource, group: usize, width: usize) -> u64 {
        let nodes = self.touched[group].iter();
        let costs = nodes.map(|id| (self.costs(*id, Some((group, width))), self.by_node[id]));
        let (new, old) = costs.fold((0, 0), |(new, old), (a, b)| (new + a.get(resource), old + b.get(resource)));
        new - old
    }

    /// Costs of one node, where `instead` is the width of one of the groups.
    fn costs(&self, id: NodeId, instead: Option<(usize, usize)>) -> Costs {
        let width = |GroupId(group): GroupId| match instead {
            Some((other, width)) if other == group => width,
            _ => self.widths[group],
        };
        let node = self.graph.node(id);
        let [input, output] = [&self.couplings.columns, &self.couplings.rows]
            .map(|axes| axes.get(&id).map_or(0, |axis| axis.len_with(width)));
        Costs::of_node(&parameters::resized(node, input, output), self.graph.shape(id), self.precision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_a_falling_line_through_its_points() {
        let curve = Curve { points: vec![(2, 0.5), (4, 0.6), (8, 0.0)] };
        for (width, expected) in [(1, 0.6), (2, 0.6), (3, 0.6), (4, 0.6), (6, 0.3), (7, 0.15), (8, 0.0), (9, 0.0)] {
            assert!((curve.at(width) - expected).abs() < 1e-12, "{width}: {}", curve.at(width));
        }
    }
}
