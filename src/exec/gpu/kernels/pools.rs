//! Maxima and means over windows, over parts of images and over whole ones, and blur pools.

use crate::exec::gpu::kernels::reduce::{Slices, pieces};
use crate::exec::gpu::tape::{Argument, Place, Tape, Values};
use crate::kernels::blur::Blur;
use crate::kernels::pool::Cover;

/// Threads of a block.
const THREADS: usize = 256;
/// Blocks that fill a large GPU several times over.
const BLOCKS: usize = 1056;
/// For each position of a target the positions of a source that it is made of, and what they count for.
#[derive(Debug, Clone, Default, PartialEq)]
struct Links(Vec<Vec<(usize, f64)>>);

impl Links {
    /// What an output of a mean is made of.
    fn of_cover(cover: &Cover) -> Self {
        let of_one = |o: usize| cover.positions(o).map(|position| (position, 1.0 / cover.count(o) as f64)).collect();
        Self((0..cover.outputs()).map(of_one).collect())
    }

    /// What an output of a blur is made of.
    fn of_blur(blur: &Blur) -> Self {
        Self((0..blur.outputs()).map(|o| blur.shares(o)).collect())
    }

    /// The other way: for each of `sources` positions the targets that it is a part of.
    fn reversed(&self, sources: usize) -> Self {
        let mut links = vec![Vec::new(); sources];
        for (target, parts) in self.0.iter().enumerate() {
            for (source, share) in parts {
                links[*source].push((target, *share));
            }
        }
        Self(links)
    }

    /// Where each target's sources start, and the sources.
    fn tables(&self, tape: &mut Tape) -> [Argument; 2] {
        let mut starts = vec![0];
        starts.extend(self.0.iter().scan(0, |end, parts| {
            *end += parts.len() as i32;
            Some(*end)
        }));
        let sources: Vec<i32> = self.0.iter().flatten().map(|(source, _)| *source as i32).collect();
        [tape.constant(&starts).into(), tape.constant(&sources).into()]
    }

    /// What each source counts for.
    fn shares(&self, tape: &mut Tape) -> Argument {
        let bits = |(_, share): &(usize, f64)| (*share as f32).to_bits().cast_signed();
        tape.constant(&self.0.iter().flatten().map(bits).collect::<Vec<i32>>()).into()
    }
}

/// Whether the one output covers all positions.
fn is_whole(cover: &Cover) -> bool {
    cover.outputs() == 1 && cover.positions(0).count() == cover.inputs()
}

/// A thread for each piece of a target's values: rows, pieces of a row, and the grid.
fn each_piece(tape: &Tape, values: Values) -> ([usize; 2], [usize; 3]) {
    let (rows, pieces) = (values.rows(), pieces(tape.storage, values));
    ([rows, pieces], [(rows * pieces).div_ceil(THREADS), 1, 1])
}

/// Maxima; padding never counts. `argmax` gets an `i32` for each number of `y`: the input's position of each maximum (the
/// first among equals; NaN wins).
pub fn max_pool(tape: &mut Tape, cover: &Cover, x: Values, y: Values, argmax: Place) {
    let mut arguments: Vec<Argument> = vec![x.into(), y.into(), argmax.into()];
    if is_whole(cover) {
        return all(tape, "pools_max_all", x, arguments);
    }
    arguments.extend(Links::of_cover(cover).tables(tape));
    let (sizes, grid) = each_piece(tape, y);
    arguments.extend(sizes.into_iter().chain([cover.inputs(), cover.outputs()]).map(Argument::from));
    tape.launch("pools_max", grid, THREADS, arguments);
}

/// Gives each maximum's gradient to its position.
pub fn max_pool_backward(tape: &mut Tape, cover: &Cover, argmax: Place, dy: Values, dx: Values, accumulate: bool) {
    if is_whole(cover) {
        return spread(tape, Some(argmax), dy, dx, 1.0, accumulate);
    }
    let mut arguments: Vec<Argument> = vec![argmax.into(), dy.into(), dx.into()];
    arguments.extend(Links::of_cover(cover).reversed(cover.inputs()).tables(tape));
    arguments.push(accumulate.into());
    let (sizes, grid) = each_piece(tape, dx);
    arguments.extend(sizes.into_iter().chain([cover.inputs(), cover.outputs()]).map(Argument::from));
    tape.launch("pools_max_back", grid, THREADS, arguments);
}

/// Means.
pub fn mean_pool(tape: &mut Tape, cover: &Cover, x: Values, y: Values) {
    if is_whole(cover) {
        let arguments = vec![x.into(), y.into(), (1.0 / cover.count(0) as f64).into()];
        return all(tape, "pools_mean_all", x, arguments);
    }
    sum(tape, &Links::of_cover(cover), x, y, false);
}

