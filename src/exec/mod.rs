//! Running networks: what a device offers ([`Engine`]), and the CPU's explicit forward and backward passes over the graph.

pub mod cpu;
mod devices;
mod engine;
pub mod lowering;
mod parameters;

pub use cpu::{Network, OptimizerState};
pub use devices::{compile, devices};
pub use engine::{BatchError, CompileError, Engine, Gradients, LoadError, Step, Stride};
pub use parameters::{Parameter, Running, Transposition};
