//! What a device is asked for to measure the activations that a layer reads.

use crate::exec::statistics::{Pick, Reading, RowLayout, RowPart, RowSystems, Source, StatisticsPass};
use crate::fusion::Ensemble;
use crate::fusion::calibration::{PlaceTable, Sampling, channels_and_size};
use crate::model::graph::NodeId;
use crate::model::groups::{Axis, AxisSegment, GroupId, Owner, Placed};
use crate::model::parameters::Role;

/// All readers of one layer.
pub(super) struct ReaderPass {
    pub(super) layer: NodeId,
    pub(super) tables: Vec<PlaceTable>,
    systems: Vec<RowSystems>,
}

impl ReaderPass {
    /// `layer` reads units of `groups`.
    pub(super) fn of(ensemble: &Ensemble<'_>, layer: NodeId, groups: impl Iterator<Item = GroupId>) -> Self {
        let mut pass = Self { layer, tables: Vec::new(), systems: Vec::new() };
        for group in groups {
            let counts = elements(ensemble, group);
            let mut parts = Vec::new();
            let mut first = 0;
            for (member, units) in counts.iter().enumerate() {
                parts.extend(pass.of_member(ensemble, group, member, first));
                first += units;
            }
            let features = RowLayout { columns: first, parts };
            let targets = RowLayout { columns: 0, parts: Vec::new() };
            pass.systems.push(RowSystems { count: 1, features, targets });
        }
        pass
    }

    /// The columns of a member's units, from `first` on: one part for each number of positions that a unit may have.
    fn of_member(&mut self, ensemble: &Ensemble<'_>, group: GroupId, member: usize, first: usize) -> Vec<RowPart> {
        let (axis, role) = read_axis(ensemble, member, self.layer, group);
        let graph = ensemble.members()[member].graph;
        let input = graph.node(self.layer).inputs[0];
        let heads = role == Role::OutputWeight;
        let value = if heads { Reading::Mixed(self.layer) } else { Reading::Output(input) };
        let (_, size) = channels_and_size(graph, input);
        let segments: Vec<Placed> = axis.placed_of(Owner::Group(group)).collect();
        let repeat = segments.iter().map(|placed| placed.segment.repeat).max().unwrap_or(1);
        // Of several places of a unit the last one counts.
        let mut channels: Vec<Option<(usize, usize)>> = vec![None; elements(ensemble, group)[member]];
        for Placed { start, segment } in &segments {
            for unit in 0..segment.units {
                channels[segment.first + unit] = Some((segment.repeat, start + unit * segment.repeat));
            }
        }
        let mut own: Vec<usize> = channels.iter().flatten().map(|(repeat, _)| *repeat).collect();
        own.sort_unstable();
        own.dedup();
        let mut parts = Vec::with_capacity(own.len());
        for own in own {
            let with_own = channels.iter().enumerate().filter_map(|(unit, place)| Some((unit, place.as_ref()?)));
            let picks = with_own.filter(|(_, (repeat, _))| *repeat == own);
            let picks = picks.map(|(unit, (_, channel))| Pick { channel: *channel, column: first + unit, factor: 1.0 });
            let places = self.table(PlaceTable { positions: size[0] * size[1], repeat, own });
            parts.push(RowPart::Picks { source: Source { network: member, value }, places, picks: picks.collect() });
        }
        parts
    }

    /// The position of a table.
    fn table(&mut self, table: PlaceTable) -> usize {
        self.tables.iter().position(|known| *known == table).unwrap_or_else(|| {
            self.tables.push(table);
            self.tables.len() - 1
        })
    }

    /// As the device has it.
    pub(super) fn on_device(&self, sampling: &Sampling) -> StatisticsPass {
        let places = self.tables.iter().map(|table| table.count(sampling)).collect();
        StatisticsPass { places, systems: self.systems.clone() }
    }
}

/// Elements of a group, member by member: its units, or the channels of its heads.
pub(super) fn elements(ensemble: &Ensemble<'_>, group: GroupId) -> Vec<usize> {
    let each = ensemble.elements(group);
    ensemble.widths(group).into_iter().map(|units| units * each).collect()
}

/// The input axis of `layer` in one member, by elements, and the role of the tensors that read it for `group`: those of an
/// attention's output projection where the units are its heads.
pub(super) fn read_axis(ensemble: &Ensemble<'_>, member: usize, layer: NodeId, group: GroupId) -> (Axis, Role) {
    let couplings = &ensemble.couplings()[member];
    if couplings.attention_of(group) == Some(layer) {
        let heads = couplings.attentions[&layer].segments().iter();
        let channels = heads.map(|heads| AxisSegment { units: heads.len(), repeat: 1, ..*heads }).collect();
        return (channels, Role::OutputWeight);
    }
    let role = if couplings.attentions.contains_key(&layer) { Role::Projection } else { Role::Weight };
    (ensemble.columns(member, layer).clone(), role)
}
