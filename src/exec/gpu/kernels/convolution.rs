//! Convolutions that no library does well: depthwise ones, those in groups, and what follows a library's.

use crate::exec::gpu::kernels::reduce::{self, Slices, pieces};
use crate::exec::gpu::tape::{Argument, Place, Tape, Values};
use crate::kernels::Geometry;
use crate::kernels::conv::Conv;

/// Threads of a block.
const THREADS: usize = 256;
/// Blocks that fill a large GPU several times over.
const BLOCKS: usize = 528;
/// Most outputs of a line along which a thread adds up a kernel's gradient without a break.
const SEGMENT: usize = 8;
/// Fewest outputs that a thread adds up for a kernel's gradient.
const LEAST_OUTPUTS: usize = 16;

/// `y = relu?(y + bias)` in place.
pub fn bias_relu(tape: &mut Tape, bias: Option<Place>, relu: bool, y: Values) {
    if bias.is_none() && !relu {
        return;
    }
    let slices = Slices::each(tape.storage, y);
    let mut arguments: Vec<Argument> = vec![bias.into(), y.into(), relu.into()];
    arguments.extend(slices.arguments());
    tape.launch("convolution_bias", slices.grid(), slices.threads, arguments);
}

/// Both axes' sizes, in the order of the kernels' parameters.
fn sizes(g: &Geometry) -> impl Iterator<Item = Argument> {
    let pairs = [g.input, g.output, g.kernel, g.stride, g.padding, g.dilation];
    pairs.into_iter().flatten().map(Argument::from)
}

/// Side and stride of a square window that lies without gaps.
fn square(g: &Geometry) -> Option<(usize, usize)> {
    let [side, stride] = [g.kernel[0], g.stride[0]];
    (g.kernel == [side; 2] && g.stride == [stride; 2] && g.dilation == [1; 2]).then_some((side, stride))
}

/// What a depthwise pass from `from` to `to` does with its results.
#[derive(Debug, Clone, Copy, Default)]
struct Finish {
    bias: Option<Place>,
    relu: bool,
    accumulate: bool,
    /// Whether the kernel is read from its end.
    flip: bool,
}

/// `y = relu?(weight * x + bias)`, a kernel for each channel; the weight is taps x channels.
pub fn depthwise(
    tape: &mut Tape,
    geometry: &Geometry,
    x: Values,
    weight: Place,
    bias: Option<Place>,
    relu: bool,
    y: Values,
) {
    slide(tape, geometry, [x, y], weight, Finish { bias, relu, ..Finish::default() });
}

fn slide(tape: &mut Tape, g: &Geometry, [from, to]: [Values; 2], weight: Place, finish: Finish) {
    let (kernel, outputs) = match square(g) {
        Some((3, 1)) => ("convolution_depthwise31", 4),
        Some((3, 2)) => ("convolution_depthwise32", 2),
        Some((5, 1)) => ("convolution_depthwise51", 4),
        Some((5, 2)) => ("convolution_depthwise52", 2),
        Some((7, 1)) => ("convolution_depthwise71", 4),
        _ => ("convolution_depthwise", 1),
    };
    let pieces = pieces(tape.storage, to);
    let threads = to.examples * g.output[0] * g.output[1].div_ceil(outputs) * pieces;
    let mut arguments: Vec<Argument> = vec![from.into(), weight.into(), finish.bias.into(), to.into()];
    arguments.extend([finish.flip, finish.accumulate, finish.relu].map(Argument::from));
    arguments.extend([to.examples, to.channels, pieces].map(Argument::from));
    arguments.extend(sizes(g));
    tape.launch(kernel, [threads.div_ceil(THREADS), 1, 1], THREADS, arguments);
}

/// The input's gradient of [`depthwise`].
pub fn depthwise_input(
    tape: &mut Tape,
    geometry: &Geometry,
    dy: Values,
    weight: Place,
    dx: Values,
    accumulate: bool,
) {
    if let Some((side @ (3 | 5 | 7), 1)) = square(geometry)
        && geometry.padding.iter().all(|padding| *padding < side)
    {
        // The same with the kernel turned round, where each input's window on the output begins.
        let padding = geometry.padding.map(|padding| side - 1 - padding);
        let back = Geometry { input: geometry.output, output: geometry.input, padding, ..*geometry };
        return slide(tape, &back, [dy, dx], weight, Finish { accumulate, flip: true, ..Finish::default() });
    }
    let pieces = pieces(tape.storage, dx);
    let mut arguments: Vec<Argument> = vec![dy.into(), weight.into(), dx.into(), accumulate.into()];
    arguments.extend([dx.examples, dx.channels, pieces].map(Argument::from));
    arguments.extend(sizes(geometry));
    tape.launch("convolution_depthwise_input", [(dx.rows() * pieces).div_ceil(THREADS), 1, 1], THREADS, arguments);
}

