//! The moments of layers' systems, made on a device that has all networks.

use super::output_layer::OutputLayer;
use super::solve::SplitMoments;
use super::system::System;
use super::{LayerSystems, Refitter, held_out};
use crate::exec::statistics::{Reading, Source, Statistics, StatisticsDevice, StatisticsPass, StatisticsPlan, Sums};
use crate::fusion::calibration::moments::Moments;
use crate::fusion::calibration::{DevicePass, Monitor};
use crate::fusion::{Fused, FusionError, Selection};
use crate::tensors::Weights;

impl<'a> Refitter<'a> {
    /// Brings all networks to the device, if statistics are made on one: the members and each candidate as it was gathered.
    pub(super) fn open(
        &mut self,
        on: &dyn StatisticsDevice,
        candidates: &[(&Selection, &Fused<impl Weights>)],
        layers: &[LayerSystems<'_>],
    ) -> Result<(), FusionError> {
        let sampling = &self.options.sampling;
        let pass = |layer: &LayerSystems<'_>| {
            let own = layer.systems.iter().enumerate().filter_map(|(index, system)| Some((index, system.as_ref()?)));
            StatisticsPass {
                places: own.clone().take(1).map(|(_, system)| system.places(self.graph).count(sampling)).collect(),
                systems: own.map(|(index, system)| system.on_device(self.graph, self.members + index)).collect(),
            }
        };
        let plan = StatisticsPlan { passes: layers.iter().map(pass).collect(), batch: self.stream.batch() };
        let members = self.ensemble.members().iter().map(|member| (member.graph, member.weights));
        let fused = candidates.iter().map(|(_, fused)| (&fused.graph, &fused.weights as &dyn Weights));
        self.device = on.open(&members.chain(fused).collect::<Vec<_>>(), plan)?;
        Ok(())
    }

    /// The moments of the systems of a layer, whose place among all is `place`, in every candidate.
    pub(super) fn measure(
        &mut self,
        device: &mut dyn Statistics,
        place: (usize, usize),
        systems: &[(usize, &System<'_>)],
        mut output_layer: Option<&mut OutputLayer<'a>>,
        monitor: Monitor<'_>,
    ) -> Result<Vec<Vec<SplitMoments>>, FusionError> {
        let Some((_, first)) = systems.first() else { return Ok(Vec::new()) };
        let (id, members, batches) = (first.id, self.members, self.stream.len());
        let pass = DevicePass { index: place.0, node: id, tables: &[first.places(self.graph)], place };
        let part = |batch: usize| usize::from(held_out(batch, batches));
        self.stream.pass_on(device, &pass, &self.options.sampling, part, monitor, |device| {
            let Some(collecting) = output_layer.as_deref_mut().filter(|output_layer| output_layer.has_room()) else {
                return Ok(());
            };
            for place in 0..systems.len() {
                collecting.take_features(place, &device.features(place)?);
            }
            let value = Reading::Output(id);
            let logits = (0..members).map(|network| device.value(Source { network, value }));
            let logits = logits.collect::<Result<Vec<_>, _>>()?;
            collecting.take_targets(logits.iter().map(|logits| Ok(&logits[..])))
        })?;
        let moments = |parts: [Sums; 2]| parts.map(Moments::of);
        Ok(device.sums()?.into_iter().map(|systems| systems.into_iter().map(moments).collect()).collect())
    }
}
