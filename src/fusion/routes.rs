//! From places in a member's tensors to places in the fused network's tensors.

use crate::fusion::{Ensemble, Selection};
use crate::model::graph::NodeId;
use crate::model::groups::{Axis, Owner};
use crate::model::parameters::Role;

/// `len` neighbouring positions that go together from `source` in a member to `target` in the fused tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) source: usize,
    pub(super) target: usize,
    pub(super) len: usize,
}

/// Where the kept positions of each member's axis go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Routes {
    /// For each member, ascending by target.
    pub(super) runs: Vec<Vec<Run>>,
    /// Length of the fused axis.
    pub(super) len: usize,
}

impl Routes {
    /// Routes of the output axis of `node`.
    pub(super) fn rows(ensemble: &Ensemble<'_>, node: NodeId, selection: &Selection) -> Self {
        let axes: Vec<&Axis> = (0..ensemble.members().len()).map(|member| ensemble.rows(member, node)).collect();
        Self::of(&axes, selection)
    }

    /// Routes of the input axis of the dense `node`.
    pub(super) fn columns(ensemble: &Ensemble<'_>, node: NodeId, selection: &Selection) -> Self {
        let axes: Vec<&Axis> = (0..ensemble.members().len()).map(|member| ensemble.columns(member, node)).collect();
        Self::of(&axes, selection)
    }

    /// Routes of the rows of a tensor of `node` with this role (see [`crate::model::groups::Couplings::axes`]), and of its columns if it has some.
    pub(super) fn tensor(
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
    pub(super) fn identity(len: usize) -> Self {
        Self { runs: vec![vec![Run { source: 0, target: 0, len }]], len }
    }

    /// Segment by segment, members stacked within each; input and outputs are shared by all members.
    fn of(axes: &[&Axis], selection: &Selection) -> Self {
        let mut routes = Self { runs: vec![Vec::new(); axes.len()], len: 0 };
        let mut sources = vec![0; axes.len()];
        for index in 0..axes[0].len() {
            for (member, axis) in axes.iter().enumerate() {
                let segment = axis[index];
                if let Owner::Group(group) = segment.owner {
                    let units = selection.kept_between(group, member, segment.first, segment.first + segment.units);
                    for &unit in units {
                        let source = sources[member] + (unit - segment.first) * segment.repeat;
                        routes.push(member, source, routes.len, segment.repeat);
                        routes.len += segment.repeat;
                    }
                } else {
                    routes.push(member, sources[member], routes.len, segment.len());
                }
                sources[member] += segment.len();
            }
            if !matches!(axes[0][index].owner, Owner::Group(_)) {
                routes.len += axes[0][index].len();
            }
        }
        routes
    }

    /// Adds positions, as part of the run before them where they continue it.
    fn push(&mut self, member: usize, source: usize, target: usize, len: usize) {
        match self.runs[member].last_mut() {
            Some(run) if run.source + run.len == source && run.target + run.len == target => run.len += len,
            _ => self.runs[member].push(Run { source, target, len }),
        }
    }

    /// For every position of the fused axis that one member fills: that member and the position in it.
    pub(super) fn by_target(&self) -> Vec<(usize, usize)> {
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
