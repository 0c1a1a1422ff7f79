//! A fusion job as data: what was requested, what that means in full for its files, and what it will take.

pub mod assembly;
mod averaging;
pub mod comparison;
pub mod compensation;
pub mod datasets;
mod estimate;
pub mod held_out;
mod identity;
mod job_plan;
pub mod labels;
pub mod network;
pub mod parse;
pub mod recipe;
pub mod recovery;
pub mod request;
pub mod resolve;
pub mod schemas;
pub mod task;
mod wire;

pub use job_plan::{NetworkFigures, Plan};
