//! Numbers that change from step to step, in a block on the device: which word of 32 bits each one is.

/// Bytes of the block.
pub const BYTES: usize = 64;
/// f32: SGD's learning rate; `AdamW`'s by the correction of the mean's bias.
pub const RATE: usize = 0;
/// f32: root of the correction of the squares' bias, of `AdamW`.
pub const ROOT: usize = 1;
/// f32: the rate that multiplies weight decay, of `AdamW`.
pub const BASE: usize = 2;
/// f32: longest gradient that is not scaled down.
pub const CLIP: usize = 3;
/// f32: factor of all gradients; the host's 1, or that of [`gradient_norm`](super::optimizer::gradient_norm).
pub const SCALE: usize = 4;
/// u32: where the result of a batch goes.
pub const SLOT: usize = 5;
/// f32: share of a batch in running statistics.
pub const MOMENTUM: usize = 6;
/// u64: what dropout draws from.
pub const SEED: usize = 8;
/// u64: number of the step, for dropout.
pub const STEP: usize = 10;
