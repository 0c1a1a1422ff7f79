//! Normalisation of each example by itself: over groups of channels, over a row, by responses.

use crate::exec::gpu::kernels::reduce::{self, Slices, pieces};
use crate::exec::gpu::tape::{Argument, Place, Storage, Tape, Values};
use crate::kernels::group_norm::GroupNorm;
use crate::kernels::response_norm::ResponseNorm;

/// Threads of a block.
const THREADS: usize = 256;
/// Threads of a block whose group has many numbers, and how many these are.
const MOST_THREADS: usize = 1024;
const MANY_NUMBERS: usize = 1 << 14;
/// Blocks of kernels whose threads keep what they need from row to row.
const BLOCKS: usize = 528;
/// Most channels of a row that threads keep in registers; the kernels have shared memory for so many.
const MOST_CHANNELS: usize = 1024;

/// What the gradients are computed from, and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    x: Values,
    dy: Values,
    weight: Place,
    /// What the forward pass left behind.
    kept: Place,
    /// And whether it is added to what is there.
    dx: Option<(Values, bool)>,
    /// Of factors and summands.
    parameters: [Place; 2],
}

/// How rows that are each normalised by themselves are shared among threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lanes {
    /// Threads of a row.
    lanes: usize,
    /// Pieces of a row that a thread has, rounded up to what there are kernels for.
    each: usize,
}

impl Lanes {
    /// `None` for what is no row by itself, or too long.
    fn of(storage: Storage, norm: &GroupNorm, x: Values) -> Option<Self> {
        let pieces = pieces(storage, x);
        let lanes = pieces.next_power_of_two().min(32);
        let each = pieces.div_ceil(lanes).next_power_of_two();
        let is_row = norm.positions == 1 && norm.group == norm.channels;
        (is_row && norm.channels <= MOST_CHANNELS).then_some(Self { lanes, each })
    }

    /// Blocks, at most so many.
    fn blocks(self, rows: usize, most: usize) -> usize {
        (rows * self.lanes).div_ceil(THREADS).min(most)
    }

