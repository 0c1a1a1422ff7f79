//! Calibration inputs on their way through networks that are on a device.

use super::stream::Stream;
use super::{Monitor, Sampling};
use crate::exec::statistics::{RowPlace, Statistics};
use crate::fusion::FusionError;
use crate::model::graph::NodeId;

/// Which places of an example rows are made of, drawn for each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::fusion) struct PlaceTable {
    /// Positions of the image.
    pub(in crate::fusion) positions: usize,
    /// Elements behind each other of which some are read at each position; 1 but for flattened images.
    pub(in crate::fusion) repeat: usize,
    /// How many of these there are where other units have more.
    pub(in crate::fusion) own: usize,
}

impl PlaceTable {
    /// Of the positions of an image.
    pub(in crate::fusion) fn image(positions: usize) -> Self {
        Self { positions, repeat: 1, own: 1 }
    }

    /// Of the positions of an image that was flattened.
    pub(in crate::fusion) fn flattened(repeat: usize) -> Self {
        Self { positions: 1, repeat, own: repeat }
    }

    /// How many places are drawn.
    pub(in crate::fusion) fn count(self, sampling: &Sampling) -> usize {
        [self.positions, self.repeat].map(|count| count.min(sampling.positions)).into_iter().product()
    }

    /// The places for a batch, as the layer `node` reads them.
    pub(in crate::fusion) fn places(self, sampling: &Sampling, node: NodeId, batch: usize) -> Vec<RowPlace> {
        let repeats = sampling.positions(self.repeat, node, batch);
        let of_pixel = |pixel: usize| repeats.iter().map(move |at| [pixel as u32, (at % self.own.max(1)) as u32]);
        sampling.positions(self.positions, node, batch).into_iter().flat_map(of_pixel).collect()
    }
}

/// Where a pass stands among all.
#[derive(Debug, Clone, Copy)]
pub(in crate::fusion) struct PassCount {
    /// Passes before this one.
    pub(in crate::fusion) done: usize,
    /// All of them.
    pub(in crate::fusion) total: usize,
}

/// How one pass goes through the batches.
pub(in crate::fusion) struct DevicePass<'p> {
    /// The layer before which it ends.
    pub(in crate::fusion) node: NodeId,
    /// Its tables of places.
    pub(in crate::fusion) tables: &'p [PlaceTable],
    /// Where it stands among the passes of the device.
    pub(in crate::fusion) count: PassCount,
}

impl Stream<'_> {
    /// Lets all batches go through the networks of `device`, each for the part of the examples that `part` says, and shows it to `visit`
    /// after each.
    pub(in crate::fusion) fn pass_on(
        &mut self,
        device: &mut dyn Statistics,
        pass: &DevicePass<'_>,
        sampling: &Sampling,
        part: impl Fn(usize) -> usize,
        monitor: Monitor<'_>,
        mut visit: impl FnMut(&mut dyn Statistics) -> Result<(), FusionError>,
    ) -> Result<(), FusionError> {
        let PassCount { done, total } = pass.count;
        device.begin(done)?;
        for index in 0..self.len() {
            let share = index as f64 / self.len() as f64;
            if !monitor((done as f64 + share) / total.max(1) as f64) {
                return Err(FusionError::Stopped);
            }
            let places = pass.tables.iter().map(|table| table.places(sampling, pass.node, index));
            device.add(&self.rows(index), &places.collect::<Vec<_>>(), part(index))?;
            visit(device)?;
        }
        Ok(())
    }
}
