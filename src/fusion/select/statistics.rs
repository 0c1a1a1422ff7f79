//! Second moments of the activations of every coupling group, over all members' units.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::readers::{ReaderPass, elements, read_axis};
use crate::cost::calibration::{largest_activation, to_rank};
use crate::exec::statistics::{StatisticsDevice, StatisticsPlan};
use crate::fusion::calibration::moments::Moments;
use crate::fusion::calibration::{
    DevicePass, HELD_BYTES, LayerwiseNetwork, Monitor, PassCount, RunningBatch, Sampling, Stream, UnlabelledInputs,
};
use crate::fusion::select::css;
use crate::fusion::{Ensemble, FusionError, Scores};
use crate::kernels::Workspace;
use crate::model::graph::{Graph, NodeId};
use crate::model::groups::{GroupId, Owner, Placed};
use crate::model::parameters::{self, Role};

/// Statistics of each group's activations on calibration data.
#[derive(Debug)]
pub struct ActivationStatistics {
    groups: Vec<GroupStatistics>,
}

/// Of the units of all members in one group, member by member; of heads, of each of their channels.
#[derive(Debug)]
struct GroupStatistics {
    /// E[a aᵀ], added up over the layers that read the group, each divided by its mean diagonal.
    gram: Vec<f64>,
    /// Squared norms of the weights that read each unit.
    reads: Vec<f64>,
    /// Sum over the layers of E[a²] times the squared norm of what reads it.
    activation: Vec<f64>,
}

/// One layer that reads units of one group; an attention's output projection reads its heads.
struct Reader {
    layer: NodeId,
    group: GroupId,
    moments: Moments,
}

/// Runs calibration inputs through the members and measures the activations of every group where layers read them.
///
/// # Errors
/// When weights cannot be read, an operation is not supported, or `monitor` says to stop.
pub fn measure(
    ensemble: &Ensemble<'_>,
    inputs: &dyn UnlabelledInputs,
    sampling: &Sampling,
    on: &dyn StatisticsDevice,
    monitor: Monitor<'_>,
) -> Result<ActivationStatistics, FusionError> {
    ensemble.check_heads()?;
    let networks: Vec<LayerwiseNetwork<'_>> =
        ensemble.members().iter().map(|member| LayerwiseNetwork::of(*member)).collect::<Result<_, _>>()?;
    let mut readers = readers(ensemble);
    let most = readers.iter().map(|reader| elements(ensemble, reader.group).iter().sum()).max().unwrap_or(1);
    let graphs: Vec<&Graph> = ensemble.members().iter().map(|member| member.graph).collect();
    let chosen = sampling.draw(inputs, to_rank(most), &graphs);
    let widest = graphs.into_iter().max_by_key(|graph| largest_activation(graph)).unwrap_or(ensemble.graph());
    let mut stream = Stream::new(inputs, &chosen, widest, HELD_BYTES);
    let layers: BTreeSet<NodeId> = readers.iter().map(|reader| reader.layer).collect();
    let of_layer = |layer: &NodeId| {
        let own = readers.iter().filter(|reader| reader.layer == *layer).map(|reader| reader.group);
        ReaderPass::of(ensemble, *layer, own)
    };
    let passes: Vec<ReaderPass> = layers.iter().map(of_layer).collect();
    let plan =
        StatisticsPlan { passes: passes.iter().map(|pass| pass.on_device(sampling)).collect(), batch: stream.batch() };
    let weights: Vec<_> = ensemble.members().iter().map(|member| (member.graph, member.weights)).collect();
    if let Some(mut device) = on.open(&weights, plan)? {
        for (index, pass) in passes.iter().enumerate() {
            let count = PassCount { done: index, total: passes.len() };
            let of_layer = DevicePass { node: pass.layer, tables: &pass.tables, count };
            stream.pass_on(&mut *device, &of_layer, sampling, |_| 0, &mut *monitor, |_| Ok(()))?;
            let of_layer = readers.iter_mut().filter(|reader| reader.layer == pass.layer);
            for (reader, sums) in of_layer.zip(device.sums()?) {
                sums.into_iter().flatten().for_each(|sums| reader.moments.merge(&Moments::of(sums)));
            }
        }
        return ActivationStatistics::of(ensemble, &readers);
    }
    for (index, &layer) in layers.iter().enumerate() {
        stream.pass(&networks, layer, index, layers.len(), monitor, |batch, work| {
            let mut of_layer = readers.iter_mut().filter(|reader| reader.layer == layer);
            of_layer.try_for_each(|reader| reader.add(ensemble, &networks, batch, sampling, work))
        })?;
    }
    ActivationStatistics::of(ensemble, &readers)
}

