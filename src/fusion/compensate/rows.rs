//! The rows of a layer's system as a device makes them: the same as [`System::gather`] does.

use super::system::{System, Unknowns, WeightSet};
use crate::exec::statistics::{Pick, Reading, RowLayout, RowPart, RowSystems, Source};
use crate::fusion::calibration::{PlaceTable, channels_and_size};
use crate::model::graph::{Graph, NodeId};

impl System<'_> {
    /// The places that rows are made of, of the fused network `graph`.
    pub(super) fn places(&self, graph: &Graph) -> PlaceTable {
        let positions = |id: NodeId| channels_and_size(graph, id).1.into_iter().product();
        match self.kind {
            Unknowns::Windows(_) | Unknowns::Groups { .. } => PlaceTable::image(positions(self.id)),
            Unknowns::Features | Unknowns::Channels { .. } => PlaceTable::image(positions(self.input)),
            Unknowns::Flattened { repeat } => PlaceTable::flattened(repeat),
        }
    }

    /// The same rows as [`Self::gather`] makes, for a device: the fused network `graph` is at `fused` among its networks, the places are
    /// its first table.
    pub(super) fn on_device(&self, graph: &Graph, fused: usize) -> RowSystems {
        let value = if self.part == WeightSet::Output { Reading::Mixed(self.id) } else { Reading::Output(self.input) };
        let source = Source { network: fused, value };
        let (_, input) = channels_and_size(graph, self.input);
        let width = channels_and_size(graph, self.id).1[1];
        let windows = |window, groups| RowPart::Windows { source, places: 0, window, input, width, groups };
        let features = match self.kind {
            Unknowns::Windows(window) => windows(window, 1),
            Unknowns::Groups { window, .. } => windows(window, self.count()),
            Unknowns::Features | Unknowns::Channels { .. } => side_by_side(source, self.unknowns, 1, 0),
            Unknowns::Flattened { repeat } => side_by_side(source, self.unknowns, repeat, 0),
        };
        let targets = if self.reads_channels() { self.channel_parts() } else { self.output_parts() };
        let count = self.count();
        RowSystems {
            count,
            features: RowLayout { columns: count * self.unknowns, parts: vec![features] },
            targets: RowLayout { columns: count * self.targets(), parts: targets },
        }
    }

    /// As [`Self::channel_targets`].
    fn channel_parts(&self) -> Vec<RowPart> {
        let repeat = if let Unknowns::Flattened { repeat } = self.kind { repeat } else { 1 };
        let mut first = 0;
        let mut parts = Vec::new();
        for (network, count) in self.widths().into_iter().enumerate() {
            let source = Source { network, value: Reading::Output(self.input) };
            parts.push(side_by_side(source, count, repeat, first));
            first += count;
        }
        parts
    }

    /// As [`Self::output_targets`].
    fn output_parts(&self) -> Vec<RowPart> {
        let projects = self.part == WeightSet::Projection;
        let value = if projects { Reading::Projected(self.id) } else { Reading::Output(self.id) };
        let of_member = |(network, pairs): (usize, &Vec<(usize, usize)>)| {
            let factor = |row: usize| if projects { 1.0 } else { self.share(network, row) };
            let picks = pairs.iter().map(|(row, column)| Pick { channel: *row, column: *column, factor: factor(*row) });
            RowPart::Picks { source: Source { network, value }, places: 0, picks: picks.collect() }
        };
        self.rows.iter().enumerate().map(of_member).collect()
    }
}

/// Every channel of a place, to the columns from `first` on; `repeat` elements are one channel's.
fn side_by_side(source: Source, channels: usize, repeat: usize, first: usize) -> RowPart {
    let pick = |channel: usize| Pick { channel: channel * repeat, column: first + channel, factor: 1.0 };
    RowPart::Picks { source, places: 0, picks: (0..channels).map(pick).collect() }
}
