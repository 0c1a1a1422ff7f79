//! What else goes to the device and comes from it: weights, statistics, logits and the results of steps.

use half::bf16;

use crate::exec::engine::{DeviceFault, EngineError, LoadError, Step};
use crate::exec::gpu::arena::{RESULT, RESULTS};
use crate::exec::gpu::device::Device;
use crate::exec::gpu::kernels::batch_norm::Running;
use crate::exec::gpu::kernels::scalars;
use crate::exec::gpu::network::GpuNetwork;
use crate::exec::gpu::tape::Place;
use crate::tensors::{StateDict, Weights};

impl<D: Device> GpuNetwork<D> {
    /// The logits of a batch that is on the device.
    pub(super) fn read_logits(&mut self, examples: usize) -> Result<(), DeviceFault> {
        let output = self.arena.activations[self.compiled.output];
        let bytes = self.storage.bytes();
        let mut rows = vec![0; examples * output.stride * bytes];
        self.device.read(output.place.part(0, rows.len()), &mut rows)?;
        let rows = rows.chunks_exact(output.stride * bytes);
        for (row, logits) in rows.zip(self.logits.chunks_exact_mut(self.classes)) {
            for (logit, number) in logits.iter_mut().zip(row.chunks_exact(bytes)) {
                *logit = match *number {
                    [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                    [a, b] => bf16::from_le_bytes([a, b]).to_f32(),
                    _ => 0.0,
                };
            }
        }
        Ok(())
    }

    /// The slot for the result of the next step.
    pub(super) fn next_slot(&mut self) -> Result<u32, DeviceFault> {
        if self.submitted - self.collected == RESULTS {
            self.collect()?;
        }
        self.submitted += 1;
        Ok(((self.submitted - 1) % RESULTS) as u32)
    }

    /// Reads the results of all steps.
    fn collect(&mut self) -> Result<(), DeviceFault> {
        let mut words = vec![0; RESULTS * RESULT];
        self.device.read(self.arena.results, &mut words)?;
        for step in self.collected..self.submitted {
            let slot = &words[step % RESULTS * RESULT..][..RESULT];
            let [mut loss, mut correct] = [[0; 8], [0; 8]];
            loss.copy_from_slice(&slot[..8]);
            correct[..4].copy_from_slice(&slot[8..12]);
            self.done.push(Step { loss: f64::from_le_bytes(loss), correct: u64::from_le_bytes(correct) as usize });
        }
        self.collected = self.submitted;
        Ok(())
    }

    /// Results of steps; not before half of what the device keeps is full, unless somebody waits.
    pub(super) fn results(&mut self, wait: bool) -> Result<Vec<Step>, DeviceFault> {
        let pending = self.submitted - self.collected;
        if pending > 0 && (wait || pending >= RESULTS / 2) {
            self.collect()?;
        }
        Ok(std::mem::take(&mut self.done))
    }

    /// Writes what changes from step to step.
    pub(super) fn write_scalars(&mut self, scalars: [u8; scalars::BYTES]) -> Result<(), DeviceFault> {
        self.device.write(self.arena.scalars, &scalars)
    }

    /// Writes a flat buffer that belongs to the parameters.
    pub(super) fn write_flat(&mut self, place: Place, flat: &[f32]) -> Result<(), DeviceFault> {
        self.device.write(place, bytemuck::cast_slice(flat))
    }

    /// Reads a flat buffer that belongs to the parameters.
    pub(super) fn read_flat(&mut self, place: Place) -> Result<Vec<f32>, DeviceFault> {
        let mut flat = vec![0.0_f32; place.bytes / 4];
        self.device.read(place, bytemuck::cast_slice_mut(&mut flat))?;
        Ok(flat)
    }

    /// A flat buffer as tensors in PyTorch's order.
    pub(super) fn tensors(&self, flat: &[f32]) -> Vec<Vec<f32>> {
        let tensors = self.compiled.parameters.iter().zip(&self.parameters.layouts);
        tensors
            .map(|(parameter, layout)| {
                let own = layout.gather(flat, parameter.shape.iter().product());
                parameter.to_pytorch(&own)
            })
            .collect()
    }

    /// Tensors in PyTorch's order, called `prefix` and their name, as a flat buffer.
    pub(super) fn flat(&self, prefix: &str, weights: &dyn Weights) -> Result<Vec<f32>, EngineError> {
        let mut flat = vec![0.0; self.parameters.numbers];
        for (parameter, layout) in self.compiled.parameters.iter().zip(&self.parameters.layouts) {
            let name = format!("{prefix}{}", parameter.name);
            let own = parameter.from_pytorch(&weights.f32(&name).map_err(LoadError::from)?)?;
            layout.scatter(&own, &mut flat);
        }
        Ok(flat)
    }

    /// Writes the weights, also as products read them.
    pub(super) fn write_weights(&mut self, flat: &[f32]) -> Result<(), DeviceFault> {
        self.write_flat(self.arena.weights, flat)?;
        if let Some(place) = self.arena.low {
            let low: Vec<bf16> = flat.iter().map(|weight| bf16::from_f32(*weight)).collect();
            let bytes: Vec<u8> = low.iter().flat_map(|weight| weight.to_le_bytes()).collect();
            self.device.write(place, &bytes)?;
        }
        Ok(())
    }

    /// Brings the running statistics to the device.
    pub(super) fn write_running(&mut self) -> Result<(), DeviceFault> {
        for (running, Running { mean, var }) in self.compiled.running.iter().zip(&self.arena.running) {
            self.device.write(*mean, bytemuck::cast_slice(&running.mean))?;
            self.device.write(*var, bytemuck::cast_slice(&running.var))?;
        }
        Ok(())
    }

    /// Takes the running statistics from the device.
    pub(super) fn read_running(&mut self) -> Result<(), DeviceFault> {
        for (running, Running { mean, var }) in self.compiled.running.iter_mut().zip(&self.arena.running) {
            self.device.read(*mean, bytemuck::cast_slice_mut(&mut running.mean))?;
            self.device.read(*var, bytemuck::cast_slice_mut(&mut running.var))?;
        }
        Ok(())
    }

    /// A state dict of these tensors, named `prefix` and the parameter's name.
    pub(super) fn named(&self, prefix: &str, flat: &[f32], dict: &mut StateDict) -> Result<(), EngineError> {
        for (parameter, values) in self.compiled.parameters.iter().zip(self.tensors(flat)) {
            dict.insert_f32(&format!("{prefix}{}", parameter.name), &parameter.shape, values)?;
        }
        Ok(())
    }
}