/// Every pair of a group and a layer that reads it, in order of computation.
fn readers(ensemble: &Ensemble<'_>) -> Vec<Reader> {
    let couplings = &ensemble.couplings()[0];
    let of_group = |index: usize| {
        let group = GroupId(index);
        let consumers = couplings.groups[index].consumers.iter().copied();
        consumers.chain(couplings.attention_of(group)).map(move |layer| (layer, group))
    };
    let pairs: BTreeSet<(NodeId, GroupId)> = (0..ensemble.groups()).flat_map(of_group).collect();
    let reader = |(layer, group)| {
        let count = elements(ensemble, group).iter().sum();
        Reader { layer, group, moments: Moments::new(count, 0) }
    };
    pairs.into_iter().map(reader).collect()
}

impl Reader {
    /// Adds a batch in which all nodes before the layer are computed: a row for each example and position that is read.
    fn add(
        &mut self,
        ensemble: &Ensemble<'_>,
        networks: &[LayerwiseNetwork<'_>],
        batch: &RunningBatch,
        sampling: &Sampling,
        work: &mut Workspace<f32>,
    ) -> Result<(), FusionError> {
        let input = ensemble.graph().node(self.layer).inputs[0];
        let width = elements(ensemble, self.group).iter().sum::<usize>();
        let mut rows: Vec<f32> = Vec::new();
        let mut offset = 0;
        for (member, units) in elements(ensemble, self.group).into_iter().enumerate() {
            let (axis, role) = read_axis(ensemble, member, self.layer, self.group);
            let mut value = Cow::Borrowed(batch.value(member, input)?);
            if role == Role::OutputWeight {
                value = Cow::Owned(networks[member].mixed(self.layer, &value, work));
            }
            let segments: Vec<Placed> = axis.placed_of(Owner::Group(self.group)).collect();
            let repeat = segments.iter().map(|placed| placed.segment.repeat).max().unwrap_or(1);
            let pixels = sampling.positions(value.positions(), self.layer, batch.index);
            let repeats = sampling.positions(repeat, self.layer, batch.index);
            let image = value.channels * value.positions();
            let examples = value.values.len() / image.max(1);
            let places = pixels.len() * repeats.len();
            rows.resize(examples * places * width, 0.0);
            let mut row = rows.chunks_exact_mut(width.max(1));
            for example in value.values.chunks_exact(image.max(1)) {
                for pixel in &pixels {
                    let channels = &example[pixel * value.channels..][..value.channels];
                    for (at, row) in repeats.iter().zip(row.by_ref()) {
                        for Placed { start, segment } in &segments {
                            let own = channels[start + at % segment.repeat..].iter().step_by(segment.repeat);
                            let target = &mut row[offset + segment.first..][..segment.units];
                            target.iter_mut().zip(own).for_each(|(target, value)| *target = *value);
                        }
                    }
                }
            }
            offset += units;
        }
        self.moments.add(&rows, &[], work);
        Ok(())
    }
}

impl ActivationStatistics {
    fn of(ensemble: &Ensemble<'_>, readers: &[Reader]) -> Result<Self, FusionError> {
        let empty = |group| {
            let n = elements(ensemble, GroupId(group)).iter().sum();
            GroupStatistics { gram: vec![0.0; n * n], reads: vec![0.0; n], activation: vec![0.0; n] }
        };
        let mut groups: Vec<GroupStatistics> = (0..ensemble.groups()).map(empty).collect();
        for reader in readers {
            groups[reader.group.0].add(reader, &reads(ensemble, reader.layer, reader.group)?);
        }
        Ok(Self { groups })
    }

    /// Mean squared activation times the squared norm of what reads it.
    pub(super) fn activation(&self, ensemble: &Ensemble<'_>, group: GroupId) -> Scores {
        let elements = self.groups[group.0].activation.chunks_exact(ensemble.elements(group));
        by_member(ensemble, group, &elements.map(|of_unit| of_unit.iter().sum()).collect::<Vec<_>>())
    }

