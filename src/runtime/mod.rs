//! The running program: how it ends, and what it logs.

pub mod lifecycle;
pub mod privacy;
pub mod telemetry;
