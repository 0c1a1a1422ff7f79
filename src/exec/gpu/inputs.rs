//! Batches on their way to the device, and images that stay there.

use std::sync::Arc;

use crate::exec::engine::{BatchError, DeviceFault, EngineError, Held, HeldView, Inputs, StoredImages};
use crate::exec::gpu::device::Device;
use crate::exec::gpu::emit::Source;
use crate::exec::gpu::network::GpuNetwork;

/// Images that a device holds for its networks.
#[derive(Debug)]
pub(super) struct HeldImages<D: Device> {
    memory: Arc<D::Held>,
    bytes: usize,
    shape: [usize; 3],
    normalization: Vec<[f32; 2]>,
}

impl<D: Device> GpuNetwork<D> {
    /// Keeps images, if there is room for them.
    pub(super) fn keep(&mut self, images: &StoredImages<'_>, seen: bool) -> Result<Option<Held>, DeviceFault> {
        let [input, ..] = self.compiled.values[..] else { return Ok(None) };
        let len: usize = images.shape.iter().product();
        let is_row = input.channels == input.len;
        let channels = images.normalization.len();
        let fits = len > 0 && images.bytes.len().is_multiple_of(len) && channels.is_multiple_of(images.shape[0]);
        if !fits || channels * (len / images.shape[0]) != self.example || (seen && is_row) {
            return Ok(None);
        }
        let Some(memory) = self.device.hold(images.bytes, &images.owner)? else { return Ok(None) };
        let StoredImages { bytes, shape, normalization, .. } = images.clone();
        let held = HeldImages::<D> { memory, bytes: bytes.len(), shape, normalization };
        Ok(Some(Held(Arc::new(held))))
    }

    /// The number of examples of a batch, which goes to the device.
    pub(super) fn stage(&mut self, inputs: Inputs<'_>) -> Result<usize, EngineError> {
        let examples = inputs.examples(self.example);
        if examples == 0 || examples > self.max_batch {
            return Err(self.batch_error(inputs).into());
        }
        match inputs {
            Inputs::Images(images) => {
                if examples * self.example != images.len() {
                    return Err(self.batch_error(inputs).into());
                }
                (self.source, self.held) = (Source::Images, None);
                let bytes = bytemuck::cast_slice(images);
                self.device.write(self.arena.images.part(0, bytes.len()), bytes)?;
            }
            Inputs::Held { held, indices, views } => self.stage_held(held, indices, views)?,
        }
        Ok(examples)
    }

    fn stage_held(&mut self, held: &Held, indices: &[u32], views: Option<&[HeldView]>) -> Result<(), EngineError> {
        let inputs = Inputs::Held { held, indices, views };
        let Some(images) = held.0.downcast_ref::<HeldImages<D>>() else { return Err(self.batch_error(inputs).into()) };
        let len: usize = images.shape.iter().product();
        let is_there = |index: &u32| (*index as usize + 1) * len <= images.bytes;
        if !indices.iter().all(is_there) || views.is_some_and(|views| views.len() != indices.len()) {
            return Err(self.batch_error(inputs).into());
        }
        let HeldImages { memory, bytes, shape, normalization } = images;
        self.source = Source::Held { bytes: *bytes, shape: *shape, seen: views.is_some() };
        self.held = Some(Arc::clone(memory));
        if self.normalization != *normalization {
            // A pair for each number that the network takes for a channel.
            let channels = self.arena.normalization.bytes / 8;
            let repeat = channels / normalization.len().max(1);
            let pairs: Vec<[f32; 2]> =
                normalization.iter().flat_map(|pair| std::iter::repeat_n(*pair, repeat)).collect();
            self.device.write(self.arena.normalization, bytemuck::cast_slice(&pairs))?;
            self.normalization.clone_from(normalization);
        }
        // Programs may be for more examples than come: what is behind the end has to be some image, too.
        let last = indices.last().copied().unwrap_or_default();
        let all: Vec<u32> = indices.iter().copied().chain(std::iter::repeat(last)).take(self.max_batch).collect();
        self.device.write(self.arena.indices, bytemuck::cast_slice(&all))?;
        if let Some(views) = views {
            let bytes: &[u8] = bytemuck::cast_slice(views);
            self.device.write(self.arena.views.part(0, bytes.len()), bytes)?;
        }
        Ok(())
    }

    pub(super) fn batch_error(&self, inputs: Inputs<'_>) -> BatchError {
        let got = match inputs {
            Inputs::Images(images) => images.len(),
            Inputs::Held { indices, .. } => indices.len() * self.example,
        };
        BatchError { most: self.max_batch, example: self.example, got }
    }
}