    /// The mean squared difference of the activations of each of member 0's units in `group` from those of each of the
    /// units of `member` (units x units), added up over the layers that read the group, each by its own scale.
    pub(in crate::fusion) fn squared_differences(
        &self,
        ensemble: &Ensemble<'_>,
        group: GroupId,
        member: usize,
    ) -> Vec<f64> {
        let widths = ensemble.widths(group);
        let (all, first): (usize, usize) = (widths.iter().sum(), widths[..member].iter().sum());
        let gram = &self.groups[group.0].gram;
        let at = |a: usize, b: usize| gram[a * all + b];
        let pairs = (0..widths[0]).flat_map(|a| (first..first + widths[member]).map(move |b| (a, b)));
        pairs.map(|(a, b)| (at(a, a) + at(b, b) - 2.0 * at(a, b)).max(0.0)).collect()
    }

    /// Higher for units that column-subset selection takes earlier; 0 for those that it does not take.
    pub(super) fn css(&self, ensemble: &Ensemble<'_>, group: GroupId, count: usize) -> Scores {
        let statistics = &self.groups[group.0];
        let size = ensemble.elements(group);
        let mut scores = vec![0.0; statistics.reads.len() / size];
        for (place, unit) in css::choose(&statistics.gram, &statistics.reads, size, count).into_iter().enumerate() {
            scores[unit] = (count - place) as f64;
        }
        by_member(ensemble, group, &scores)
    }
}

impl GroupStatistics {
    fn add(&mut self, reader: &Reader, reads: &[f64]) {
        let n = reads.len();
        let normal = reader.moments.about(&vec![0.0; n], &[]);
        let diagonal = |i: usize| normal.xx[i * n + i];
        let mean = (0..n).map(diagonal).sum::<f64>() / n.max(1) as f64;
        if mean > 0.0 {
            self.gram.iter_mut().zip(&normal.xx).for_each(|(sum, moment)| *sum += moment / mean);
        }
        for (unit, read) in reads.iter().enumerate() {
            self.reads[unit] += read;
            self.activation[unit] += diagonal(unit) * read;
        }
    }
}

/// Squared norms of the weights by which `layer` reads each element of `group`, the output layer's scaled by the shares.
fn reads(ensemble: &Ensemble<'_>, layer: NodeId, group: GroupId) -> Result<Vec<f64>, FusionError> {
    let mut all = Vec::new();
    let node = ensemble.graph().node(layer);
    let inner = node.op.taps();
    let counts = elements(ensemble, group);
    let shares = ensemble.shares();
    let writes = ensemble.is_output_layer(layer);
    for (member, weights) in ensemble.members().iter().enumerate() {
        let (columns, role) = read_axis(ensemble, member, layer, group);
        let row_len = columns.len() * inner;
        let mut columns_squared = vec![0.0_f64; row_len];
        for tensor in parameters::of_node(node).into_iter().filter(|tensor| tensor.role == role) {
            for (class, row) in weights.weights.f32(&tensor.name)?.chunks_exact(row_len.max(1)).enumerate() {
                let factor = if writes && shares.weigh_classes() { shares.of(member, class).powi(2) } else { 1.0 };
                for (sum, weight) in columns_squared.iter_mut().zip(row) {
                    *sum += factor * (f64::from(*weight) * f64::from(*weight));
                }
            }
        }
        let share = shares.members()[member] as f32;
        let factor = if writes && !shares.weigh_classes() { f64::from(share * share) } else { 1.0 };
        let mut own = vec![0.0; counts[member]];
        for placed in columns.placed_of(Owner::Group(group)) {
            for unit in placed.units() {
                let positions = placed.positions_of(unit);
                let squares = &columns_squared[positions.start * inner..positions.end * inner];
                own[unit] += factor * squares.iter().sum::<f64>();
            }
        }
        all.extend(own);
    }
    Ok(all)
}

fn by_member(ensemble: &Ensemble<'_>, group: GroupId, scores: &[f64]) -> Scores {
    let mut rest = scores;
    let mut split = |width: usize| {
        let (own, others) = rest.split_at(width);
        rest = others;
        own.to_vec()
    };
    ensemble.widths(group).into_iter().map(&mut split).collect()
}
