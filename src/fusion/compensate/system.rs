//! The least-squares system of one layer: which rows of features and targets it is made of, and what its solution makes of
//! the layer's weights.

use std::borrow::Cow;

use rayon::prelude::*;

use super::solve::{LayerFit, Solution};
use crate::cost::calibration::MOST_UNKNOWNS;
use crate::fusion::assemble::routes::Routes;
use crate::fusion::calibration::{
    LayerwiseNetwork, RunningBatch, Sampling, channels, channels_and_size, flattened, kernels_last, picks, windows,
};
use crate::fusion::{Ensemble, FusionError, Selection};
use crate::kernels::{Matrix, Workspace, layout, matmul};
use crate::model::graph::{Graph, NodeId, Op, Window};
use crate::model::parameters::Role;
use crate::settings::Convolutions;

/// What the unknowns are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknowns {
    /// Every channel of a position, or feature of a vector.
    Features,
    /// Every element under a window.
    Windows(Window),
    /// Every element under a window in one group of channels: a system for each group, `width` channels to `outputs`. Of a
    /// depthwise convolution these are the taps of a channel's own kernel; where that is a single one, a scale is all.
    Groups { window: Window, width: usize, outputs: usize },
    /// Channels of an image, the same for all `taps` of the kernel.
    Channels { taps: usize },
    /// Channels of a flattened image of `repeat` positions, the same for all positions.
    Flattened { repeat: usize },
}

/// Which weights of a layer are refitted at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WeightSet {
    /// All of them.
    Whole,
    /// Queries, keys and values of an attention, which read what it reads.
    Projection,
    /// The output of an attention, which reads its heads.
    Output,
}

impl WeightSet {
    /// The parts of an operation, in order of computation.
    pub(super) fn of(op: &Op) -> &'static [Self] {
        if matches!(op, Op::Attention { .. }) { &[Self::Projection, Self::Output] } else { &[Self::Whole] }
    }

    /// Roles of its weights and of its biases.
    pub(super) fn roles(self) -> [Role; 2] {
        match self {
            Self::Whole => [Role::Weight, Role::Bias],
            Self::Projection => [Role::Projection, Role::ProjectionBias],
            Self::Output => [Role::OutputWeight, Role::OutputBias],
        }
    }
}

/// One layer to refit.
#[derive(Debug)]
pub(super) struct System<'a> {
    ensemble: &'a Ensemble<'a>,
    pub(super) id: NodeId,
    pub(super) part: WeightSet,
    pub(super) kind: Unknowns,
    /// Unknowns per row.
    pub(super) unknowns: usize,
    /// Kept rows of each member: (row of the member, row of the fused layer).
    pub(super) rows: Vec<Vec<(usize, usize)>>,
    /// Rows of the fused layer.
    pub(super) outputs: usize,
    writes_output: bool,
    pub(super) input: NodeId,
}

/// Rows of features and of targets, in the same order.
#[derive(Debug)]
pub(super) struct SystemRows {
    pub(super) features: Vec<f32>,
    pub(super) targets: Vec<f32>,
}

/// A refitted layer: its weight in the order out x kernel x in, its bias.
#[derive(Debug)]
pub(super) struct Refit {
    pub(super) weight: Vec<f32>,
    /// What the fit adds to each output, beside the bias that the layer had.
    pub(super) shift: Vec<f64>,
}

