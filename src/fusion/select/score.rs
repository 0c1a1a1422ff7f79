//! How much a unit matters.

use rayon::prelude::*;

use crate::fusion::select::squares;
use crate::fusion::{Ensemble, FusionError, Member, Scores, Selection};
use crate::model::graph::{NodeId, Op};
use crate::model::groups::{Axis, GroupId, Owner};
use crate::model::parameters::{self, Role};
use crate::tensors::Elements;

/// The paper's importance: mean over the group's tensors of the sum of squares of the unit's slice, on what `selection`
/// has left. Counted are rows of producers, columns of consumers (the output layer's scaled by the member's share),
/// factors of normalisations and layer scales, and kernels of grouped convolutions, whose inputs and outputs are one
/// unit; of heads their queries, keys and values as one tensor, and what reads them; biases, embeddings and running statistics are not.
///
/// # Errors
/// When weights cannot be read.
pub fn magnitude(ensemble: &Ensemble<'_>, selection: &Selection, group: GroupId) -> Result<Scores, FusionError> {
    of_members(ensemble, selection, group, Norm::Squares)
}

/// As [`magnitude`], with amounts in place of squares.
///
/// # Errors
/// When weights cannot be read.
pub fn l1(ensemble: &Ensemble<'_>, selection: &Selection, group: GroupId) -> Result<Scores, FusionError> {
    of_members(ensemble, selection, group, Norm::Amounts)
}

fn of_members(
    ensemble: &Ensemble<'_>,
    selection: &Selection,
    group: GroupId,
    norm: Norm,
) -> Result<Scores, FusionError> {
    (0..ensemble.members().len())
        .into_par_iter()
        .map(|member| View { ensemble, selection, member, norm }.score(group))
        .collect()
}

/// What is added up over a unit's slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Norm {
    /// w².
    Squares,
    /// |w|, as the square of its root, so that one set of sums serves both.
    Amounts,
}

/// One member within an ensemble that is being pruned.
#[derive(Clone, Copy)]
struct View<'a> {
    ensemble: &'a Ensemble<'a>,
    selection: &'a Selection,
    member: usize,
    norm: Norm,
}

