//! The fused network: kept rows and columns of the members, side by side.

use crate::fusion::provenance::Provenance;
use crate::fusion::recipe::{Fused, Recipe, counters};
use crate::fusion::routes::{Routes, Run};
use crate::fusion::score::{kernel_size, length};
use crate::fusion::{Ensemble, FusionError, Selection};
use crate::model::graph::{Node, NodeId, Op};
use crate::model::groups::GroupId;
use crate::model::parameters::{self, Role};
use crate::tensors::{CheckpointError, Elements, Rows};

/// Elements per run below which positions are picked one by one: copying such short runs costs more.
const SHORT_RUN: usize = 8;

/// The whole concatenated network: computes the mean of the members' outputs, weighted by their shares. Needs memory in
/// proportion to the square of the number of members.
///
/// # Errors
/// When weights cannot be read.
pub fn materialise(ensemble: &Ensemble<'_>) -> Result<Fused, FusionError> {
    gather(ensemble, &Selection::all(ensemble))?.build()
}

/// Copies what `selection` keeps into a network of its own. Output layers are scaled by the members' shares and added up.
///
/// # Errors
/// When weights cannot be read.
pub fn gather<'a>(ensemble: &'a Ensemble<'a>, selection: &Selection) -> Result<Recipe<'a>, FusionError> {
    let mut tensors = Vec::new();
    let graph = ensemble.graph();
    let mut widths = std::collections::BTreeMap::new();
    for (id, node) in graph.iter().filter(|(_, node)| node.op.has_parameters()) {
        if matches!(node.op, Op::Attention { .. }) {
            widths.insert(id, keep_attention(ensemble, selection, id, &mut tensors)?);
            continue;
        }
        let layer = Layer::new(ensemble, selection, id);
        widths.insert(id, (layer.columns.as_ref().map_or(0, |columns| columns.len), layer.rows.len));
        for parameter in parameters::of_node(node) {
            tensors.push(match (&layer.columns, parameter.role) {
                (Some(columns), Role::Weight) if node.op.is_dense() => layer.matrix(parameter, columns)?,
                (_, Role::Embedding) => layer.embedding(parameter)?,
                _ if parameter.shape.len() > 1 => layer.kernels(parameter)?,
                _ => layer.vector(parameter)?,
            });
        }
    }
    let graph = parameters::with_widths(graph, |id, _| widths[&id])?;
    Ok(Recipe { graph, tensors, counters: counters(ensemble), provenance: Provenance::of(ensemble, selection) })
}

/// Copies the attention of an only member whose channels are all kept; returns its widths.
fn keep_attention<'a>(
    ensemble: &'a Ensemble<'a>,
    selection: &Selection,
    id: NodeId,
    tensors: &mut Vec<Rows<'a>>,
) -> Result<(usize, usize), FusionError> {
    let (graph, couplings) = (ensemble.graph(), &ensemble.couplings()[0]);
    let pruned = |group: &GroupId| ensemble.members().len() > 1 || selection.is_pruned(*group);
    let mut groups = (0..ensemble.groups()).map(GroupId).filter(pruned).filter(|group| couplings.touches(*group, id));
    if let Some(error) = groups.find_map(|group| couplings.attention(graph, group)) {
        return Err(error.into());
    }
    for parameters::Parameter { name, shape, .. } in parameters::of_node(graph.node(id)) {
        let values = ensemble.members()[0].weights.elements(&name)?;
        let fill = move |row: usize, target: &mut [f32]| values.copy_to(row * target.len(), target);
        tensors.push(Rows { name, shape, fill: Box::new(fill) });
    }
    let channels = graph.shape(id)[0];
    Ok((channels, channels))
}

/// One node with weights, on its way into the fused network.
struct Layer<'a> {
    ensemble: &'a Ensemble<'a>,
    id: NodeId,
    node: &'a Node,
    head: bool,
    rows: Routes,
    columns: Option<Routes>,
}

impl<'a> Layer<'a> {
    fn new(ensemble: &'a Ensemble<'a>, selection: &Selection, id: NodeId) -> Self {
        let node = ensemble.graph().node(id);
        let reads = node.op.is_dense() || node.op.convolution().is_some();
        Self {
            ensemble,
            id,
            node,
            head: ensemble.is_head(id),
            rows: Routes::rows(ensemble, id, selection),
            columns: reads.then(|| Routes::columns(ensemble, id, selection)),
        }
    }

