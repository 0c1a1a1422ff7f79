//! Training networks on any engine, and measuring them.

mod checkpoint;
pub mod error;
pub mod evaluate;
mod examples;
pub mod init;
mod loader;
mod rate;
mod running_score;
pub mod schedule;
pub mod teach;
pub mod trainer;

pub use error::TrainError;
pub use evaluate::{Times, evaluate, latency, logits, running_score, score};
pub use examples::Examples;
pub use init::init;
pub use rate::steady_rate;
pub use running_score::RunningScore;
pub use teach::{Teach, TeacherLogits};
pub use trainer::{Setup, Trained, TrainingEvent, train};
