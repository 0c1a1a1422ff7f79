//! Networks on devices with memory of their own: a graph becomes tapes of kernels, products and convolutions, which a GPU plays.

mod arena;
mod backward;
pub mod cuda;
pub mod device;
mod emit;
mod engine;
mod forward;
mod inputs;
pub mod kernels;
mod network;
mod parameters;
mod program;
mod residual;
mod sharing;
mod statistics;
pub mod tape;
mod transfers;

#[cfg(test)]
pub mod emulated;

#[cfg(test)]
mod tests;

pub use device::Device;
pub use network::GpuNetwork;
pub use statistics::GpuStatistics;