/// Spreads each mean's gradient over what it covers.
pub fn mean_pool_backward(tape: &mut Tape, cover: &Cover, dy: Values, dx: Values, accumulate: bool) {
    if is_whole(cover) {
        return spread(tape, None, dy, dx, 1.0 / cover.count(0) as f64, accumulate);
    }
    sum(tape, &Links::of_cover(cover).reversed(cover.inputs()), dy, dx, accumulate);
}

/// The blurred images.
pub fn blur(tape: &mut Tape, blur: &Blur, x: Values, y: Values) {
    sum(tape, &Links::of_blur(blur), x, y, false);
}

/// Spreads the gradients over what the outputs are made of.
pub fn blur_backward(tape: &mut Tape, blur: &Blur, dy: Values, dx: Values, accumulate: bool) {
    let links = Links::of_blur(blur).reversed(dx.positions);
    sum(tape, &links, dy, dx, accumulate);
}

/// Sums of the sources by their shares.
fn sum(tape: &mut Tape, links: &Links, from: Values, to: Values, accumulate: bool) {
    let mut arguments: Vec<Argument> = vec![from.into(), to.into()];
    arguments.extend(links.tables(tape));
    arguments.extend::<[Argument; 2]>([links.shares(tape), accumulate.into()]);
    let (sizes, grid) = each_piece(tape, to);
    arguments.extend(sizes.into_iter().chain([from.positions, to.positions]).map(Argument::from));
    tape.launch("pools_sum", grid, THREADS, arguments);
}

/// One output of all positions: a block for some columns of an example.
fn all(tape: &mut Tape, kernel: &'static str, x: Values, mut arguments: Vec<Argument>) {
    let pieces = pieces(tape.storage, x);
    let width = pieces.div_ceil(pieces.div_ceil(16));
    let threads = (width * x.positions).next_multiple_of(32).min(THREADS);
    arguments.extend([x.positions, pieces, width].map(Argument::from));
    tape.launch(kernel, [x.examples, pieces.div_ceil(width), 1], threads, arguments);
}

