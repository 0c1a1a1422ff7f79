//! From places in a member's tensors to places in the fused network's tensors.

use crate::fusion::{Ensemble, Selection};
use crate::model::graph::NodeId;
use crate::model::groups::{Axis, Placed};
use crate::model::parameters::Role;

/// `len` neighbouring positions that go together from `source` in a member to `target` in the fused tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fusion) struct PositionRun {
    pub(in crate::fusion) source: usize,
    pub(in crate::fusion) target: usize,
    pub(in crate::fusion) len: usize,
}

/// Where the kept positions of each member's axis go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::fusion) struct Routes {
    /// For each member, ascending by target.
    pub(in crate::fusion) runs: Vec<Vec<PositionRun>>,
    /// Length of the fused axis.
    pub(in crate::fusion) len: usize,
}

impl Routes {
    /// Routes of the output axis of `node`.
    pub(in crate::fusion) fn rows(ensemble: &Ensemble<'_>, node: NodeId, selection: &Selection) -> Self {
        let axes: Vec<&Axis> = (0..ensemble.members().len()).map(|member| ensemble.rows(member, node)).collect();
        Self::of(&axes, selection)
    }

    /// Routes of the input axis of the dense `node`.
    pub(in crate::fusion) fn columns(ensemble: &Ensemble<'_>, node: NodeId, selection: &Selection) -> Self {
        let axes: Vec<&Axis> = (0..ensemble.members().len()).map(|member| ensemble.columns(member, node)).collect();
        Self::of(&axes, selection)
    }

    /// Routes of the rows of a tensor of `node` with this role (see [`crate::model::groups::Couplings::axes`]), and of its columns if it has some.
    pub(in crate::fusion) fn tensor(
        ensemble: &Ensemble<'_>,
        node: NodeId,
        role: Role,
        separate: bool,
        selection: &Selection,
    ) -> (Self, Option<Self>) {
        let axes: Vec<(Axis, Option<Axis>)> =
            ensemble.couplings().iter().map(|couplings| couplings.axes(node, role, separate)).collect();
        let rows: Vec<&Axis> = axes.iter().map(|(rows, _)| rows).collect();
        let columns: Option<Vec<&Axis>> = axes.iter().map(|(_, columns)| columns.as_ref()).collect();
        (Self::of(&rows, selection), columns.map(|columns| Self::of(&columns, selection)))
    }

    /// One member whose `len` positions stay where they are.
    pub(in crate::fusion) fn identity(len: usize) -> Self {
        Self { runs: vec![vec![PositionRun { source: 0, target: 0, len }]], len }
    }

    /// Segment by segment, members stacked within each; input and outputs are shared by all members.
    fn of(axes: &[&Axis], selection: &Selection) -> Self {
        let mut routes = Self { runs: vec![Vec::new(); axes.len()], len: 0 };
        let placed: Vec<Vec<Placed>> = axes.iter().map(|axis| axis.placed().collect()).collect();
        for index in 0..placed[0].len() {
            for (member, placed) in placed.iter().map(|placed| placed[index]).enumerate() {
                let Some(group) = placed.group() else {
                    routes.push(member, placed.start, routes.len, placed.segment.len());
                    continue;
                };
                for &unit in selection.kept_between(group, member, placed.units()) {
                    let source = placed.positions_of(unit);
                    routes.push(member, source.start, routes.len, source.len());
                    routes.len += source.len();
                }
            }
            if placed[0][index].group().is_none() {
                routes.len += placed[0][index].segment.len();
            }
        }
        routes
    }

    /// Adds positions, as part of the run before them where they continue it.
    fn push(&mut self, member: usize, source: usize, target: usize, len: usize) {
        match self.runs[member].last_mut() {
            Some(run) if run.source + run.len == source && run.target + run.len == target => run.len += len,
            _ => self.runs[member].push(PositionRun { source, target, len }),
        }
    }

    /// For every position of the fused axis that one member fills: that member and the position in it.
    pub(in crate::fusion) fn by_target(&self) -> Vec<(usize, usize)> {
        let mut places = vec![(0, 0); self.len];
        for (member, runs) in self.runs.iter().enumerate() {
            for run in runs {
                for offset in 0..run.len {
                    places[run.target + offset] = (member, run.source + offset);
                }
            }
        }
        places
    }
}
