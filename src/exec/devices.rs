//! Which devices have an engine, and which engine each has: the one place that knows.

use crate::exec::cpu::CpuNetwork;
use crate::exec::engine::{CompileError, Engine};
use crate::model::graph::Graph;
use crate::settings::Device;

/// The devices of this machine that networks can be computed on, the preferred one first.
#[must_use]
pub fn devices() -> Vec<Device> {
    vec![Device::Cpu]
}

/// Compiles `graph` for `device`, for batches of up to `max_batch` examples and `threads` threads; all weights are 0.
///
/// # Errors
/// When the output is no vector, no threads can be had, or there is no engine for the device.
pub fn compile(
    device: Device,
    graph: &Graph,
    max_batch: usize,
    threads: usize,
) -> Result<Box<dyn Engine>, CompileError> {
    match device {
        Device::Auto | Device::Cpu => Ok(Box::new(CpuNetwork::<f32>::compile(graph, max_batch, threads)?)),
        Device::Cuda(_) => Err(CompileError::Device(device)),
    }
}