/// The way back of [`all`].
fn spread(tape: &mut Tape, argmax: Option<Place>, dy: Values, dx: Values, share: f64, accumulate: bool) {
    let tile = Slices::each(tape.storage, dx);
    let (lanes, chunks) = (tile.threads / tile.width, tile.pieces.div_ceil(tile.width));
    let slice = dx.positions.div_ceil(BLOCKS.div_ceil(dx.examples * chunks)).next_multiple_of(lanes);
    let slices = dx.positions.div_ceil(slice);
    let mut arguments: Vec<Argument> = vec![argmax.into(), dy.into(), dx.into(), share.into(), accumulate.into()];
    arguments.extend([slices, dx.positions, tile.pieces, tile.width, slice].map(Argument::from));
    tape.launch("pools_spread", [dx.examples * slices, chunks, 1], tile.threads, arguments);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::kernels::reduce::testing::{Bench, STORAGES};
    use crate::kernels::Geometry;
    use crate::kernels::pool as cpu;

    const CHANNELS: [usize; 4] = [1, 3, 37, 72];

    fn window(input: [usize; 2], kernel: usize, stride: usize, padding: usize) -> Geometry {
        let output = input.map(|i| (i + 2 * padding - kernel) / stride + 1);
        let (kernel, stride, padding) = ([kernel; 2], [stride; 2], [padding; 2]);
        Geometry { channels: 2, input, output, kernel, stride, padding, dilation: [1; 2] }
    }

    fn covers() -> Vec<Cover> {
        let hanging = Geometry { output: [4, 3], ..window([6, 5], 3, 2, 1) };
        let dilated = Geometry { dilation: [2, 1], output: [4, 4], ..window([7, 5], 3, 1, 1) };
        vec![
            Cover::windows(&window([4, 6], 2, 2, 0), true),
            Cover::windows(&window([5, 7], 3, 2, 1), false),
            Cover::windows(&window([7, 5], 2, 3, 0), true),
            Cover::windows(&hanging, true),
            Cover::windows(&dilated, false),
            Cover::windows(&window([4, 4], 4, 4, 0), true),
            Cover::windows(&Geometry { output: [1, 1], ..window([3, 3], 5, 1, 1) }, true),
            Cover::parts([5, 4], [3, 7]),
            Cover::parts([5, 4], [1, 1]),
            Cover::parts([1, 1], [1, 1]),
            Cover::parts([30, 31], [1, 1]),
        ]
    }

    fn each_case(check: impl Fn(&mut Bench, &Cover, [usize; 3], bool)) {
        for (index, cover) in covers().iter().enumerate() {
            for (storage, channels) in
                STORAGES.into_iter().flat_map(|storage| CHANNELS.map(|channels| (storage, channels)))
            {
                check(&mut Bench::new(storage), cover, [3, cover.inputs(), channels], index % 2 == 0);
            }
        }
    }

    #[test]
    fn maxima_are_those_of_the_processor() {
        each_case(|bench, cover, shape, add| {
            let (len, channels) = (shape.iter().product(), shape[2]);
            let out = [shape[0], cover.outputs(), channels];
            let [mut x, old] = [1, 2].map(|seed| bench.sample(len, seed));
            x.iter_mut().step_by(3).for_each(|x| *x = 0.75);
            x[len / 2] = f64::NAN;
            x[len - 1] = f64::NAN;
            let dy = bench.sample(out.iter().product(), 3);
            let (on_x, y, on_dy) = (bench.values(&x, shape), bench.output(out), bench.values(&dy, out));
            let (argmax, dx) = (bench.place(y.numbers()), bench.target(&old, shape, add));
            max_pool(&mut bench.tape, cover, on_x, y, argmax);
            max_pool_backward(&mut bench.tape, cover, argmax, on_dy, dx, add);
            bench.play();
            let (mut expected, mut indices, mut of_x) = (vec![0.0; dy.len()], vec![0; dy.len()], old.clone());
            cpu::max(cover, channels, &x, &mut expected, &mut indices);
            let got: Vec<f64> = bench.device.read(y, bench.storage).iter().map(|y| f64::from(*y)).collect();
            assert!(
                got.iter().zip(&expected).all(|(a, b)| a.total_cmp(b).is_eq() || a.is_nan() && b.is_nan()),
                "{got:?}: {expected:?}"
            );
            let words = bench.device.read_words(argmax);
            let got: Vec<u32> = words.chunks_exact(y.stride).flat_map(|row| row[..channels].to_vec()).collect();
            assert_eq!(got, indices);
            cpu::max_backward(cover, channels, &dy, &indices, &mut of_x, add);
            bench.same("dx", dx, &of_x);
        });
    }

    #[test]
    fn means_are_those_of_the_processor() {
        each_case(|bench, cover, shape, add| {
            let (len, channels) = (shape.iter().product(), shape[2]);
            let out = [shape[0], cover.outputs(), channels];
            let [x, old] = [1, 2].map(|seed| bench.sample(len, seed));
            let dy = bench.sample(out.iter().product(), 3);
            let (on_x, y, on_dy) = (bench.values(&x, shape), bench.output(out), bench.values(&dy, out));
            let dx = bench.target(&old, shape, add);
            mean_pool(&mut bench.tape, cover, on_x, y);
            mean_pool_backward(&mut bench.tape, cover, on_dy, dx, add);
            bench.play();
            let (mut expected, mut of_x) = (vec![0.0; dy.len()], old.clone());
            cpu::mean(cover, channels, &x, &mut expected);
            cpu::mean_backward(cover, channels, &dy, &mut of_x, add);
            bench.same("y", y, &expected);
            bench.same("dx", dx, &of_x);
        });
    }

    #[test]
    fn blurs_are_those_of_the_processor() {
        for (input, kernel, stride, padding) in
            [([4, 6], 3, 2, 1), ([5, 3], 5, 2, 2), ([6, 4], 2, 3, 1), ([3, 3], 4, 1, 1), ([16, 14], 3, 2, 1)]
        {
            let output = input.map(|size| (size + 2 * padding - kernel) / stride + 1);
            let of = Blur::new(input, output, kernel, stride, padding);
            let [inputs, outputs] = [input, output].map(|size| size[0] * size[1]);
            for (storage, channels) in
                STORAGES.into_iter().flat_map(|storage| CHANNELS.map(|channels| (storage, channels)))
            {
                let (mut bench, add) = (Bench::new(storage), channels != 3);
                let (shape, out) = ([2, inputs, channels], [2, outputs, channels]);
                let [x, old] = [1, 2].map(|seed| bench.sample(shape.iter().product(), seed));
                let dy = bench.sample(out.iter().product(), 3);
                let (on_x, y, on_dy) = (bench.values(&x, shape), bench.output(out), bench.values(&dy, out));
                let dx = bench.target(&old, shape, add);
                blur(&mut bench.tape, &of, on_x, y);
                blur_backward(&mut bench.tape, &of, on_dy, dx, add);
                bench.play();
                let (mut expected, mut of_x) = (vec![0.0; dy.len()], old.clone());
                of.forward(channels, &x, &mut expected);
                of.backward(channels, &dy, &mut of_x, add);
                bench.same("y", y, &expected);
                bench.same("dx", dx, &of_x);
            }
        }
    }
}
