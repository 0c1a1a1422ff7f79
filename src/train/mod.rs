//! Running and training a network on the CPU: explicit forward and backward passes over the static graph.

pub mod init;
pub mod network;

pub use init::init;
pub use network::{BatchError, CompileError, LoadError, Network};
