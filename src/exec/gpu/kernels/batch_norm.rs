//! Normalisation of each channel over all rows of a batch.

use crate::exec::gpu::kernels::reduce::{self, Slices};
use crate::exec::gpu::tape::{Argument, Place, Tape, Values};

/// A normalisation: its constants, of `channels` numbers each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNorm {
    /// Channels of a row.
    pub channels: usize,
    /// Added to the variance.
    pub eps: f64,
    /// The factors, else 1.
    pub weight: Option<Place>,
    /// The summands, else 0.
    pub bias: Option<Place>,
}

/// What a batch is normalised by, `channels` numbers each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Means.
    pub mean: Place,
    /// `1 / sqrt(var + eps)`.
    pub inverse_std: Place,
}

/// Statistics that follow those of the batches, `channels` numbers each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Means.
    pub mean: Place,
    /// Unbiased variances.
    pub var: Place,
}

/// What follows the normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Added to what is normalised.
    pub residual: Option<Values>,
    /// Whether negative results become 0 then.
    pub relu: bool,
}

/// The gradients that are wanted; those of operands say whether they are added to what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backward {
    /// The operand.
    pub x: Values,
    /// The result, which tells where ReLU let through.
    pub y: Values,
    /// The result's gradient.
    pub dy: Values,
    /// Whether ReLU came last.
    pub relu: bool,
    /// Of the operand.
    pub dx: Option<(Values, bool)>,
    /// Of what was added before ReLU.
    pub dresidual: Option<(Values, bool)>,
    /// Of the factors.
    pub dweight: Option<Place>,
    /// Of the summands.
    pub dbias: Option<Place>,
}

/// How a gradient passes ReLU; the numbers are those of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mask {
    All = 0,
    ByY = 1,
    Again = 2,
}

/// Measures `x` (rows x channels) and moves the running statistics towards it, by the share in word 6 of `scalars`.
pub fn measure(tape: &mut Tape, bn: &BatchNorm, x: Values, statistics: Statistics, running: Running, scalars: Place) {
    let slices = Slices::sums(tape.storage, x);
    if slices.slices() == 1 {
        return whole(tape, bn, x, (statistics, running, scalars), None, slices);
    }
    let moments = tape.scratch(slices.slices() * bn.channels * 8);
    let mut arguments = vec![x.into(), moments.into()];
    arguments.extend(slices.arguments());
    tape.launch("batch_norm_measure", slices.grid(), slices.threads, arguments);
    let mut arguments = vec![moments.into()];
    arguments.extend(measured(statistics, running, scalars));
    arguments.extend([slices.rows.into(), bn.channels.into(), slices.slice.into(), bn.eps.into()]);
    tape.launch_plain("batch_norm_combine", [bn.channels.div_ceil(8), 1, 1], 256, arguments);
}

/// [`measure`] and [`apply`], in one launch where there are few rows.
pub fn forward(
    tape: &mut Tape,
    bn: &BatchNorm,
    x: Values,
    (statistics, running, scalars): (Statistics, Running, Place),
    sum: Sum,
    y: Values,
) {
    let slices = Slices::sums(tape.storage, x);
    if slices.slices() == 1 {
        return whole(tape, bn, x, (statistics, running, scalars), Some((sum, y)), slices);
    }
    measure(tape, bn, x, statistics, running, scalars);
    apply(tape, bn, statistics, x, sum.residual, sum.relu, y);
}

fn measured(statistics: Statistics, running: Running, scalars: Place) -> [Argument; 5] {
    [statistics.mean, statistics.inverse_std, running.mean, running.var, scalars].map(Argument::from)
}

fn whole(
    tape: &mut Tape,
    bn: &BatchNorm,
    x: Values,
    (statistics, running, scalars): (Statistics, Running, Place),
    then: Option<(Sum, Values)>,
    slices: Slices,
) {
    let residual = then.and_then(|(sum, _)| sum.residual);
    let mut arguments = vec![x.into(), residual.into(), then.map(|(_, y)| y).into()];
    arguments.extend(measured(statistics, running, scalars));
    arguments.extend([bn.weight.into(), bn.bias.into(), then.is_some_and(|(sum, _)| sum.relu).into(), bn.eps.into()]);
    arguments.extend(slices.arguments());
    tape.launch("batch_norm_whole", slices.grid(), slices.threads, arguments);
}

/// Makes statistics of the running ones, for evaluation.
pub fn fixed(tape: &mut Tape, bn: &BatchNorm, running: Running, statistics: Statistics) {
    let arguments = vec![
        running.mean.into(),
        running.var.into(),
        statistics.mean.into(),
        statistics.inverse_std.into(),
        bn.channels.into(),
        bn.eps.into(),
    ];
    tape.launch_plain("batch_norm_fixed", [bn.channels.div_ceil(128), 1, 1], 128, arguments);
}

