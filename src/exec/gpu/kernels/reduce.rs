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
        Self::wide(storage, values, BLOCKS, 1)
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

/// Adds up `slices` rows of partial sums, each `numbers` for every one of `sums` (one or two); what has no place is
/// dropped.
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

#[cfg(test)]
pub(super) mod testing {
    //! What the tests of these kernels share.

    use half::bf16;

    use crate::exec::gpu::emulated::Emulated;
    use crate::exec::gpu::tape::{Place, Storage, Tape, Values};
    use crate::kernels::finite_difference::sample;

    pub(in crate::exec::gpu::kernels) const STORAGES: [Storage; 2] = [Storage::F32, Storage::Bf16];

    /// A device and what it is to do.
    pub(in crate::exec::gpu::kernels) struct Bench {
        pub storage: Storage,
        pub device: Emulated,
        pub tape: Tape,
    }

    /// Numbers that are what the storage holds of them.
    pub(in crate::exec::gpu::kernels) fn rounded(storage: Storage, numbers: &[f64]) -> Vec<f64> {
        let round = |number: &f64| match storage {
            Storage::F32 => f64::from(*number as f32),
            Storage::Bf16 => f64::from(bf16::from_f32(*number as f32)),
        };
        numbers.iter().map(round).collect()
    }

    pub(in crate::exec::gpu::kernels) fn singles(numbers: &[f64]) -> Vec<f32> {
        numbers.iter().map(|number| *number as f32).collect()
    }

    impl Bench {
        pub(in crate::exec::gpu::kernels) fn new(storage: Storage) -> Self {
            Self { storage, device: Emulated::new(), tape: Tape::new(storage) }
        }

        /// `len` numbers of this storage.
        pub(in crate::exec::gpu::kernels) fn sample(&self, len: usize, seed: u64) -> Vec<f64> {
            rounded(self.storage, &sample(len, seed))
        }

        pub(in crate::exec::gpu::kernels) fn values(&mut self, numbers: &[f64], [e, p, c]: [usize; 3]) -> Values {
            self.device.values(&singles(numbers), e, p, c, self.storage)
        }

        pub(in crate::exec::gpu::kernels) fn output(&mut self, [e, p, c]: [usize; 3]) -> Values {
            self.device.output(e, p, c, self.storage)
        }

        /// A gradient that is added to, with these numbers, or one that was never written.
        pub(in crate::exec::gpu::kernels) fn target(&mut self, old: &[f64], shape: [usize; 3], add: bool) -> Values {
            if add { self.values(old, shape) } else { self.output(shape) }
        }

        pub(in crate::exec::gpu::kernels) fn numbers(&mut self, numbers: &[f64]) -> Place {
            self.device.numbers(&singles(numbers))
        }

        pub(in crate::exec::gpu::kernels) fn place(&mut self, numbers: usize) -> Place {
            self.device.place(4 * numbers)
        }

        pub(in crate::exec::gpu::kernels) fn play(&mut self) {
            let tape = std::mem::replace(&mut self.tape, Tape::new(self.storage));
            self.device.play(&tape);
        }

        /// Compares values; each may be off by a share of the largest.
        pub(in crate::exec::gpu::kernels) fn same(&self, what: &str, got: Values, expected: &[f64]) {
            let tolerance = if self.storage == Storage::F32 { 1e-5 } else { 5e-3 };
            close(what, &self.device.read(got, self.storage), expected, tolerance);
        }

        /// Compares numbers that are f32 whatever the storage is.
        pub(in crate::exec::gpu::kernels) fn exact(&self, what: &str, got: Place, expected: &[f64]) {
            close(what, &self.device.floats(got), expected, 1e-5);
        }
    }

    pub(in crate::exec::gpu::kernels) fn close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(got.len(), expected.len(), "{what}");
        let scale = expected.iter().fold(1e-3_f64, |most, number| most.max(number.abs()));
        for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
            let error = (f64::from(*got) - expected).abs();
            assert!(error <= tolerance * scale, "{what}[{index}]: {got} for {expected}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Bench, STORAGES};
    use super::*;
    use crate::kernels::elementwise;
    use crate::kernels::finite_difference::workspace;
    use crate::kernels::reduce as cpu;

    /// One slice and many, one tile of columns and many.
    const SHAPES: [[usize; 3]; 8] =
        [[1, 1, 1], [7, 1, 3], [43, 3, 5], [1000, 1, 37], [5, 60, 64], [6000, 1, 20], [9, 1000, 3], [4, 5, 300]];

    #[test]
    fn sums_are_those_of_the_processor() {
        for (storage, shape) in STORAGES.into_iter().flat_map(|storage| SHAPES.map(|shape| (storage, shape))) {
            let mut bench = Bench::new(storage);
            let (len, channels) = (shape.iter().product(), shape[2]);
            let [x, dy] = [1, 2].map(|seed| bench.sample(len, seed));
            let [of_x, of_y] = [&x, &dy].map(|numbers| bench.values(numbers, shape));
            let [sums, products] = [bench.place(channels), bench.place(channels)];
            column_sums(&mut bench.tape, of_y, sums);
            column_products(&mut bench.tape, of_x, of_y, products);
            bench.play();
            let mut expected = vec![0.0; channels];
            cpu::column_sums(&dy, &mut workspace(), &mut expected);
            bench.exact("sums", sums, &expected);
            cpu::column_products(&x, &dy, &mut workspace(), &mut expected);
            bench.exact("products", products, &expected);
        }
    }

    #[test]
    fn relu_lets_gradients_through_where_results_are_positive() {
        for (storage, shape) in STORAGES.into_iter().flat_map(|storage| SHAPES.map(|shape| (storage, shape))) {
            let mut bench = Bench::new(storage);
            let (len, channels) = (shape.iter().product(), shape[2]);
            let [mut y, mut dy] = [1, 2].map(|seed| bench.sample(len, seed));
            y.iter_mut().step_by(3).for_each(|y| *y = 0.0);
            let of_y = bench.values(&y, shape);
            let [with, without] = [0; 2].map(|_| bench.values(&dy, shape));
            let sums = bench.place(channels);
            relu_column_sums(&mut bench.tape, of_y, with, Some(sums));
            relu_column_sums(&mut bench.tape, of_y, without, None);
            bench.play();
            elementwise::relu_backward(&y, &mut dy);
            let mut expected = vec![0.0; channels];
            cpu::column_sums(&dy, &mut workspace(), &mut expected);
            bench.exact("sums", sums, &expected);
            bench.same("with sums", with, &dy);
            bench.same("without sums", without, &dy);
        }
    }
}
