//! Which devices have an engine, and which engine each has: the one place that knows.

use crate::exec::cpu::CpuNetwork;
use crate::exec::engine::{CompileError, Engine};
use crate::model::graph::Graph;
use crate::settings::{ComputeOptions, Device};

/// Whether jobs that leave the device open are computed on GPUs where there are some.
///
/// Not before the GPU's engine has run on one: until then only what asks for a GPU gets it.
pub const AUTO_TAKES_GPUS: bool = false;

/// Compiles `graph` as `options` say, for batches of up to `max_batch` examples; all weights are 0.
///
/// # Errors
/// When the output is no vector, no threads can be had, or there is no engine for the device.
pub fn compile(options: &ComputeOptions, graph: &Graph, max_batch: usize) -> Result<Box<dyn Engine>, CompileError> {
    match options.device {
        Device::Auto | Device::Cpu => Ok(Box::new(CpuNetwork::<f32>::compile(graph, max_batch, options.threads)?)),
        Device::AnyCuda | Device::Cuda(_) => Err(CompileError::Device(options.device)),
    }
}
