//! A fusion job as data: what was asked, what that means in full, what it will cost, and what its child process reports.

pub mod parse;
pub mod protocol;
pub mod request;
mod wire;
