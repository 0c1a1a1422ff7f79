//! Convolutions that no library does well: depthwise ones, those in groups, and what follows a library's.

use crate::exec::gpu::kernels::reduce::{self, Slices, pieces};
use crate::exec::gpu::tape::{Argument, Place, Storage, Tape, Values};
use crate::kernels::Geometry;
use crate::kernels::conv::Conv;

/// Threads of a block.
const THREADS: usize = 256;
/// Threads of a block where each needs many registers.
const FEW_THREADS: usize = 128;
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
    // Outputs of a thread, as many as the kernels have.
    let many = if tape.storage == Storage::F32 { 4 } else { 2 };
    let (kernel, outputs) = match square(g) {
        Some((3, 1)) => ("convolution_depthwise31", many),
        Some((3, 2)) => ("convolution_depthwise32", 2),
        Some((5, 1)) => ("convolution_depthwise51", many),
        Some((5, 2)) => ("convolution_depthwise52", 2),
        Some((7, 1)) => ("convolution_depthwise71", many),
        _ => ("convolution_depthwise", 1),
    };
    let pieces = pieces(tape.storage, to);
    let threads = to.examples * g.output[0] * g.output[1].div_ceil(outputs) * pieces;
    let mut arguments: Vec<Argument> = vec![from.into(), weight.into(), finish.bias.into(), to.into()];
    arguments.extend([finish.flip, finish.accumulate, finish.relu].map(Argument::from));
    arguments.extend([to.examples, to.channels, pieces].map(Argument::from));
    arguments.extend(sizes(g));
    tape.launch(kernel, [threads.div_ceil(FEW_THREADS), 1, 1], FEW_THREADS, arguments);
}

