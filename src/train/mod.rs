//! Running and training networks: explicit forward and backward passes over the static graph. `engine` is what a device offers,
//! `network` the CPU's.

mod checkpoint;
pub mod engine;
pub mod error;
pub mod evaluate;
mod examples;
pub mod init;
mod loader;
pub mod network;
pub mod optimizer;
pub mod schedule;
pub mod teach;
pub mod trainer;

pub use engine::{Engine, compile};
pub use error::TrainError;
pub use evaluate::{Times, evaluate, latency, logits, score};
pub use examples::Examples;
pub use init::init;
pub use network::{BatchError, CompileError, LoadError, Network};
pub use teach::{Teach, TeacherLogits};
pub use trainer::{Event, Setup, Trained, train};
