//! Which devices have an engine, and which engine each has: the one place that knows.

use crate::exec::cpu::CpuNetwork;
use crate::exec::engine::{CompileError, Engine, EngineError};
use crate::exec::gpu::cuda::{Gpu, GpuOptions, Session};
#[cfg(test)]
use crate::exec::gpu::emulated::Emulated;
use crate::exec::gpu::tape::Storage;
use crate::exec::gpu::{GpuNetwork, GpuStatistics};
use crate::exec::statistics::{Statistics, StatisticsDevice, StatisticsPlan};
use crate::model::graph::Graph;
use crate::settings::{ComputeOptions, Device, Precision};
use crate::tensors::Weights;

/// Whether jobs that leave the device open are computed on GPUs where there are some.
///
/// Not before the GPU's engine has run on one: until then only what asks for a GPU gets it.
pub const AUTO_TAKES_GPUS: bool = false;

/// The number of the GPU that tests compute on: it is emulated on the processor.
#[cfg(test)]
pub(crate) const EMULATED: usize = 1 << 20;

/// Compiles `graph` as `options` say, for batches of up to `max_batch` examples; all weights are 0.
///
/// # Errors
/// When the output is no vector, no threads can be had, or there is no engine for the device.
pub fn compile(options: &ComputeOptions, graph: &Graph, max_batch: usize) -> Result<Box<dyn Engine>, CompileError> {
    match options.device {
        Device::Auto | Device::Cpu => Ok(Box::new(CpuNetwork::<f32>::compile(graph, max_batch, options.threads)?)),
        Device::AnyCuda => on_gpu(options, 0, graph, max_batch),
        Device::Cuda(index) => on_gpu(options, index, graph, max_batch),
    }
}

/// A network on the GPU `index`.
fn on_gpu(
    options: &ComputeOptions,
    index: usize,
    graph: &Graph,
    max_batch: usize,
) -> Result<Box<dyn Engine>, CompileError> {
    let storage = if options.precision == Precision::Bf16 { Storage::Bf16 } else { Storage::F32 };
    #[cfg(test)]
    if index == EMULATED {
        return Ok(Box::new(GpuNetwork::compile(Emulated::new(), graph, max_batch, options.threads, storage)?));
    }
    let session = Session::open(index)?;
    if let Some(bytes) = options.memory_limit {
        session.limit_memory(bytes);
    }
    let how = GpuOptions { precision: options.precision, deterministic: options.deterministic, captures: true };
    Ok(Box::new(GpuNetwork::compile(Gpu::new(session, how), graph, max_batch, options.threads, storage)?))
}

impl StatisticsDevice for ComputeOptions {
    fn open(
        &self,
        networks: &[(&Graph, &dyn Weights)],
        plan: StatisticsPlan,
    ) -> Result<Option<Box<dyn Statistics>>, EngineError> {
        let index = match self.device {
            Device::Auto | Device::Cpu => return Ok(None),
            Device::AnyCuda => 0,
            Device::Cuda(index) => index,
        };
        #[cfg(test)]
        if index == EMULATED {
            return Ok(Some(Box::new(GpuStatistics::open(Emulated::new(), networks, plan)?)));
        }
        let session = Session::open(index)?;
        if let Some(bytes) = self.memory_limit {
            session.limit_memory(bytes);
        }
        // Activations that fits are made of are f32; short programs are not worth a graph.
        let precision = if self.precision == Precision::F32 { Precision::F32 } else { Precision::Tf32 };
        let how = GpuOptions { precision, deterministic: self.deterministic, captures: false };
        Ok(Some(Box::new(GpuStatistics::open(Gpu::new(session, how), networks, plan)?)))
    }
}
