//! Networks as files that other programs run.

pub mod pytorch;
