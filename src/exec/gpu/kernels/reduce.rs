//! Sums over rows.

use crate::exec::gpu::tape::{Argument, Place, Storage, Tape, Values};

/// Blocks that fill a large GPU several times over.
const BLOCKS: usize = 528;
/// Threads of a block whose slice is one of many.
const THREADS: usize = 256;
/// Threads of a block that takes all rows.
const ALL_THREADS: usize = 512;
/// Most rows of a thread for which a block takes all rows, so that one launch is enough.
const FEW_ROWS: usize = 16;
/// Fewest rows of a thread.
const LEAST_ROWS: usize = 4;
/// Most pieces of a row that a block takes.
const MOST_PIECES: usize = 32;

/// How rows are shared among blocks: each takes some columns of 16 bytes, and a slice of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slices {
    /// Rows in all.
    pub rows: usize,
    /// Numbers of a row that count.
    pub channels: usize,
    /// Pieces of a row.
    pub pieces: usize,
    /// Pieces of a row that a block takes.
    pub width: usize,
    /// Rows of a slice.
    pub slice: usize,
    /// Threads of a block.
    pub threads: usize,
}

impl Slices {
    /// For sums: one slice where there are few rows, else some hundred blocks.
    pub(super) fn sums(storage: Storage, values: Values) -> Self {
        let all = Self::narrow(storage, values);
        if all.rows.div_ceil(all.lanes()) <= FEW_ROWS { all } else { Self::wide(storage, values, BLOCKS, LEAST_ROWS) }
    }

    /// For values that do not meet each other.
    pub(super) fn each(storage: Storage, values: Values) -> Self {
        Self::wide(storage, values, 2 * BLOCKS, 1)
    }

    /// All rows in one slice; the more rows, the fewer columns a block takes.
    fn narrow(storage: Storage, values: Values) -> Self {
        let (rows, pieces) = (values.rows(), pieces(storage, values));
        let width = (ALL_THREADS * FEW_ROWS / rows.max(1)).clamp(2, MOST_PIECES).min(pieces);
        Self { rows, channels: values.channels, pieces, width, slice: rows, threads: ALL_THREADS }
    }

    fn wide(storage: Storage, values: Values, blocks: usize, least: usize) -> Self {
        let (rows, pieces) = (values.rows(), pieces(storage, values));
        let width = pieces.div_ceil(pieces.div_ceil(MOST_PIECES));
        let lanes = THREADS / width;
        let slices = blocks.div_ceil(pieces.div_ceil(width));
        let slice = rows.div_ceil(slices).next_multiple_of(lanes).max(lanes * least);
        Self { rows, channels: values.channels, pieces, width, slice, threads: THREADS }
    }

    /// Rows that a block works on at once.
    fn lanes(&self) -> usize {
        self.threads / self.width
    }

    /// Slices of the rows.
    pub(super) fn slices(&self) -> usize {
        self.rows.div_ceil(self.slice)
    }

    /// Blocks.
    pub(super) fn grid(&self) -> [usize; 3] {
        [self.slices(), self.pieces.div_ceil(self.width), 1]
    }

    /// The kernels' arguments: rows, channels, pieces, width, rows of a slice.
    pub(super) fn arguments(&self) -> [Argument; 5] {
        [self.rows, self.channels, self.pieces, self.width, self.slice].map(Argument::from)
    }
}

/// Pieces of 16 bytes of a row.
pub(super) fn pieces(storage: Storage, values: Values) -> usize {
    values.stride * storage.bytes() / 16
}

/// Adds up `slices` rows of partial sums, each `numbers` for every one of `sums` (one or two); what has no place is dropped.
pub(super) fn finish(tape: &mut Tape, partial: Place, slices: usize, sums: &[Option<Place>], numbers: usize) {
    let [left, right] = [0, 1].map(|index| sums.get(index).copied().flatten());
    let all = numbers * sums.len();
    let arguments = vec![partial.into(), left.into(), right.into(), slices.into(), all.into(), numbers.into()];
    tape.launch_plain("reduce_finish", [all.div_ceil(8), 1, 1], 256, arguments);
}

/// `sums` (f32, as many as channels) become the sums of `dy` over its rows: the gradient of a bias.
pub fn column_sums(tape: &mut Tape, dy: Values, sums: Place) {
    run(tape, "reduce_sums", &[dy], Some(sums));
}

/// `sums` become the sums over the rows of `x` times `dy`, value by value: the gradient of one factor per channel.
pub fn column_products(tape: &mut Tape, x: Values, dy: Values, sums: Place) {
    run(tape, "reduce_products", &[x, dy], Some(sums));
}

/// `dy` becomes 0 where `y` is not above 0, and `sums` its sums over the rows: the way back through ReLU and bias.
pub fn relu_column_sums(tape: &mut Tape, y: Values, dy: Values, sums: Option<Place>) {
    run(tape, "reduce_relu", &[y, dy], sums);
}

fn run(tape: &mut Tape, kernel: &'static str, operands: &[Values], sums: Option<Place>) {
    let values = operands[0];
    let slices = if sums.is_some() { Slices::sums(tape.storage, values) } else { Slices::each(tape.storage, values) };
    let partial = match sums {
        Some(_) if slices.slices() > 1 => Some(tape.scratch(slices.slices() * values.channels * 4)),
        _ => None,
    };
    let mut arguments: Vec<Argument> = operands.iter().map(|operand| Argument::from(*operand)).collect();
    arguments.push(partial.or(sums).into());
    arguments.extend(slices.arguments());
    tape.launch(kernel, slices.grid(), slices.threads, arguments);
    if let Some(partial) = partial {
        finish(tape, partial, slices.slices(), &[sums], values.channels);
    }
}