impl<'a> System<'a> {
    /// The system of a `part` of the node `id` of the fused network `graph`, or why there is none.
    pub(super) fn new(
        ensemble: &'a Ensemble<'a>,
        selection: &Selection,
        graph: &Graph,
        id: NodeId,
        part: WeightSet,
        convolutions: Convolutions,
    ) -> Result<Self, String> {
        let (kind, unknowns) = kind(ensemble, graph, id, convolutions);
        if unknowns > MOST_UNKNOWNS {
            return Err(format!("it has {unknowns} unknowns per row, more than {MOST_UNKNOWNS}"));
        }
        let routes = match part {
            WeightSet::Projection => Routes::tensor(ensemble, id, Role::Projection, false, selection).0,
            WeightSet::Whole | WeightSet::Output => Routes::rows(ensemble, id, selection),
        };
        let pairs = |runs: &Vec<crate::fusion::assemble::routes::PositionRun>| {
            runs.iter().flat_map(|run| (0..run.len).map(|at| (run.source + at, run.target + at))).collect()
        };
        Ok(Self {
            ensemble,
            id,
            part,
            kind,
            unknowns,
            rows: routes.runs.iter().map(pairs).collect(),
            outputs: routes.len,
            writes_output: ensemble.is_output_layer(id),
            input: graph.node(id).inputs[0],
        })
    }

    /// Whether the targets are the members' channels that the layer reads, not its outputs.
    pub(super) fn reads_channels(&self) -> bool {
        matches!(self.kind, Unknowns::Channels { .. } | Unknowns::Flattened { .. })
    }

    /// Whether every feature of a vector is an unknown of its own.
    pub(super) fn is_plain(&self) -> bool {
        self.kind == Unknowns::Features
    }

    /// Number of systems, which have the same sizes.
    pub(super) fn count(&self) -> usize {
        if let Unknowns::Groups { outputs, .. } = self.kind { self.outputs / outputs } else { 1 }
    }

    /// Number of targets of a system.
    pub(super) fn targets(&self) -> usize {
        match self.kind {
            Unknowns::Channels { .. } | Unknowns::Flattened { .. } => self.widths().iter().sum(),
            Unknowns::Groups { outputs, .. } => outputs,
            Unknowns::Features | Unknowns::Windows(_) => self.outputs,
        }
    }

    /// Channels that the layer reads, member by member.
    pub(super) fn widths(&self) -> Vec<usize> {
        let repeat = if let Unknowns::Flattened { repeat } = self.kind { repeat } else { 1 };
        let members = 0..self.ensemble.members().len();
        members.map(|member| self.ensemble.columns(member, self.id).len() / repeat).collect()
    }

