//! The fused network: kept rows and columns of the members, side by side.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::fusion::provenance::Provenance;
use crate::fusion::routes::{Routes, Run};
use crate::fusion::score::{kernel_size, length};
use crate::fusion::{Ensemble, FusionError, Selection};
use crate::model::graph::{Graph, Node, NodeId, Op};
use crate::model::parameters::{self, Role};
use crate::tensors::{CheckpointError, StateDict};

/// A network made of members.
#[derive(Debug, Clone)]
pub struct Fused {
    /// What it computes.
    pub graph: Graph,
    /// Its weights, under the members' names.
    pub weights: StateDict,
    /// Where its units come from.
    pub provenance: Provenance,
}

/// The whole concatenated network: computes the mean of the members' outputs, weighted by their shares. Needs memory in
/// proportion to the square of the number of members.
///
/// # Errors
/// When weights cannot be read.
pub fn materialise(ensemble: &Ensemble<'_>) -> Result<Fused, FusionError> {
    gather(ensemble, &Selection::all(ensemble), |_, _| {})
}

/// Copies what `selection` keeps into a network of its own. Output layers are scaled by the members' shares and added up.
/// `progress` hears of (finished nodes, all nodes).
///
/// # Errors
/// When weights cannot be read.
pub fn gather(
    ensemble: &Ensemble<'_>,
    selection: &Selection,
    mut progress: impl FnMut(usize, usize),
) -> Result<Fused, FusionError> {
    let mut weights = StateDict::default();
    let graph = ensemble.graph();
    let mut widths = std::collections::BTreeMap::new();
    for (id, node) in graph.iter() {
        if node.op.has_parameters() {
            let layer = Layer::new(ensemble, selection, id);
            widths.insert(id, (layer.columns.as_ref().map_or(0, |columns| columns.len), layer.rows.len));
            layer.gather(&mut weights)?;
        }
        progress(id.0 + 1, graph.nodes().len());
    }
    let graph = parameters::with_widths(graph, |id, _| widths[&id])?;
    Ok(Fused { graph, weights, provenance: Provenance::of(ensemble, selection) })
}

/// One node with weights, on its way into the fused network.
struct Layer<'a> {
    ensemble: &'a Ensemble<'a>,
    id: NodeId,
    node: &'a Node,
    head: bool,
    rows: Routes,
    columns: Option<Routes>,
    inner: usize,
}

impl<'a> Layer<'a> {
    fn new(ensemble: &'a Ensemble<'a>, selection: &Selection, id: NodeId) -> Self {
        let node = ensemble.graph().node(id);
        let dense = !matches!(node.op, Op::BatchNorm { .. });
        Self {
            ensemble,
            id,
            node,
            head: ensemble.is_head(id),
            rows: Routes::rows(ensemble, id, selection),
            columns: dense.then(|| Routes::columns(ensemble, id, selection)),
            inner: kernel_size(&node.op),
        }
    }

    /// Gathers every tensor of the node.
    fn gather(&self, weights: &mut StateDict) -> Result<(), FusionError> {
        for parameter in parameters::of_node(self.node) {
            let members = self.members(&parameter.name)?;
            match &self.columns {
                Some(columns) if parameter.role == Role::Weight => {
                    let mut shape = parameter.shape.clone();
                    (shape[0], shape[1]) = (self.rows.len, columns.len);
                    weights.insert_f32(&parameter.name, &shape, self.matrix(&members, columns))?;
                }
                _ => weights.insert_f32(&parameter.name, &[self.rows.len], self.vector(&members))?,
            }
        }
        let counter = parameters::counter(&self.node.name);
        if let Some(count) = self.ensemble.members()[0].weights.counter(&counter) {
            weights.insert_counter(&counter, count)?;
        }
        Ok(())
    }

    /// The tensor `name` of every member.
    fn members(&self, name: &str) -> Result<Vec<Cow<'a, [f32]>>, CheckpointError> {
        self.ensemble.members().iter().map(|member| member.weights.f32(name)).collect()
    }

    /// Rows and columns of all members; zero where a row of one meets a column of another.
    fn matrix(&self, members: &[Cow<'_, [f32]>], columns: &Routes) -> Vec<f32> {
        let inner = self.inner;
        let row_len = columns.len * inner;
        let source_len: Vec<usize> =
            (0..members.len()).map(|member| length(self.ensemble.columns(member, self.id)) * inner).collect();
        let source =
            |member: usize, row: usize| &members[member][row * source_len[member]..(row + 1) * source_len[member]];
        let mut matrix = vec![0.0_f32; self.rows.len * row_len];
        if self.head {
            matrix.par_chunks_exact_mut(row_len).enumerate().for_each(|(row, target)| {
                for (member, share) in self.ensemble.shares().iter().enumerate() {
                    add_scaled(target, source(member, row), &columns.runs[member], inner, *share);
                }
            });
        } else {
            let places = self.rows.by_target();
            matrix.par_chunks_exact_mut(row_len).zip(places).for_each(|(target, (member, row))| {
                copy(target, source(member, row), &columns.runs[member], inner);
            });
        }
        matrix
    }

    /// One value per row.
    fn vector(&self, members: &[Cow<'_, [f32]>]) -> Vec<f32> {
        let mut vector = vec![0.0; self.rows.len];
        for (member, (runs, share)) in self.rows.runs.iter().zip(self.ensemble.shares()).enumerate() {
            if self.head {
                add_scaled(&mut vector, &members[member], runs, 1, *share);
            } else {
                copy(&mut vector, &members[member], runs, 1);
            }
        }
        vector
    }
}

/// Copies runs of positions of `inner` elements each.
fn copy(target: &mut [f32], source: &[f32], runs: &[Run], inner: usize) {
    for run in runs {
        let (from, to, len) = (run.source * inner, run.target * inner, run.len * inner);
        target[to..to + len].copy_from_slice(&source[from..from + len]);
    }
}

/// Adds runs of positions of `inner` elements each, times `share`.
fn add_scaled(target: &mut [f32], source: &[f32], runs: &[Run], inner: usize, share: f32) {
    for run in runs {
        let (from, to, len) = (run.source * inner, run.target * inner, run.len * inner);
        let pairs = target[to..to + len].iter_mut().zip(&source[from..from + len]);
        pairs.for_each(|(sum, value)| *sum += value * share);
    }
}
