//! Sizes and counts that algorithms and estimates share, written once: what a plan counts is what a job does.

pub mod budgets;
pub mod calibration;
pub mod checks;
mod counts;
pub mod evaluation;
pub mod identification;
pub mod interpolation;
mod joins;
pub mod systems;
mod time;

pub use counts::Counts;
pub use joins::joins;
pub use time::{STEP, forward_seconds, step_seconds};
