//! How much a unit matters.

use rayon::prelude::*;

use crate::fusion::{Ensemble, FusionError, Member, Selection, squares};
use crate::model::graph::{NodeId, Op};
use crate::model::groups::{Axis, GroupId, Owner};
use crate::tensors::Elements;

/// One group's scores, by member and unit.
pub type Scores = Vec<Vec<f64>>;

/// The paper's importance: mean over the group's tensors of the sum of squares of the unit's slice, on what `selection`
/// has left. Counted are rows of producers, columns of consumers (the output layer's scaled by the member's share) and
/// factors of normalisations; biases and running statistics are not.
///
/// # Errors
/// When weights cannot be read.
pub fn magnitude(ensemble: &Ensemble<'_>, selection: &Selection, group: GroupId) -> Result<Scores, FusionError> {
    (0..ensemble.members().len())
        .into_par_iter()
        .map(|member| View { ensemble, selection, member }.magnitude(group))
        .collect()
}

/// One member within an ensemble that is being pruned.
#[derive(Clone, Copy)]
struct View<'a> {
    ensemble: &'a Ensemble<'a>,
    selection: &'a Selection,
    member: usize,
}

impl View<'_> {
    fn magnitude(self, group: GroupId) -> Result<Vec<f64>, FusionError> {
        let tied = self.ensemble.couplings()[self.member].group(group);
        let mut sums = vec![0.0; tied.width];
        for &node in &tied.producers {
            add_positions(&mut sums, self.ensemble.rows(self.member, node), group, &self.row_squares(node)?);
        }
        for &node in &tied.consumers {
            add_positions(&mut sums, self.ensemble.columns(self.member, node), group, &self.column_squares(node)?);
        }
        for &node in &tied.norms {
            let factors = self.weight(node)?;
            let squares = squares::of_rows(&factors, 1, None);
            add_positions(&mut sums, self.ensemble.rows(self.member, node), group, &squares);
        }
        let counted = tied.producers.len() + tied.consumers.len() + tied.norms.len();
        Ok(sums.into_iter().map(|sum| sum / counted as f64).collect())
    }

    /// For every row of a producer: the sum of squares over the columns that are left.
    fn row_squares(self, node: NodeId) -> Result<Vec<f64>, FusionError> {
        let weight = self.weight(node)?;
        let columns = self.ensemble.columns(self.member, node);
        let inner = self.inner(node);
        let mask = self.mask(columns, inner);
        Ok(squares::of_rows(&weight, length(columns) * inner, mask.as_deref()))
    }

    /// For every column of a consumer: the sum of squares over the rows that are left.
    fn column_squares(self, node: NodeId) -> Result<Vec<f64>, FusionError> {
        let weight = self.weight(node)?;
        let inner = self.inner(node);
        let row_len = length(self.ensemble.columns(self.member, node)) * inner;
        let rows = self.positions(self.ensemble.rows(self.member, node));
        let share = if self.ensemble.is_head(node) { f64::from(self.ensemble.shares()[self.member]) } else { 1.0 };
        let elements = squares::of_columns(&weight, row_len, &rows);
        Ok(elements.chunks_exact(inner).map(|column| column.iter().sum::<f64>() * share * share).collect())
    }

    fn weight(&self, node: NodeId) -> Result<Elements<'_>, FusionError> {
        let Member { graph, weights } = self.ensemble.members()[self.member];
        Ok(weights.elements(&format!("{}.weight", graph.node(node).name))?)
    }

    /// Elements per input channel of a row: the size of the kernel.
    fn inner(self, node: NodeId) -> usize {
        kernel_size(&self.ensemble.graph().node(node).op)
    }

    /// The positions of an axis that are left.
    fn positions(self, axis: &Axis) -> Vec<usize> {
        let mut left = Vec::new();
        let mut start = 0;
        for segment in axis {
            match segment.owner {
                Owner::Group(group) => {
                    let end = segment.first + segment.units;
                    for unit in self.selection.kept_between(group, self.member, segment.first, end) {
                        let at = start + (unit - segment.first) * segment.repeat;
                        left.extend(at..at + segment.repeat);
                    }
                }
                Owner::Input | Owner::Output => left.extend(start..start + segment.len()),
            }
            start += segment.len();
        }
        left
    }

    /// 1 for every element of a row that is left, 0 for the others; `None` where nothing was pruned.
    fn mask(self, columns: &Axis, inner: usize) -> Option<Vec<f32>> {
        let pruned = |owner| matches!(owner, Owner::Group(group) if self.selection.is_pruned(group));
        columns.iter().any(|segment| pruned(segment.owner)).then(|| {
            let mut mask = vec![0.0; length(columns) * inner];
            for position in self.positions(columns) {
                mask[position * inner..(position + 1) * inner].fill(1.0);
            }
            mask
        })
    }
}

/// Size of the kernel of a dense operation; 1 for matrices.
pub(super) fn kernel_size(op: &Op) -> usize {
    match op {
        Op::Conv2d { window, .. } => window.kernel[0] * window.kernel[1],
        _ => 1,
    }
}

/// Number of positions of an axis.
pub(super) fn length(axis: &Axis) -> usize {
    axis.iter().map(crate::model::groups::Segment::len).sum()
}

/// Adds `values`, one per position of `axis`, to the units of `group` that stand there.
fn add_positions(sums: &mut [f64], axis: &Axis, group: GroupId, values: &[f64]) {
    let mut start = 0;
    for segment in axis {
        if segment.owner == Owner::Group(group) {
            let positions = values[start..start + segment.len()].chunks_exact(segment.repeat);
            for (unit, values) in positions.enumerate() {
                sums[segment.first + unit] += values.iter().sum::<f64>();
            }
        }
        start += segment.len();
    }
}
