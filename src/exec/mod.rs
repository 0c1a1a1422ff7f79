//! Running networks: what a device offers ([`Engine`]), and the CPU's explicit forward and backward passes over the graph.

pub mod cpu;
mod devices;
mod engine;

pub use cpu::{Network, OptimizerState, Parameter};
pub use devices::{compile, devices};
pub use engine::{BatchError, CompileError, Engine, Gradients, LoadError, Step, Stride};
