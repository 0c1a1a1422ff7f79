//! How much work is spent at most on what is measured by the way.

/// Examples that sensitivities are measured on at most.
pub const SENSITIVITY_EXAMPLES: u64 = 256;

/// Multiply-accumulates that measuring sensitivities takes at most.
pub const SENSITIVITY_MACS: u64 = 2_000_000_000_000;

/// Examples that verification compares at most.
pub const VERIFICATION_EXAMPLES: u64 = 32;

/// Multiply-accumulates that verification takes at most on each way of computing the logits.
pub const VERIFICATION_MACS: u64 = 2_000_000_000;
