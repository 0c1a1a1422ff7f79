//! Maxima and means over windows, over parts of images and over whole ones, and blur pools.

use crate::exec::gpu::kernels::reduce::{Slices, pieces};
use crate::exec::gpu::tape::{Argument, Place, Tape, Values};
use crate::kernels::blur::Blur;
use crate::kernels::pool::Cover;

/// Threads of a block.
const THREADS: usize = 256;
/// Blocks that fill a large GPU several times over.
const BLOCKS: usize = 1056;
/// Outputs of a blur that are looked at together.
const PROBES: usize = 64;

/// For each position of a target the positions of a source that it is made of, and what they count for.
#[derive(Debug, Clone, Default, PartialEq)]
struct Links(Vec<Vec<(usize, f64)>>);

impl Links {
    /// What an output of a mean is made of.
    fn of_cover(cover: &Cover) -> Self {
        let of_one = |o: usize| cover.positions(o).map(|position| (position, 1.0 / cover.count(o) as f64)).collect();
        Self((0..cover.outputs()).map(of_one).collect())
    }

    /// What an output of a blur is made of, in an image of `inputs` positions: the gradient of each output by the inputs.
    fn of_blur(blur: &Blur, inputs: usize, outputs: usize) -> Self {
        let mut links = Self::default();
        for first in (0..outputs).step_by(PROBES) {
            let count = PROBES.min(outputs - first);
            let (mut dy, mut dx) = (vec![0.0_f64; count * outputs], vec![0.0; count * inputs]);
            (0..count).for_each(|index| dy[index * outputs + first + index] = 1.0);
            blur.backward(1, &dy, &mut dx, false);
            let of_one = |shares: &[f64]| {
                shares.iter().copied().enumerate().filter(|(_, share)| *share != 0.0).collect::<Vec<_>>()
            };
            links.0.extend(dx.chunks_exact(inputs).map(of_one));
        }
        links
    }

    /// The other way: for each of `sources` positions the targets that it is a part of.
    fn reversed(&self, sources: usize) -> Self {
        let mut links = vec![Vec::new(); sources];
        for (target, parts) in self.0.iter().enumerate() {
            parts.iter().for_each(|(source, share)| links[*source].push((target, *share)));
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

/// Maxima; padding never counts. `argmax` gets an `i32` for each number of `y`: the input's position of each maximum (the first
/// among equals; NaN wins).
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
    sum(tape, &Links::of_blur(blur, x.positions, y.positions), x, y, false);
}

/// Spreads the gradients over what the outputs are made of.
pub fn blur_backward(tape: &mut Tape, blur: &Blur, dy: Values, dx: Values, accumulate: bool) {
    let links = Links::of_blur(blur, dx.positions, dy.positions).reversed(dx.positions);
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