/// `y = (x - mean) / sqrt(var + eps) * weight + bias`, plus `residual` if there is one, then ReLU if wanted.
pub fn apply(
    tape: &mut Tape,
    bn: &BatchNorm,
    statistics: Statistics,
    x: Values,
    residual: Option<Values>,
    relu: bool,
    y: Values,
) {
    let slices = Slices::each(tape.storage, x);
    let mut arguments = vec![x.into(), residual.into(), y.into()];
    arguments.extend(constants(bn, statistics));
    arguments.push(relu.into());
    arguments.extend(slices.arguments());
    tape.launch("batch_norm_apply", slices.grid(), slices.threads, arguments);
}

fn constants(bn: &BatchNorm, statistics: Statistics) -> [Argument; 4] {
    [statistics.mean.into(), statistics.inverse_std.into(), bn.weight.into(), bn.bias.into()]
}

/// The gradients through a batch's own statistics. `dx` and `dresidual` may be `dy` itself.
pub fn backward(tape: &mut Tape, bn: &BatchNorm, statistics: Statistics, backward: Backward) {
    let mask = if backward.relu { Mask::ByY } else { Mask::All };
    run(tape, bn, statistics, backward, mask);
}

/// [`backward`] where nothing was added before ReLU: `y` is computed again and not read, which is faster.
pub fn backward_alone(tape: &mut Tape, bn: &BatchNorm, statistics: Statistics, backward: Backward) {
    let mask = if backward.relu { Mask::Again } else { Mask::All };
    run(tape, bn, statistics, backward, mask);
}

fn run(tape: &mut Tape, bn: &BatchNorm, statistics: Statistics, mut wanted: Backward, mut mask: Mask) {
    let slices = Slices::sums(tape.storage, wanted.x);
    if slices.slices() == 1 {
        return second(tape, "batch_norm_back", (bn, statistics), &wanted, mask, slices);
    }
    let sums = slices.slices() * bn.channels * 8;
    let scratch = tape.scratch(sums.next_multiple_of(16) + 2 * (bn.channels * 4).next_multiple_of(16));
    let partial = scratch.part(0, sums);
    // Where the masked gradient is written anyway, the second pass reads it instead of the whole gradient and the result.
    let masked = wanted.dresidual.and_then(|(values, accumulate)| (!accumulate).then_some(values));
    let mut arguments = operands(&wanted);
    arguments.extend(constants(bn, statistics));
    arguments.extend([masked.into(), partial.into(), Argument::Int(mask as i32)]);
    arguments.extend(slices.arguments());
    tape.launch("batch_norm_sums_of", slices.grid(), slices.threads, arguments);
    let spare = |index: usize| {
        let bytes = bn.channels * 4;
        scratch.part(sums.next_multiple_of(16) + index * bytes.next_multiple_of(16), bytes)
    };
    let (dweight, dbias) = (wanted.dweight.unwrap_or_else(|| spare(0)), wanted.dbias.unwrap_or_else(|| spare(1)));
    reduce::finish(tape, partial, slices.slices(), &[Some(dweight), Some(dbias)], bn.channels);
    if let Some(masked) = masked {
        (wanted.dy, wanted.dresidual, mask) = (masked, None, Mask::All);
    }
    (wanted.dweight, wanted.dbias) = (Some(dweight), Some(dbias));
    if wanted.dx.is_some() || wanted.dresidual.is_some() {
        let slices = Slices::each(tape.storage, wanted.x);
        second(tape, "batch_norm_input", (bn, statistics), &wanted, mask, slices);
    }
}

fn operands(wanted: &Backward) -> Vec<Argument> {
    vec![wanted.x.into(), wanted.y.into(), wanted.dy.into()]
}

/// Launches a kernel that writes the operands' gradients.
fn second(
    tape: &mut Tape,
    kernel: &'static str,
    (bn, statistics): (&BatchNorm, Statistics),
    wanted: &Backward,
    mask: Mask,
    slices: Slices,
) {
    let place = |gradient: Option<(Values, bool)>| Argument::from(gradient.map(|(values, _)| values));
    let add = |gradient: Option<(Values, bool)>| Argument::from(gradient.is_some_and(|(_, accumulate)| accumulate));
    let mut arguments = operands(wanted);
    arguments.extend(constants(bn, statistics));
    arguments.extend([wanted.dweight.into(), wanted.dbias.into(), place(wanted.dx), place(wanted.dresidual)]);
    arguments.extend([add(wanted.dx), add(wanted.dresidual), Argument::Int(mask as i32)]);
    arguments.extend(slices.arguments());
    tape.launch(kernel, slices.grid(), slices.threads, arguments);
}
