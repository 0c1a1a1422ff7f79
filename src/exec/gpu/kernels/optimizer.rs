//! Steps of the optimizers, over all parameters in one buffer: whole pieces of 16 bytes, those with weight decay first.

use crate::exec::gpu::kernels::elementwise::THREADS;
use crate::exec::gpu::tape::{Place, Tape};

/// Numbers that change from step to step, in a block on the device: which word of 32 bits each one is.
pub mod scalars {
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
    /// f32: factor of all gradients; the host's 1, or that of [`gradient_norm`](super::gradient_norm).
    pub const SCALE: usize = 4;
    /// u32: where the result of a batch goes.
    pub const SLOT: usize = 5;
    /// f32: share of a batch in running statistics.
    pub const MOMENTUM: usize = 6;
    /// u64: what dropout draws from.
    pub const SEED: usize = 8;
    /// u64: number of the step, for dropout.
    pub const STEP: usize = 10;
}

/// Numbers that a single block looks at.
const WHOLE: usize = 1 << 16;
/// Most slices of a sum.
const SLICES: usize = 528;

/// SGD with momentum: `v = momentum v + (g + weight_decay w)`, `w -= rate v`, or with Nesterov
/// `w -= rate (g + weight_decay w + momentum v)`.
#[derive(Debug, Clone, Copy)]
pub struct Sgd {
    /// All parameters.
    pub weights: Place,
    /// Their gradients.
    pub gradients: Place,
    /// Their velocities.
    pub velocity: Place,
    /// How many numbers there are, a multiple of 4.
    pub numbers: usize,
    /// How many of them, the first ones, decay.
    pub decaying: usize,
    /// See above.
    pub momentum: f32,
    /// See above.
    pub weight_decay: f32,
    /// See above.
    pub nesterov: bool,
    /// See [`scalars`].
    pub scalars: Place,
    /// Gets the weights in bf16.
    pub low: Option<Place>,
}

fn blocks(pieces: usize) -> [usize; 3] {
    [pieces.div_ceil(THREADS).max(1), 1, 1]
}

/// A step of [`Sgd`].
pub fn sgd(tape: &mut Tape, sgd: Sgd) {
    let arguments = vec![
        sgd.weights.into(),
        sgd.gradients.into(),
        sgd.velocity.into(),
        sgd.low.into(),
        sgd.scalars.into(),
        (sgd.numbers / 4).into(),
        sgd.decaying.into(),
        sgd.momentum.into(),
        sgd.weight_decay.into(),
        sgd.nesterov.into(),
    ];
    tape.launch_plain("sgd_step", blocks(sgd.numbers / 4), THREADS, arguments);
}

/// `AdamW`: `w -= rate weight_decay w`, then `w -= rate m̂ / (sqrt(v̂) + eps)` with the bias-corrected running means m̂ of g and v̂ of g².
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    /// All parameters.
    pub weights: Place,
    /// Their gradients.
    pub gradients: Place,
    /// Running means of the gradients.
    pub mean: Place,
    /// Running means of their squares.
    pub square: Place,
    /// How many numbers there are, a multiple of 4.
    pub numbers: usize,
    /// How many of them, the first ones, decay.
    pub decaying: usize,
    /// How much of the means stays.
    pub betas: [f32; 2],
    /// Added to the root.
    pub eps: f32,
    /// See above.
    pub weight_decay: f32,
    /// See [`scalars`].
    pub scalars: Place,
    /// Gets the weights in bf16.
    pub low: Option<Place>,
}

/// A step of [`AdamW`].
pub fn adamw(tape: &mut Tape, adam: AdamW) {
    let arguments = vec![
        adam.weights.into(),
        adam.gradients.into(),
        adam.mean.into(),
        adam.square.into(),
        adam.low.into(),
        adam.scalars.into(),
        (adam.numbers / 4).into(),
        adam.decaying.into(),
        adam.betas[0].into(),
        adam.betas[1].into(),
        adam.eps.into(),
        adam.weight_decay.into(),
    ];
    tape.launch_plain("adamw_step", blocks(adam.numbers / 4), THREADS, arguments);
}

/// Writes to the [`scalars`] by which factor the gradients, a multiple of 4 `numbers`, get no longer than their clip allows.
pub fn gradient_norm(tape: &mut Tape, gradients: Place, numbers: usize, scalars: Place) {
    let slices = if numbers <= WHOLE { 1 } else { (numbers / 4).div_ceil(4 * THREADS).min(SLICES) };
    let partial = tape.scratch(8 * slices);
    let threads = if slices == 1 { 1024 } else { THREADS };
    let arguments = vec![gradients.into(), partial.into(), scalars.into(), (numbers / 4).into()];
    tape.launch_plain("gradient_squares", [slices, 1, 1], threads, arguments);
    if slices > 1 {
        tape.launch_plain("gradient_scale", [1, 1, 1], THREADS, vec![partial.into(), scalars.into(), slices.into()]);
    }
}

/// The word `flag` becomes 1 where any of the weights is not finite, and otherwise stays.
pub fn finite(tape: &mut Tape, weights: Place, numbers: usize, flag: Place) {
    let blocks = numbers.div_ceil(8 * THREADS).clamp(1, SLICES);
    tape.launch_plain("find_not_finite", [blocks, 1, 1], THREADS, vec![weights.into(), flag.into(), numbers.into()]);
}

/// `low` gets the weights, a multiple of 4 `numbers`, in bf16.
pub fn to_low(tape: &mut Tape, weights: Place, low: Place, numbers: usize) {
    let arguments = vec![weights.into(), low.into(), (numbers / 4).into()];
    tape.launch_plain("to_low", blocks(numbers / 4), THREADS, arguments);
}
