//! The moments of levels, made on a device that has all networks.

use super::Interpolator;
use crate::cost::interpolation::{self, FitLevel};
use crate::exec::statistics::{
    Pick, Reading, RowLayout, RowPart, RowSystems, Source, Statistics, StatisticsDevice, StatisticsPass, StatisticsPlan,
};
use crate::fusion::FusionError;
use crate::fusion::calibration::moments::Moments;
use crate::fusion::calibration::{DevicePass, Monitor, PassCount, PlaceTable, channels_and_size};
use crate::tensors::Weights;

impl Interpolator<'_> {
    /// Brings all networks to the device, if statistics are made on one; the fused one with the weights `empty`.
    pub(super) fn open(
        &mut self,
        on: &dyn StatisticsDevice,
        empty: &dyn Weights,
        levels: &[FitLevel],
    ) -> Result<(), FusionError> {
        let pass = |(index, level): (usize, &FitLevel)| StatisticsPass {
            places: vec![self.table(*level).count(&self.options.sampling)],
            systems: vec![self.on_device(*level, index + 1 == levels.len())],
        };
        let passes = levels.iter().enumerate().map(pass).collect();
        let plan = StatisticsPlan { passes, batch: self.stream.batch() };
        let members = self.ensemble.members().iter().map(|member| (member.graph, member.weights));
        self.device = on.open(&members.chain([(self.graph, empty)]).collect::<Vec<_>>(), plan)?;
        Ok(())
    }

    /// The moments of a level.
    pub(super) fn measure(
        &mut self,
        device: &mut dyn Statistics,
        level: FitLevel,
        count: PassCount,
        monitor: Monitor<'_>,
    ) -> Result<Moments, FusionError> {
        let tables = [self.table(level)];
        let pass = DevicePass { node: level.layer, tables: &tables, count };
        self.stream.pass_on(device, &pass, &self.options.sampling, |_| 0, monitor, |_| Ok(()))?;
        let first = device.sums()?.into_iter().flatten().flatten().next();
        first.map(Moments::of).ok_or(FusionError::NoStatistics)
    }

    /// The places that rows are made of.
    fn table(&self, level: FitLevel) -> PlaceTable {
        PlaceTable::image(channels_and_size(self.graph, level.layer).1.into_iter().product())
    }

    /// The rows of a level as a device makes them.
    fn on_device(&self, level: FitLevel, are_outputs: bool) -> RowSystems {
        let node = self.graph.node(level.layer);
        let (channels, input) = channels_and_size(self.graph, node.inputs[0]);
        let source = Source { network: self.members(), value: Reading::Output(node.inputs[0]) };
        let pick = |(channel, column): (usize, usize), factor: f32| Pick { channel, column, factor };
        let features = if let Some(conv) = node.op.convolution() {
            let width = channels_and_size(self.graph, level.layer).1[1];
            RowPart::Windows { source, places: 0, window: conv.window, input, width, groups: 1 }
        } else {
            let picks = (0..channels).map(|channel| pick((channel, channel), 1.0)).collect();
            RowPart::Picks { source, places: 0, picks }
        };
        let targets = self.targets(level, are_outputs);
        let value = Reading::Output(level.output());
        let of_member = |(network, rows): (usize, &Vec<(usize, usize)>)| {
            let share = |row: usize| if are_outputs { self.ensemble.shares().of(network, row) as f32 } else { 1.0 };
            let picks = rows.iter().map(|pair| pick(*pair, share(pair.0))).collect();
            RowPart::Picks { source: Source { network, value }, places: 0, picks }
        };
        let unknowns = interpolation::unknowns(self.graph, level.layer);
        RowSystems {
            count: 1,
            features: RowLayout { columns: unknowns, parts: vec![features] },
            targets: RowLayout {
                columns: targets.count,
                parts: targets.rows.iter().enumerate().map(of_member).collect(),
            },
        }
    }
}