    /// The one of four kernels that a row takes.
    fn pick(self, kernels: [&'static str; 4]) -> &'static str {
        kernels[self.each.trailing_zeros() as usize]
    }
}

/// Bytes of the moments that [`group_norm`] leaves behind for `x`.
#[must_use]
pub fn moments_bytes(norm: &GroupNorm, x: Values) -> usize {
    x.rows() / norm.positions * (norm.channels / norm.group) * 8
}

/// Bytes of the responses that [`response_norm`] leaves behind for `x`.
#[must_use]
pub fn responses_bytes(norm: &ResponseNorm, x: Values) -> usize {
    x.rows() / norm.positions * (norm.channels + 1) * 4
}

/// `y = (x - mean) / sqrt(var + eps) * weight + bias` for each group of channels of each example; leaves mean and
/// `1 / sqrt(var + eps)` of each in `moments`.
pub fn group_norm(tape: &mut Tape, norm: &GroupNorm, [weight, bias]: [Place; 2], x: Values, y: Values, moments: Place) {
    let mut arguments: Vec<Argument> = vec![x.into(), weight.into(), bias.into(), y.into(), moments.into()];
    if let Some(lanes) = Lanes::of(tape.storage, norm, x) {
        let sizes = [x.rows(), norm.channels, pieces(tape.storage, x), lanes.lanes];
        arguments.extend(sizes.map(Argument::from));
        arguments.push(norm.eps.into());
        let kernel = lanes.pick(["norms_layer1", "norms_layer2", "norms_layer4", "norms_layer8"]);
        return tape.launch(kernel, [lanes.blocks(x.rows(), BLOCKS), 1, 1], THREADS, arguments);
    }
    arguments.extend([norm.positions, norm.channels, x.stride, norm.group].map(Argument::from));
    arguments.push(norm.eps.into());
    tape.launch("norms_group", groups(norm, x), threads(norm), arguments);
}

/// A block for each group of each example.
fn groups(norm: &GroupNorm, x: Values) -> [usize; 3] {
    [x.rows() / norm.positions, norm.channels / norm.group, 1]
}

fn threads(norm: &GroupNorm) -> usize {
    let numbers = norm.positions * norm.group;
    numbers.next_multiple_of(32).min(if numbers < MANY_NUMBERS { THREADS } else { MOST_THREADS })
}

/// The gradients of [`group_norm`]: of the operand, if it is wanted, written or added; of factors and summands.
pub fn group_norm_backward(
    tape: &mut Tape,
    norm: &GroupNorm,
    weight: Place,
    [x, dy]: [Values; 2],
    moments: Place,
    dx: Option<(Values, bool)>,
    parameters: [Place; 2],
) {
    let wanted = Wanted { x, dy, weight, kept: moments, dx, parameters };
    if let Some(lanes) = Lanes::of(tape.storage, norm, wanted.x) {
        return layer_backward(tape, norm, lanes, &wanted);
    }
    if let Some((dx, accumulate)) = dx {
        let mut arguments: Vec<Argument> = vec![x.into(), dy.into(), weight.into(), moments.into(), dx.into()];
        arguments.push(accumulate.into());
        arguments.extend([norm.positions, norm.channels, x.stride, norm.group].map(Argument::from));
        tape.launch("norms_group_back", groups(norm, x), threads(norm), arguments);
    }
    of_parameters(tape, norm, &wanted);
}

/// Gradients of factors and summands, for any groups.
fn of_parameters(tape: &mut Tape, norm: &GroupNorm, wanted: &Wanted) {
    let (slices, channels) = (Slices::sums(tape.storage, wanted.x), norm.channels);
    let count = slices.slices();
    let partial = (count > 1).then(|| tape.scratch(count * channels * 8));
    let parts = partial.map_or(wanted.parameters, |partial| {
        [0, 1].map(|index| partial.part(index * channels * 4, partial.bytes - channels * 4))
    });
    let mut arguments: Vec<Argument> = vec![wanted.x.into(), wanted.dy.into(), wanted.kept.into()];
    arguments.extend(parts.map(Argument::from));
    arguments.extend([2 * channels, norm.positions, norm.group].map(Argument::from));
    arguments.extend(slices.arguments());
    tape.launch("norms_parameters", slices.grid(), slices.threads, arguments);
    if let Some(partial) = partial {
        reduce::finish(tape, partial, count, &wanted.parameters.map(Some), channels);
    }
}

/// All gradients of rows that are each normalised by themselves, in one pass.
fn layer_backward(tape: &mut Tape, norm: &GroupNorm, lanes: Lanes, wanted: &Wanted) {
    let Wanted { x, dy, weight, kept, dx, parameters } = *wanted;
    // Each block leaves sums behind.
    let blocks = lanes.blocks(x.rows(), BLOCKS / 2);
    let partial = tape.scratch(blocks * norm.channels * 8);
    let mut arguments: Vec<Argument> = vec![x.into(), dy.into(), weight.into(), kept.into()];
    arguments.extend::<[Argument; 2]>([dx.map(|(dx, _)| dx).into(), partial.into()]);
    arguments.push(dx.is_some_and(|(_, accumulate)| accumulate).into());
    arguments.extend([x.rows(), norm.channels, pieces(tape.storage, x), lanes.lanes].map(Argument::from));
    let kernels = ["norms_layer_back1", "norms_layer_back2", "norms_layer_back4", "norms_layer_back8"];
    tape.launch(lanes.pick(kernels), [blocks, 1, 1], THREADS, arguments);
    reduce::finish(tape, partial, blocks, &parameters.map(Some), norm.channels);
}

/// How examples are shared among blocks: the slices of an example's positions, and its tiles.
fn of_example(storage: Storage, x: Values, positions: usize) -> (usize, Slices) {
    let (examples, rows) = (x.rows() / positions, Slices::each(storage, x));
    let lanes = rows.threads / rows.width;
    let slices = (2 * BLOCKS).div_ceil(examples * rows.grid()[1]);
    let slice = positions.div_ceil(slices).next_multiple_of(lanes);
    (examples, Slices { rows: positions, slice, ..rows })
}

fn example_grid(examples: usize, slices: Slices) -> [usize; 3] {
    let [count, chunks, _] = slices.grid();
    [examples * count, chunks, 1]
}

/// `y = x + weight x n + bias`, n a channel's norm over the example's positions by the mean of all channels' norms; leaves
/// the norms and then the means in `responses`.
pub fn response_norm(
    tape: &mut Tape,
    norm: &ResponseNorm,
    [weight, bias]: [Place; 2],
    x: Values,
    y: Values,
    responses: Place,
) {
    let (examples, slices) = of_example(tape.storage, x, norm.positions);
    response_sums(tape, (examples, slices), x, None, |tape, sums| {
        let arguments =
            vec![sums.into(), responses.into(), slices.slices().into(), norm.channels.into(), norm.eps.into()];
        tape.launch_plain("norms_responses", [examples, 1, 1], THREADS, arguments);
    });
    let mut arguments: Vec<Argument> = vec![x.into(), responses.into(), weight.into(), bias.into(), y.into()];
    arguments.extend([examples, slices.slices()].map(Argument::from));
    arguments.extend(slices.arguments());
    tape.launch("norms_response", example_grid(examples, slices), slices.threads, arguments);
}

/// Sums of each example's slices, and what is done with them.
fn response_sums(
    tape: &mut Tape,
    (examples, slices): (usize, Slices),
    x: Values,
    dy: Option<Values>,
    then: impl FnOnce(&mut Tape, Place),
) {
    let kinds = if dy.is_some() { 2 } else { 1 };
    let sums = tape.scratch(examples * slices.slices() * kinds * slices.channels * 4);
    let mut arguments = vec![x.into(), dy.into(), sums.into(), slices.slices().into()];
    arguments.extend(slices.arguments());
    tape.launch("norms_response_sums", example_grid(examples, slices), slices.threads, arguments);
    then(tape, sums);
}

/// The gradients of [`response_norm`]: of the operand, if it is wanted, written or added; of factors and summands.
pub fn response_norm_backward(
    tape: &mut Tape,
    norm: &ResponseNorm,
    weight: Place,
    [x, dy]: [Values; 2],
    responses: Place,
    dx: Option<(Values, bool)>,
    parameters: [Place; 2],
) {
    let channels = norm.channels;
    let (examples, slices) = of_example(tape.storage, x, norm.positions);
    let (of_sums, of_slopes) = (examples * slices.slices() * channels * 8, examples * channels * 8);
    let all = tape.scratch(of_sums + 2 * of_slopes);
    let [slopes, parts] = [0, 1].map(|index| all.part(of_sums + index * of_slopes, of_slopes));
    response_sums(tape, (examples, slices), x, Some(dy), |tape, sums| {
        let mut arguments: Vec<Argument> = vec![sums.into(), responses.into(), weight.into()];
        arguments.extend::<[Argument; 4]>([slopes.into(), parts.into(), slices.slices().into(), channels.into()]);
        tape.launch_plain("norms_response_slopes", [examples, 1, 1], THREADS, arguments);
    });
    if let Some((dx, accumulate)) = dx {
        let mut arguments: Vec<Argument> = vec![x.into(), dy.into(), slopes.into(), dx.into()];
        arguments.extend::<[Argument; 2]>([accumulate.into(), slices.slices().into()]);
        arguments.extend(slices.arguments());
        tape.launch("norms_response_input", example_grid(examples, slices), slices.threads, arguments);
    }
    reduce::finish(tape, parts, examples, &parameters.map(Some), channels);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::kernels::reduce::testing::{Bench, STORAGES};
    use crate::kernels::finite_difference::{sample, workspace};
    use crate::kernels::group_norm::{GroupMoments, Scale};
    use crate::kernels::response_norm::Responses;

    /// Examples and rows of each, channels, channels of a group.
    const GROUPS: [[usize; 4]; 18] = [
        [1, 1, 1, 1],
        [7, 1, 3, 3],
        [129, 1, 5, 5],
        [40, 1, 37, 37],
        [70, 1, 192, 192],
        [9, 1, 300, 300],
        [5, 1, 768, 768],
        [3, 1, 1024, 1024],
        [3, 1, 1500, 1500],
        [2, 1, 2048, 2048],
        [3, 7, 6, 2],
        [2, 49, 37, 37],
        [3, 10, 35, 1],
        [2, 33, 32, 8],
        [2, 17, 24, 4],
        [40, 20, 6, 3],
        [1, 600, 32, 32],
        [1, 600, 30, 30],
    ];

    #[test]
    fn groups_are_normalised_as_on_the_processor() {
        for (storage, sizes) in STORAGES.into_iter().flat_map(|storage| GROUPS.map(|sizes| (storage, sizes))) {
            for add in [false, true] {
                groups_of(&mut Bench::new(storage), sizes, add);
            }
        }
    }

    fn groups_of(bench: &mut Bench, [examples, positions, channels, group]: [usize; 4], add: bool) {
        let (norm, shape) = (GroupNorm { channels, group, positions, eps: 1e-5 }, [examples, positions, channels]);
        let len = examples * positions * channels;
        let [x, dy, old] = [1, 2, 3].map(|seed| bench.sample(len, seed));
        let x: Vec<f64> = x.iter().map(|x| x + 1.0).collect();
        let [w, b] = [4, 5].map(|seed| sample(channels, seed));
        let [on_x, on_dy] = [&x, &dy].map(|numbers| bench.values(numbers, shape));
        let x: Vec<f64> = bench.device.read(on_x, bench.storage).iter().map(|x| f64::from(*x)).collect();
        let [weight, bias] = [&w, &b].map(|numbers| bench.numbers(numbers));
        let (y, dx) = (bench.output(shape), bench.target(&old, shape, add));
        let (moments, parameters) =
            (bench.device.place(moments_bytes(&norm, on_x)), [0; 2].map(|_| bench.place(channels)));
        group_norm(&mut bench.tape, &norm, [weight, bias], on_x, y, moments);
        bench.play();
        group_norm_backward(&mut bench.tape, &norm, weight, [on_x, on_dy], moments, Some((dx, add)), parameters);
        bench.play();
        let (mut expected, mut kept) = (vec![0.0; len], vec![GroupMoments::default(); norm.moments(len)]);
        norm.forward(&x, Scale { weight: &w, bias: &b }, &mut kept, &mut expected);
        bench.same("y", y, &expected);
        let (mut of_x, mut dw, mut db) = (old.clone(), vec![0.0; channels], vec![0.0; channels]);
        norm.backward_parameters(&mut workspace(), &x, &dy, &kept, [&mut dw, &mut db]);
        norm.backward_input([&x, &dy, &w], &kept, &mut of_x, add);
        bench.same("dx", dx, &of_x);
        bench.exact("dweight", parameters[0], &dw);
        bench.exact("dbias", parameters[1], &db);
    }

    #[test]
    fn responses_are_normalised_as_on_the_processor() {
        let shapes = [[1, 1, 1], [3, 7, 5], [2, 49, 37], [5, 16, 64], [2, 600, 12], [3, 20, 300]];
        for (storage, shape) in STORAGES.into_iter().flat_map(|storage| shapes.map(|shape| (storage, shape))) {
            for add in [false, true] {
                responses_of(&mut Bench::new(storage), shape, add);
            }
        }
    }

    fn responses_of(bench: &mut Bench, shape: [usize; 3], add: bool) {
        let [examples, positions, channels] = shape;
        let (norm, len) = (ResponseNorm { channels, positions, eps: 1e-6 }, examples * positions * channels);
        let [mut x, dy, old] = [1, 2, 3].map(|seed| bench.sample(len, seed));
        // A channel that is 0 everywhere has no slope.
        x.iter_mut()
            .skip(channels - 1)
            .step_by(channels)
            .take(if channels > 1 { len } else { 0 })
            .for_each(|x| *x = 0.0);
        let [w, b] = [4, 5].map(|seed| sample(channels, seed));
        let [on_x, on_dy] = [&x, &dy].map(|numbers| bench.values(numbers, shape));
        let [weight, bias] = [&w, &b].map(|numbers| bench.numbers(numbers));
        let (y, dx) = (bench.output(shape), bench.target(&old, shape, add));
        let (kept, parameters) =
            (bench.device.place(responses_bytes(&norm, on_x)), [0; 2].map(|_| bench.place(channels)));
        response_norm(&mut bench.tape, &norm, [weight, bias], on_x, y, kept);
        bench.play();
        response_norm_backward(&mut bench.tape, &norm, weight, [on_x, on_dy], kept, Some((dx, add)), parameters);
        bench.play();
        let (mut expected, mut responses) = (vec![0.0; len], Responses::default());
        norm.forward(&x, Scale { weight: &w, bias: &b }, &mut responses, &mut expected);
        bench.same("y", y, &expected);
        let (mut of_x, mut dw, mut db) = (old.clone(), vec![0.0; channels], vec![0.0; channels]);
        norm.backward_parameters(&x, &dy, &responses, [&mut dw, &mut db]);
        norm.backward_input([&x, &dy, &w], &responses, &mut of_x, add);
        bench.same("dx", dx, &of_x);
        bench.exact("dweight", parameters[0], &dw);
        bench.exact("dbias", parameters[1], &db);
    }
}
