//! A fusion job as data: what was asked, what that means in full, what it will cost, and what its child process reports.

mod averaging;
pub mod calibration;
pub mod comparison;
pub mod compensation;
mod estimate;
mod method;
pub mod parse;
pub mod plan;
pub mod protocol;
pub mod recipe;
pub mod request;
pub mod resolve;
mod wire;
