//! Computing on GPUs.

pub mod cuda;
