//! Training networks on any engine, and measuring them.

mod checkpoint;
pub mod error;
pub mod evaluate;
mod examples;
pub mod init;
mod loader;
mod rate;
pub mod schedule;
pub mod teach;
pub mod trainer;

pub use error::TrainError;
pub use evaluate::{Times, evaluate, latency, logits, score};
pub use examples::Examples;
pub use init::init;
pub use rate::steady_rate;
pub use teach::{Teach, TeacherLogits};
pub use trainer::{Setup, Trained, TrainingEvent, train};