impl View<'_> {
    fn score(self, group: GroupId) -> Result<Vec<f64>, FusionError> {
        let tied = self.ensemble.couplings()[self.member].group(group);
        let mut sums = vec![0.0; tied.width];
        let couplings = &self.ensemble.couplings()[self.member];
        if let Some(id) = couplings.attention_of(group) {
            let (rows, _) = couplings.axes(id, Role::Projection, false);
            add_positions(&mut sums, &rows, group, &self.row_squares(id, Role::Projection)?);
            add_positions(&mut sums, &couplings.attentions[&id], group, &self.column_squares(id, Role::OutputWeight)?);
            return Ok(sums.into_iter().map(|sum| sum / 2.0).collect());
        }
        for &node in &tied.producers {
            add_positions(
                &mut sums,
                self.ensemble.rows(self.member, node),
                group,
                &self.row_squares(node, Role::OutputWeight)?,
            );
        }
        for &node in &tied.consumers {
            add_positions(
                &mut sums,
                self.ensemble.columns(self.member, node),
                group,
                &self.column_squares(node, Role::Projection)?,
            );
        }
        let mut counted = tied.producers.len() + tied.consumers.len();
        for &node in tied.channelwise.iter().filter(|node| self.has_factors(**node)) {
            let weight = self.weight(node)?;
            let rows = self.ensemble.rows(self.member, node);
            let squares = squares::of_rows(&weight, weight.len() / rows.len(), None);
            add_positions(&mut sums, rows, group, &squares);
            counted += 1;
        }
        Ok(sums.into_iter().map(|sum| sum / counted as f64).collect())
    }

    /// For every row of a producer: the sum of squares over the columns that are left; of an attention, of its tensors
    /// with this role.
    fn row_squares(self, node: NodeId, role: Role) -> Result<Vec<f64>, FusionError> {
        let (role, weight) = self.matrix(node, role)?;
        let (_, columns) = self.ensemble.couplings()[self.member].axes(node, role, false);
        let (columns, inner) = (columns.unwrap_or_default(), self.inner(node));
        let mask = self.mask(&columns, inner);
        Ok(squares::of_rows(&weight, columns.len() * inner, mask.as_deref()))
    }

    /// For every column of a consumer: the sum of squares over the rows that are left; of an attention, of its tensors with
    /// this role.
    fn column_squares(self, node: NodeId, role: Role) -> Result<Vec<f64>, FusionError> {
        let (role, weight) = self.matrix(node, role)?;
        let (rows, columns) = self.ensemble.couplings()[self.member].axes(node, role, false);
        let inner = self.inner(node);
        let row_len = columns.unwrap_or_default().len() * inner;
        let rows = self.positions(&rows);
        let shares = self.ensemble.shares();
        let factor = |class: usize| {
            let share = f64::from(shares.of(self.member, class).abs() as f32);
            if self.norm == Norm::Squares { share * share } else { share }
        };
        let columns = |rows: &[usize], factor: f64| {
            let elements = squares::of_columns(&weight, row_len, rows);
            let each = elements.chunks_exact(inner).map(|column| column.iter().sum::<f64>() * factor);
            each.collect::<Vec<f64>>()
        };
        Ok(match self.ensemble.is_output_layer(node) {
            false => columns(&rows, 1.0),
            true if !shares.weigh_classes() => columns(&rows, factor(0)),
            true => rows.iter().fold(vec![0.0; row_len / inner], |mut sums, class| {
                let own = columns(&[*class], factor(*class));
                sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
                sums
            }),
        })
    }

    /// The node's matrix or kernels; of an attention its tensors with this role on top of each other.
    fn matrix(&self, node: NodeId, role: Role) -> Result<(Role, Elements<'_>), FusionError> {
        let Member { graph, weights } = self.ensemble.members()[self.member];
        if !matches!(graph.node(node).op, Op::Attention { .. }) {
            return Ok((Role::Weight, self.weight(node)?));
        }
        let names = parameters::of_node(graph.node(node)).into_iter().filter(|tensor| tensor.role == role);
        let parts: Vec<_> = names.map(|tensor| weights.f32(&tensor.name)).collect::<Result<_, _>>()?;
        let mut values = parts.concat();
        if self.norm == Norm::Amounts {
            for weight in &mut values {
                *weight = weight.abs().sqrt();
            }
        }
        Ok((role, Elements::Floats(values.into())))
    }

    /// Whether the node's first tensor multiplies; an embedding is added.
    fn has_factors(self, node: NodeId) -> bool {
        !matches!(self.ensemble.graph().node(node).op, Op::ClassToken { .. } | Op::PositionalEmbedding { .. })
    }

    /// The node's first tensor: its matrix, kernels or factors.
    fn weight(&self, node: NodeId) -> Result<Elements<'_>, FusionError> {
        let Member { graph, weights } = self.ensemble.members()[self.member];
        let first = parameters::of_node(graph.node(node)).into_iter().next();
        let name = first.map(|tensor| tensor.name).unwrap_or_default();
        Ok(match self.norm {
            Norm::Squares => weights.elements(&name)?,
            Norm::Amounts => {
                let roots: Vec<f32> = weights.f32(&name)?.iter().map(|weight| weight.abs().sqrt()).collect();
                Elements::Floats(roots.into())
            }
        })
    }

    /// Elements per input channel of a row: the size of the kernel.
    fn inner(self, node: NodeId) -> usize {
        self.ensemble.graph().node(node).op.taps()
    }

    /// The positions of an axis that are left.
    fn positions(self, axis: &Axis) -> Vec<usize> {
        let mut left = Vec::new();
        for placed in axis.placed() {
            match placed.group() {
                Some(group) => {
                    let kept = self.selection.kept_between(group, self.member, placed.units());
                    left.extend(kept.iter().flat_map(|unit| placed.positions_of(*unit)));
                }
                None => left.extend(placed.positions()),
            }
        }
        left
    }

    /// 1 for every element of a row that is left, 0 for the others; `None` where nothing was pruned.
    fn mask(self, columns: &Axis, inner: usize) -> Option<Vec<f32>> {
        columns.groups().any(|group| self.selection.is_pruned(group)).then(|| {
            let mut mask = vec![0.0; columns.len() * inner];
            for position in self.positions(columns) {
                mask[position * inner..(position + 1) * inner].fill(1.0);
            }
            mask
        })
    }
}

/// Adds `values`, one per position of `axis`, to the units of `group` that stand there.
fn add_positions(sums: &mut [f64], axis: &Axis, group: GroupId, values: &[f64]) {
    for placed in axis.placed_of(Owner::Group(group)) {
        for unit in placed.units() {
            sums[unit] += values[placed.positions_of(unit)].iter().sum::<f64>();
        }
    }
}
