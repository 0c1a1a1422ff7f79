//! Sizes and counts that algorithms and estimates share, written once.

pub mod budgets;
pub mod calibration;
