//! Running networks: what a device offers ([`Engine`]), every operation of the graph as kernels, and the CPU's explicit forward
//! and backward passes over them. No operation is computed because it is none of the others.
#![deny(clippy::wildcard_enum_match_arm)]

mod compile;
pub mod cpu;
mod devices;
mod engine;
pub mod gpu;
mod layer;
pub mod lowering;
mod memory;
mod parameters;
pub mod statistics;

#[cfg(test)]
pub(crate) use devices::EMULATED;

pub use cpu::{CpuNetwork, OptimizerState};
pub use devices::{AUTO_TAKES_GPUS, compile};
pub use engine::{
    BatchError, CompileError, DeviceFault, Engine, EngineError, Gradients, Held, HeldView, Inputs, LoadError, Step,
    StoredImages, Update,
};
pub use gpu::cuda::probe::{COMMAND as PROBE_COMMAND, gpus};
pub use parameters::{LearnedParameter, RunningStatistics, Transposition};