/// The kernels' gradient of [`depthwise`].
pub fn depthwise_weight(tape: &mut Tape, geometry: &Geometry, x: Values, dy: Values, dweight: Place) {
    let g = geometry;
    let (kernel, parts) = match square(g) {
        Some((3, 1)) => ("convolution_depthwise_weight31", 1),
        Some((3, 2)) => ("convolution_depthwise_weight32", 1),
        Some((5, 1)) => ("convolution_depthwise_weight51", 5),
        Some((5, 2)) => ("convolution_depthwise_weight52", 5),
        Some((7, 1)) => ("convolution_depthwise_weight71", 7),
        _ => ("convolution_depthwise_weight", g.taps()),
    };
    let (tile, numbers) = (Slices::each(tape.storage, dy), g.taps() * dy.channels);
    let (chunks, lanes) = (tile.pieces.div_ceil(tile.width), tile.threads / tile.width);
    let length = g.output[1].div_ceil(g.output[1].div_ceil(SEGMENT));
    let units = dy.examples * g.output[0] * g.output[1].div_ceil(length);
    // As many blocks as fill the device, but no more sums than a share of what is added up.
    let most = BLOCKS.div_ceil(chunks * parts).min(dy.rows().div_ceil(4 * g.taps()));
    let slice = units.div_ceil(most).max(lanes * LEAST_OUTPUTS.div_ceil(length)).next_multiple_of(lanes);
    let slices = units.div_ceil(slice);
    let partial = (slices > 1).then(|| tape.scratch(slices * numbers * 4));
    let mut arguments: Vec<Argument> = vec![x.into(), dy.into(), partial.unwrap_or(dweight).into()];
    let all = [dy.examples, dy.channels, tile.pieces, tile.width, slice, length];
    arguments.extend(all.into_iter().map(Argument::from).chain(sizes(g)));
    tape.launch(kernel, [slices, chunks, parts], tile.threads, arguments);
    if let Some(partial) = partial {
        reduce::finish(tape, partial, slices, &[Some(dweight)], numbers);
    }
}

/// `y = relu?(weight * x + bias)` in groups of channels; the weight is outputs x taps x inputs of a group.
pub fn grouped(tape: &mut Tape, conv: &Conv, x: Values, weight: Place, bias: Option<Place>, relu: bool, y: Values) {
    let depth = conv.geometry.channels / conv.groups * conv.geometry.taps();
    let numbers = conv.out_channels * depth;
    let turned = tape.scratch(numbers * 4);
    let arguments = vec![weight.into(), turned.into(), conv.out_channels.into(), depth.into()];
    tape.launch_plain("convolution_turn", [numbers.div_ceil(THREADS), 1, 1], THREADS, arguments);
    let mut arguments: Vec<Argument> = vec![x.into(), turned.into(), bias.into(), y.into(), relu.into()];
    arguments.extend([conv.groups, y.rows()].map(Argument::from));
    arguments.extend(widths(conv, x, y));
    let threads = y.rows().div_ceil(4) * y.stride;
    tape.launch("convolution_grouped", [threads.div_ceil(THREADS), 1, 1], THREADS, arguments);
}

/// Outputs, strides of both ends, channels, and the window's sizes.
fn widths(conv: &Conv, x: Values, y: Values) -> impl Iterator<Item = Argument> {
    let widths = [conv.out_channels, x.stride, y.stride, conv.geometry.channels];
    widths.into_iter().map(Argument::from).chain(sizes(&conv.geometry))
}

/// The input's gradient of [`grouped`].
pub fn grouped_input(tape: &mut Tape, conv: &Conv, dy: Values, weight: Place, dx: Values, accumulate: bool) {
    let mut arguments: Vec<Argument> = vec![dy.into(), weight.into(), dx.into(), accumulate.into()];
    arguments.extend([conv.groups, dx.rows()].map(Argument::from));
    arguments.extend(widths(conv, dx, dy));
    tape.launch("convolution_grouped_input", [dx.numbers().div_ceil(THREADS), 1, 1], THREADS, arguments);
}

/// The weight's gradient of [`grouped`].
pub fn grouped_weight(tape: &mut Tape, conv: &Conv, x: Values, dy: Values, dweight: Place) {
    let numbers = conv.out_channels * conv.geometry.channels / conv.groups * conv.geometry.taps();
    let (blocks, rows) = (numbers.div_ceil(THREADS), dy.rows());
    let slice = rows.div_ceil((2 * BLOCKS).div_ceil(blocks)).max(64);
    let slices = rows.div_ceil(slice);
    let partial = (slices > 1).then(|| tape.scratch(slices * numbers * 4));
    let mut arguments: Vec<Argument> = vec![x.into(), dy.into(), partial.unwrap_or(dweight).into()];
    arguments.extend([conv.groups, rows, slice].map(Argument::from));
    arguments.extend(widths(conv, x, dy));
    tape.launch("convolution_grouped_weight", [blocks, slices, 1], THREADS, arguments);
    if let Some(partial) = partial {
        reduce::finish(tape, partial, slices, &[Some(dweight)], numbers);
    }
}