/// The input's gradient of [`depthwise`].
pub fn depthwise_input(tape: &mut Tape, geometry: &Geometry, dy: Values, weight: Place, dx: Values, accumulate: bool) {
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
    let threads = if tape.storage == Storage::F32 { THREADS } else { FEW_THREADS };
    let (chunks, lanes) = (tile.pieces.div_ceil(tile.width), threads / tile.width);
    let length = g.output[1].div_ceil(g.output[1].div_ceil(SEGMENT));
    let units = dy.examples * g.output[0] * g.output[1].div_ceil(length);
    // As many blocks as fill the device, but no more sums than a share of what is added up.
    let most = (BLOCKS * THREADS / threads).div_ceil(chunks * parts).min(dy.rows().div_ceil(4 * g.taps()));
    let slice = units.div_ceil(most).max(lanes * LEAST_OUTPUTS.div_ceil(length)).next_multiple_of(lanes);
    let slices = units.div_ceil(slice);
    let partial = (slices > 1).then(|| tape.scratch(slices * numbers * 4));
    let mut arguments: Vec<Argument> = vec![x.into(), dy.into(), partial.unwrap_or(dweight).into()];
    let all = [dy.examples, dy.channels, tile.pieces, tile.width, slice, length];
    arguments.extend(all.into_iter().map(Argument::from).chain(sizes(g)));
    tape.launch(kernel, [slices, chunks, parts], threads, arguments);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::kernels::reduce::testing::{Bench, STORAGES};
    use crate::kernels::conv::Depthwise;
    use crate::kernels::elementwise::finish_rows;
    use crate::kernels::finite_difference::{sample, workspace};

    fn window(
        input: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        dilation: [usize; 2],
    ) -> Geometry {
        let reach = |i: usize| (kernel[i] - 1) * dilation[i] + 1;
        let output = [0, 1].map(|i| (input[i] + 2 * padding[i] - reach(i)) / stride[i] + 1);
        Geometry { channels: 1, input, output, kernel, stride, padding, dilation }
    }

    fn windows() -> Vec<Geometry> {
        let of_side = |input, side: usize, stride| window(input, [side; 2], [stride; 2], [side / 2; 2], [1; 2]);
        let mut windows: Vec<Geometry> =
            [3, 5, 7].into_iter().flat_map(|side| [1, 2, 3].map(|stride| of_side([7, 10], side, stride))).collect();
        windows.extend([
            of_side([4, 4], 3, 1),
            of_side([32, 19], 3, 1),
            of_side([32, 19], 3, 2),
            window([5, 6], [3, 3], [1, 1], [0, 0], [1, 1]),
            window([5, 6], [3, 3], [1, 1], [3, 3], [1, 1]),
            window([7, 5], [3, 2], [2, 3], [0, 1], [1, 1]),
            window([5, 4], [1, 1], [2, 2], [0, 0], [1, 1]),
            window([7, 8], [3, 2], [1, 2], [2, 0], [2, 3]),
            window([9, 8], [3, 3], [2, 2], [2, 2], [2, 2]),
        ]);
        windows
    }

    #[test]
    fn kernels_for_each_channel_are_those_of_the_processor() {
        for (index, g) in windows().into_iter().enumerate() {
            for (storage, channels) in
                STORAGES.into_iter().flat_map(|storage| [1, 5, 72].map(|channels| (storage, channels)))
            {
                let geometry = Geometry { channels, ..g };
                depthwise_passes(&mut Bench::new(storage), &geometry, index % 2 == 0);
            }
        }
        // Many tiles of columns, and one line in a slice.
        depthwise_passes(&mut Bench::new(STORAGES[1]), &Geometry { channels: 300, ..windows()[0] }, true);
    }

    fn depthwise_passes(bench: &mut Bench, g: &Geometry, flag: bool) {
        let (conv, examples) = (Depthwise { geometry: *g }, 3);
        let shape = [examples, g.input[0] * g.input[1], g.channels];
        let out = [examples, g.positions(), g.channels];
        let [x, old] = [1, 2].map(|seed| bench.sample(shape.iter().product(), seed));
        let (dy, w, b) =
            (bench.sample(out.iter().product(), 3), sample(g.taps() * g.channels, 4), sample(g.channels, 5));
        let (on_x, on_dy, weight) = (bench.values(&x, shape), bench.values(&dy, out), bench.numbers(&w));
        let bias = flag.then(|| bench.numbers(&b));
        let (y, dx, dweight) = (bench.output(out), bench.target(&old, shape, flag), bench.place(w.len()));
        depthwise(&mut bench.tape, g, on_x, weight, bias, flag, y);
        depthwise_input(&mut bench.tape, g, on_dy, weight, dx, flag);
        depthwise_weight(&mut bench.tape, g, on_x, on_dy, dweight);
        bench.play();
        let (mut expected, mut of_x, mut of_weight) = (vec![0.0; dy.len()], old.clone(), vec![0.0; w.len()]);
        conv.forward(&x, &w, flag.then_some(&b), flag, &mut expected);
        conv.backward_input(&dy, &w, &mut of_x, flag);
        conv.backward_parameters(&mut workspace(), &x, &dy, &mut of_weight, None);
        bench.same("y", y, &expected);
        bench.same("dx", dx, &of_x);
        bench.exact("dweight", dweight, &of_weight);
    }

    #[test]
    fn groups_are_those_of_the_processor() {
        for (index, g) in windows().into_iter().enumerate() {
            for (storage, [groups, inputs, outputs]) in STORAGES
                .into_iter()
                .flat_map(|storage| [[1, 3, 5], [3, 1, 2], [2, 8, 16], [5, 4, 3]].map(|sizes| (storage, sizes)))
            {
                let geometry = Geometry { channels: groups * inputs, ..g };
                let conv = Conv { geometry, out_channels: groups * outputs, groups };
                grouped_passes(&mut Bench::new(storage), &conv, index % 2 == 0);
            }
        }
    }

    fn grouped_passes(bench: &mut Bench, conv: &Conv, flag: bool) {
        let (g, examples) = (&conv.geometry, 3);
        let shape = [examples, g.input[0] * g.input[1], g.channels];
        let out = [examples, g.positions(), conv.out_channels];
        let [x, old] = [1, 2].map(|seed| bench.sample(shape.iter().product(), seed));
        let w = sample(conv.out_channels * g.channels / conv.groups * g.taps(), 4);
        let (dy, b) = (bench.sample(out.iter().product(), 3), sample(conv.out_channels, 5));
        let (on_x, on_dy, weight) = (bench.values(&x, shape), bench.values(&dy, out), bench.numbers(&w));
        let bias = flag.then(|| bench.numbers(&b));
        let (y, dx, dweight) = (bench.output(out), bench.target(&old, shape, flag), bench.place(w.len()));
        grouped(&mut bench.tape, conv, on_x, weight, bias, flag, y);
        grouped_input(&mut bench.tape, conv, on_dy, weight, dx, flag);
        grouped_weight(&mut bench.tape, conv, on_x, on_dy, dweight);
        bench.play();
        let (mut expected, mut of_x, mut of_weight) = (vec![0.0; dy.len()], old.clone(), vec![0.0; w.len()]);
        conv.forward(&mut workspace(), &x, &w, flag.then_some(&b), flag, &mut expected);
        conv.backward_input(&mut workspace(), &dy, &w, &mut of_x, flag);
        conv.backward_parameters(&mut workspace(), &x, &dy, &mut of_weight, None);
        bench.same("y", y, &expected);
        bench.same("dx", dx, &of_x);
        bench.exact("dweight", dweight, &of_weight);
    }

    #[test]
    fn a_bias_and_relu_follow() {
        for (storage, shape) in STORAGES
            .into_iter()
            .flat_map(|storage| [[1, 1, 1], [7, 3, 5], [500, 2, 37], [3, 2, 300]].map(|shape| (storage, shape)))
        {
            for (with_bias, relu) in [(true, true), (true, false), (false, true)] {
                let mut bench = Bench::new(storage);
                let mut y = bench.sample(shape.iter().product(), 1);
                let b = sample(shape[2], 2);
                let (on_y, bias) = (bench.values(&y, shape), with_bias.then(|| bench.numbers(&b)));
                bias_relu(&mut bench.tape, bias, relu, on_y);
                bench.play();
                finish_rows(&mut y, shape[2], with_bias.then_some(&b), relu);
                bench.same("y", on_y, &y);
            }
        }
    }
}