    /// The tensor `name` of every member.
    fn members(&self, name: &str) -> Result<Vec<Elements<'a>>, CheckpointError> {
        self.ensemble.members().iter().map(|member| member.weights.elements(name)).collect()
    }

    /// Rows and columns of all members; zero where a row of one meets a column of another.
    fn matrix(&self, parameter: parameters::Parameter, columns: &Routes) -> Result<Rows<'a>, CheckpointError> {
        let inner = kernel_size(&self.node.op);
        let members = self.members(&parameter.name)?;
        let source_len: Vec<usize> =
            (0..members.len()).map(|member| length(self.ensemble.columns(member, self.id)) * inner).collect();
        let mut shape = parameter.shape;
        (shape[0], shape[1]) = (self.rows.len, columns.len);
        let picks: Vec<Pick> = columns.runs.iter().map(|runs| Pick::new(runs, inner)).collect();
        let fill: crate::tensors::Fill<'a> = if self.head {
            let shares = self.ensemble.shares();
            Box::new(move |row, target| {
                target.fill(0.0);
                for (member, pick) in picks.iter().enumerate() {
                    pick.add_scaled(
                        &members[member],
                        row * source_len[member],
                        source_len[member],
                        target,
                        shares[member],
                    );
                }
            })
        } else {
            let places = self.rows.by_target();
            Box::new(move |row, target| {
                let (member, row) = places[row];
                picks[member].copy(&members[member], row * source_len[member], source_len[member], target);
            })
        };
        Ok(Rows { name: parameter.name, shape, fill })
    }

    /// Kernels of grouped convolutions, and factors with axes of length 1: rows without columns.
    fn kernels(&self, parameter: parameters::Parameter) -> Result<Rows<'a>, CheckpointError> {
        let members = self.members(&parameter.name)?;
        let places = self.rows.by_target();
        let mut shape = parameter.shape;
        shape[0] = self.rows.len;
        let fill = move |row: usize, target: &mut [f32]| {
            let (member, row): (usize, usize) = places[row];
            members[member].copy_to(row * target.len(), target);
        };
        Ok(Rows { name: parameter.name, shape, fill: Box::new(fill) })
    }

    /// Tokens with one value per channel each, of shape (1 x tokens x channels).
    fn embedding(&self, parameter: parameters::Parameter) -> Result<Rows<'a>, CheckpointError> {
        let members = self.members(&parameter.name)?;
        let picks: Vec<Pick> = self.rows.runs.iter().map(|runs| Pick::new(runs, 1)).collect();
        let (mut shape, len) = (parameter.shape, self.rows.len);
        let tokens = shape[1];
        shape[2] = len;
        let fill = move |_, target: &mut [f32]| {
            for (token, target) in target.chunks_exact_mut(len).enumerate() {
                for (pick, values) in picks.iter().zip(&members) {
                    let own = values.len() / tokens;
                    pick.place(values, token * own, own, target);
                }
            }
        };
        Ok(Rows { name: parameter.name, shape, fill: Box::new(fill) })
    }

    /// One value per row.
    fn vector(&self, parameter: parameters::Parameter) -> Result<Rows<'a>, CheckpointError> {
        let members = self.members(&parameter.name)?;
        let picks: Vec<Pick> = self.rows.runs.iter().map(|runs| Pick::new(runs, 1)).collect();
        let (head, shares) = (self.head, self.ensemble.shares());
        let fill = move |_, target: &mut [f32]| {
            target.fill(0.0);
            for ((pick, values), share) in picks.iter().zip(&members).zip(shares) {
                if head {
                    pick.add_scaled(values, 0, values.len(), target, *share);
                } else {
                    pick.place(values, 0, values.len(), target);
                }
            }
        };
        Ok(Rows { name: parameter.name, shape: vec![self.rows.len], fill: Box::new(fill) })
    }
}

/// Which elements of a member's row go where in a fused row.
struct Pick {
    /// In elements.
    runs: Vec<Run>,
    /// Whether each run begins where the one before ends.
    joined: bool,
    /// For each element from the first run to the last, its source; where runs are joined and short.
    sources: Option<Vec<u32>>,
}

impl Pick {
    /// Runs of positions of `inner` elements each.
    fn new(runs: &[Run], inner: usize) -> Self {
        let in_elements =
            |run: &Run| Run { source: run.source * inner, target: run.target * inner, len: run.len * inner };
        let runs: Vec<Run> = runs.iter().map(in_elements).collect();
        let elements: usize = runs.iter().map(|run| run.len).sum();
        let joined = runs.windows(2).all(|pair| pair[0].target + pair[0].len == pair[1].target);
        let addressable = runs.iter().all(|run| u32::try_from(run.source + run.len).is_ok());
        let short = elements < runs.len() * SHORT_RUN;
        let sources = || runs.iter().flat_map(|run| (run.source..run.source + run.len).map(|at| at as u32)).collect();
        let sources = (short && joined && addressable).then(sources);
        Self { runs, joined, sources }
    }

    /// Where the runs begin and end in the fused row.
    fn span(&self) -> (usize, usize) {
        let end = |run: &Run| run.target + run.len;
        (self.runs.first().map_or(0, |run| run.target), self.runs.last().map_or(0, end))
    }

    /// The row of `len` elements from `first` on, with zeros around what is picked.
    fn copy(&self, source: &Elements<'_>, first: usize, len: usize, target: &mut [f32]) {
        let (begin, end) = if self.joined { self.span() } else { (0, 0) };
        target[..begin].fill(0.0);
        target[end..].fill(0.0);
        self.place(source, first, len, target);
    }

    /// Writes what is picked of the row of `len` elements from `first` on, and nothing else.
    fn place(&self, source: &Elements<'_>, first: usize, len: usize, target: &mut [f32]) {
        if let (Some(sources), Elements::Floats(values)) = (&self.sources, source) {
            let row = &values[first..first + len];
            let (begin, end) = self.span();
            for (value, &at) in target[begin..end].iter_mut().zip(sources) {
                *value = row[at as usize];
            }
            return;
        }
        for run in &self.runs {
            source.copy_to(first + run.source, &mut target[run.target..run.target + run.len]);
        }
    }

    /// Adds what is picked, times `share`.
    fn add_scaled(&self, source: &Elements<'_>, first: usize, len: usize, target: &mut [f32], share: f32) {
        let mut scratch = Vec::new();
        let row = source.slice(first, len, &mut scratch);
        for run in &self.runs {
            let pairs = target[run.target..run.target + run.len].iter_mut().zip(&row[run.source..run.source + run.len]);
            pairs.for_each(|(sum, value)| *sum += value * share);
        }
    }
}
