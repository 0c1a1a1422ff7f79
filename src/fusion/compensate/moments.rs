//! The moments of layers' systems: made by running networks node by node, or on a device that has all of them.

use super::output_layer::OutputLayer;
use super::solve::SplitMoments;
use super::system::System;
use super::{LayerSystems, Refitter};
use std::num::NonZeroUsize;

use rayon::prelude::*;

use crate::exec::statistics::{Reading, Source, Statistics, StatisticsDevice, StatisticsPass, StatisticsPlan, Sums};
use crate::fusion::calibration::moments::Moments;
use crate::fusion::calibration::{DevicePass, Monitor, PassCount};
use crate::fusion::{Fused, FusionError, Selection};
use crate::kernels::Workspace;
use crate::tensors::Weights;

/// One batch in so many is held out of the fits, to choose the ridge by.
const HELD_OUT: usize = 5;

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

    /// The moments of the systems of a layer in every candidate.
    pub(super) fn moments(
        &mut self,
        count: PassCount,
        systems: &[(usize, &System<'_>)],
        output_layer: Option<&mut OutputLayer<'a>>,
        monitor: Monitor<'_>,
    ) -> Result<Vec<Vec<SplitMoments>>, FusionError> {
        let Some(mut device) = self.device.take() else { return self.run(count, systems, output_layer, monitor) };
        let moments = self.measure(&mut *device, count, systems, output_layer, monitor);
        self.device = Some(device);
        moments
    }

    /// The moments of a layer's systems in every candidate, the networks run node by node.
    fn run(
        &mut self,
        count: PassCount,
        systems: &[(usize, &System<'_>)],
        mut output_layer: Option<&mut OutputLayer<'a>>,
        monitor: Monitor<'_>,
    ) -> Result<Vec<Vec<SplitMoments>>, FusionError> {
        let Some((_, first)) = systems.first() else { return Ok(Vec::new()) };
        let id = first.id;
        let empty = |(_, system): &(usize, &System<'_>)| {
            let empty = || [0, 1].map(|_| Moments::new(system.unknowns, system.targets()));
            (0..system.count()).map(|_| empty()).collect()
        };
        let mut moments: Vec<Vec<SplitMoments>> = systems.iter().map(empty).collect();
        let batches = self.stream.len();
        let (networks, sampling) = (&self.networks, &self.options.sampling);
        self.stream.pass(networks, id, count.done, count.total, &mut *monitor, |batch, work| {
            let mut collecting = output_layer.as_deref_mut().filter(|output_layer| output_layer.has_room());
            let part = usize::from(held_out(batch.index, batches));
            for (place, ((index, system), moments)) in systems.iter().zip(&mut moments).enumerate() {
                let rows = system.gather(batch, networks, self.members + index, sampling, work)?;
                // One system has all threads, many share them.
                if let ([moments], [rows]) = (&mut moments[..], &rows[..]) {
                    moments[part].add(&rows.features, &rows.targets, work);
                } else {
                    let own = || Workspace::new(NonZeroUsize::MIN);
                    moments.par_iter_mut().zip(&rows).for_each_init(own, |own, (moments, rows)| {
                        moments[part].add(&rows.features, &rows.targets, own);
                    });
                }
                if let Some(output_layer) = &mut collecting {
                    output_layer.take_features(place, &rows[0].features);
                }
            }
            let logits = |member: usize| batch.value(member, id).map(|value| &value.values[..]);
            collecting.map_or(Ok(()), |output_layer| output_layer.take_targets((0..self.members).map(logits)))
        })?;
        Ok(moments)
    }

    /// The same on a device.
    fn measure(
        &mut self,
        device: &mut dyn Statistics,
        count: PassCount,
        systems: &[(usize, &System<'_>)],
        mut output_layer: Option<&mut OutputLayer<'a>>,
        monitor: Monitor<'_>,
    ) -> Result<Vec<Vec<SplitMoments>>, FusionError> {
        let Some((_, first)) = systems.first() else { return Ok(Vec::new()) };
        let (id, members, batches) = (first.id, self.members, self.stream.len());
        let pass = DevicePass { node: id, tables: &[first.places(self.graph)], count };
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

/// Whether the batch at this position of `batches` is held out of the fits.
fn held_out(batch: usize, batches: usize) -> bool {
    batches >= HELD_OUT && batch % HELD_OUT == HELD_OUT - 1
}