    /// For each system, rows of features (those of the fused network, which is at `fused` among the networks) and targets
    /// (the members', which are the first) of one batch, in which all nodes before the layer are computed.
    pub(super) fn gather(
        &self,
        batch: &mut RunningBatch,
        networks: &[LayerwiseNetwork<'_>],
        fused: usize,
        sampling: &Sampling,
        work: &mut Workspace<f32>,
    ) -> Result<Vec<SystemRows>, FusionError> {
        let mut x = Cow::Borrowed(batch.value(fused, self.input)?);
        if self.part == WeightSet::Output {
            x = Cow::Owned(networks[fused].mixed(self.id, &x, work));
        }
        let x = &*x;
        let (_, size) = channels_and_size(networks[fused].graph(), self.id);
        let places = match self.kind {
            Unknowns::Windows(_) | Unknowns::Groups { .. } => {
                sampling.positions(size[0] * size[1], self.id, batch.index)
            }
            Unknowns::Features | Unknowns::Channels { .. } => sampling.positions(x.positions(), self.id, batch.index),
            Unknowns::Flattened { repeat } => sampling.positions(repeat, self.id, batch.index),
        };
        if let Unknowns::Groups { window, width, outputs } = self.kind {
            let of_group = |group: usize| {
                let mut features = Vec::new();
                windows(x, &window, size, &places, &(group * width..(group + 1) * width), &mut features);
                features
            };
            let features: Vec<Vec<f32>> = (0..self.count()).into_par_iter().map(of_group).collect();
            let rows = features.first().map_or(0, |features| features.len() / self.unknowns.max(1));
            let all = self.output_targets(batch, networks, &places, rows, work)?;
            let targets = |group: usize| {
                let rows = all.chunks_exact(self.outputs.max(1));
                rows.flat_map(|row| &row[group * outputs..(group + 1) * outputs]).copied().collect()
            };
            let pairs = features.into_par_iter().enumerate();
            return Ok(pairs.map(|(group, features)| SystemRows { features, targets: targets(group) }).collect());
        }
        let mut features = Vec::new();
        match &self.kind {
            Unknowns::Windows(window) => windows(x, window, size, &places, &(0..x.channels), &mut features),
            Unknowns::Flattened { repeat } => flattened(x, *repeat, &places, &mut features),
            _ => channels(x, &places, &mut features),
        }
        let rows = features.len() / self.unknowns.max(1);
        let targets = if self.reads_channels() {
            self.channel_targets(batch, &places, rows)?
        } else {
            self.output_targets(batch, networks, &places, rows, work)?
        };
        Ok(vec![SystemRows { features, targets }])
    }

    /// The channels of all members, side by side.
    fn channel_targets(&self, batch: &RunningBatch, places: &[usize], rows: usize) -> Result<Vec<f32>, FusionError> {
        let width = self.targets();
        let mut targets = vec![0.0; rows * width];
        let mut offset = 0;
        let mut own = Vec::new();
        for (member, count) in self.widths().into_iter().enumerate() {
            let value = batch.value(member, self.input)?;
            own.clear();
            match self.kind {
                Unknowns::Flattened { repeat } => flattened(value, repeat, places, &mut own),
                _ => channels(value, places, &mut own),
            }
            for (target, source) in targets.chunks_exact_mut(width.max(1)).zip(own.chunks_exact(count.max(1))) {
                target[offset..offset + count].copy_from_slice(source);
            }
            offset += count;
        }
        Ok(targets)
    }

    /// The kept outputs of the members; for an output layer, their mean by the members' shares.
    fn output_targets(
        &self,
        batch: &mut RunningBatch,
        networks: &[LayerwiseNetwork<'_>],
        places: &[usize],
        rows: usize,
        work: &mut Workspace<f32>,
    ) -> Result<Vec<f32>, FusionError> {
        let mut targets = vec![0.0; rows * self.outputs];
        for (member, pairs) in self.rows.iter().enumerate() {
            if self.part == WeightSet::Projection {
                let qkv = networks[member].projected(self.id, batch.value(member, self.input)?, work);
                picks(&qkv, places, pairs, |_| 1.0, self.outputs, &mut targets);
                continue;
            }
            batch.advance(member, &networks[member], NodeId(self.id.0 + 1), work);
            let factor = |row: usize| self.share(member, row);
            picks(batch.value(member, self.id)?, places, pairs, factor, self.outputs, &mut targets);
        }
        Ok(targets)
    }

    /// The factor of a member's `row` in the layer's outputs.
    pub(super) fn share(&self, member: usize, row: usize) -> f32 {
        if self.writes_output { self.ensemble.shares().of(member, row) as f32 } else { 1.0 }
    }

    /// What the solution makes of the layer. `biases` are the members' own, which the targets of full systems hold already.
    pub(super) fn refit(&self, fit: &LayerFit, networks: &[LayerwiseNetwork<'_>]) -> Refit {
        let solution = &fit.solutions[0];
        match self.kind {
            Unknowns::Features | Unknowns::Windows(_) | Unknowns::Groups { .. } => {
                let all = || fit.solutions.iter();
                Refit {
                    weight: all().flat_map(|solution| &solution.weight).map(|weight| *weight as f32).collect(),
                    shift: all().flat_map(|solution| &solution.bias).copied().collect(),
                }
            }
            Unknowns::Channels { taps } => self.through_channels(solution, networks, taps),
            Unknowns::Flattened { repeat } => {
                let refit = self.through_channels(solution, networks, repeat);
                let mut weight = vec![0.0; refit.weight.len()];
                layout::channels_first(self.unknowns, repeat, &refit.weight, &mut weight, false);
                Refit { weight, ..refit }
            }
        }
    }

    /// Whether [`Refit::shift`] holds the layer's whole bias, not only what is added to it.
    pub(super) fn fits_bias(&self) -> bool {
        !self.reads_channels()
    }

    /// The members' kept rows behind a matrix from the fused channels to theirs.
    fn through_channels(&self, solution: &Solution, networks: &[LayerwiseNetwork<'_>], taps: usize) -> Refit {
        let mut weight = vec![0.0_f64; self.outputs * taps * self.unknowns];
        let mut shift = vec![0.0; self.outputs];
        let mut offset = 0;
        for (member, count) in self.widths().into_iter().enumerate() {
            let matrix = &solution.weight[offset * self.unknowns..(offset + count) * self.unknowns];
            let constants = &solution.bias[offset..offset + count];
            offset += count;
            let own = self.member_weight(&networks[member], count, taps);
            let kept = &self.rows[member];
            let source: Vec<f64> = kept
                .iter()
                .flat_map(|(row, _)| &own[row * taps * count..(row + 1) * taps * count])
                .map(|weight| f64::from(*weight))
                .collect();
            let mut product = vec![0.0; kept.len() * taps * self.unknowns];
            let threads =
                std::num::NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(std::num::NonZeroUsize::MIN);
            let rows = Matrix::new(&source, kept.len() * taps, count);
            matmul(threads, rows, Matrix::new(matrix, count, self.unknowns), &mut product, false);
            for (index, (of_member, row)) in kept.iter().enumerate() {
                let (len, share) = (taps * self.unknowns, f64::from(self.share(member, *of_member)));
                let from = &product[index * len..(index + 1) * len];
                weight[row * len..(row + 1) * len].iter_mut().zip(from).for_each(|(sum, part)| *sum += share * part);
                let taps_of = source[index * taps * count..(index + 1) * taps * count].chunks_exact(count.max(1));
                let constant: f64 = taps_of.map(|tap| tap.iter().zip(constants).map(|(w, c)| w * c).sum::<f64>()).sum();
                shift[*row] += share * constant;
            }
        }
        Refit { weight: weight.into_iter().map(|weight| weight as f32).collect(), shift }
    }

    /// A member's weight in the order out x taps x in.
    fn member_weight<'n>(&self, network: &'n LayerwiseNetwork<'_>, channels: usize, taps: usize) -> Cow<'n, [f32]> {
        let weight = network.weight(self.id);
        if matches!(self.kind, Unknowns::Flattened { .. }) {
            let window = Window::square(1, 1, 0);
            return kernels_last(channels, &Window { kernel: [taps, 1], ..window }, weight.into());
        }
        weight.into()
    }
}

/// What the unknowns of a layer are, and how many per row.
fn kind(ensemble: &Ensemble<'_>, graph: &Graph, id: NodeId, convolutions: Convolutions) -> (Unknowns, usize) {
    let op = &graph.node(id).op;
    let Some(conv) = op.convolution() else {
        // An attention has as many channels between its projections as before them.
        let features = graph.shape(graph.node(id).inputs[0])[0];
        let repeat = if matches!(op, Op::Linear { .. }) { repeat(ensemble, id) } else { None };
        let repeat = repeat.filter(|repeat| *repeat > 1 && features > MOST_UNKNOWNS);
        return repeat
            .map_or((Unknowns::Features, features), |repeat| (Unknowns::Flattened { repeat }, features / repeat));
    };
    let taps = conv.window.kernel[0] * conv.window.kernel[1];
    let unknowns = conv.inputs_of_one() * taps;
    let full = taps == 1 || convolutions == Convolutions::Full && unknowns <= MOST_UNKNOWNS;
    match conv.group_width {
        Some(width) => {
            let outputs = conv.out_channels / conv.groups();
            (Unknowns::Groups { window: conv.window, width, outputs }, unknowns)
        }
        None if full => (Unknowns::Windows(conv.window), unknowns),
        None => (Unknowns::Channels { taps }, conv.in_channels),
    }
}

/// Positions per unit on the layer's input axis, where all units have equally many.
fn repeat(ensemble: &Ensemble<'_>, id: NodeId) -> Option<usize> {
    let columns = ensemble.columns(0, id).segments();
    let first = columns.first()?.repeat;
    columns.iter().all(|segment| segment.repeat == first).then_some(first)
}
