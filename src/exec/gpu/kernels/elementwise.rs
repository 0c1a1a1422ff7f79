//! Operations on every number by itself, or on the channels of a row.

use crate::exec::gpu::kernels::scalars::SEED;
use crate::exec::gpu::tape::{Argument, Place, Storage, Tape, Values};
use crate::kernels::function::Function;

/// Threads of a block.
pub(super) const THREADS: usize = 256;

/// SELU's factors (Klambauer et al. 2017).
const SELU: [f64; 2] = [1.673_263_242_354_377_2, 1.050_700_987_355_480_5];

/// Numbers of a piece of 16 bytes.
pub(super) const fn piece(storage: Storage) -> usize {
    16 / storage.bytes()
}

/// Pieces of all rows.
pub(super) fn pieces(tape: &Tape, values: Values) -> usize {
    values.numbers() / piece(tape.storage)
}

/// Pieces of a row.
pub(super) fn per_row(tape: &Tape, values: Values) -> usize {
    values.stride / piece(tape.storage)
}

/// Adds a run of `name` with at least `threads` threads in all.
pub(super) fn spread(tape: &mut Tape, name: &'static str, threads: usize, arguments: Vec<Argument>) {
    tape.launch(name, [threads.div_ceil(THREADS).max(1), 1, 1], THREADS, arguments);
}

/// Lanes of a warp that share a row of so many pieces: up to four for each, and as few as can be beyond the row.
pub(super) fn group(pieces: usize) -> usize {
    let fits = |group: &usize| *group == 32 || pieces <= 4 * group;
    [32, 16, 8, 4, 2, 1].into_iter().filter(fits).min_by_key(|group| pieces.next_multiple_of(*group)).unwrap_or(32)
}

/// The kernels' number for a function, and its parameters.
fn code(function: Function) -> [Argument; 3] {
    let (code, [a, b]) = match function {
        Function::Relu => (0, [0.0; 2]),
        Function::Relu6 => (1, [0.0; 2]),
        Function::LeakyRelu(slope) => (2, [slope, 0.0]),
        Function::Gelu => (3, [0.0; 2]),
        Function::GeluTanh => (4, [0.0; 2]),
        Function::Silu => (5, [0.0; 2]),
        Function::Hardswish => (6, [0.0; 2]),
        Function::Sigmoid => (7, [0.0; 2]),
        Function::Hardsigmoid => (8, [0.0; 2]),
        Function::Tanh => (9, [0.0; 2]),
        Function::Elu(alpha) => (10, [alpha, 1.0]),
        Function::Selu => (10, SELU),
        Function::Mish => (11, [0.0; 2]),
        Function::Softplus => (12, [0.0; 2]),
        Function::Scale(factor) => (13, [factor, 0.0]),
    };
    [Argument::Int(code), a.into(), b.into()]
}

/// `y = f(x)`.
pub fn function(tape: &mut Tape, function: Function, x: Values, y: Values) {
    let (pieces, per_row, [code, a, b]) = (pieces(tape, x), per_row(tape, x), code(function));
    let arguments = vec![x.into(), y.into(), pieces.into(), per_row.into(), x.channels.into(), code, a, b];
    spread(tape, "function", pieces, arguments);
}

/// `dx = dy f'(x)`, or `dx += dy f'(x)`.
pub fn function_backward(tape: &mut Tape, function: Function, x: Values, dy: Values, dx: Values, accumulate: bool) {
    let (pieces, [code, a, b]) = (pieces(tape, x), code(function));
    let arguments = vec![x.into(), dy.into(), dx.into(), pieces.into(), code, a, b, accumulate.into()];
    spread(tape, "function_backward", pieces, arguments);
}

/// `y = a + b`, then ReLU if wanted.
pub fn add(tape: &mut Tape, a: Values, b: Values, relu: bool, y: Values) {
    let pieces = pieces(tape, y);
    spread(tape, "add", pieces, vec![a.into(), b.into(), y.into(), pieces.into(), relu.into()]);
}

/// `to = from`, or `to += from`; both have the same shape.
pub fn put(tape: &mut Tape, from: Values, to: Values, accumulate: bool) {
    let pieces = pieces(tape, to);
    spread(tape, "put", pieces, vec![from.into(), to.into(), pieces.into(), accumulate.into()]);
}

/// `dy` becomes 0 where `y`, a ReLU's output, is not above 0.
pub fn relu_backward(tape: &mut Tape, y: Values, dy: Values) {
    let pieces = pieces(tape, dy);
    spread(tape, "relu_backward", pieces, vec![y.into(), dy.into(), pieces.into()]);
}

/// How many positions of `wide` meet the same one of `narrow`: 1 or all of an example.
fn rows_each(wide: Values, narrow: Values) -> usize {
    if narrow.positions == wide.positions { 1 } else { wide.positions }
}

/// `y = wide narrow`, or `y += wide narrow`; `narrow` has the same shape, or one position that meets all of an example.
pub fn multiply(tape: &mut Tape, wide: Values, narrow: Values, y: Values, accumulate: bool) {
    let (pieces, per_row, rows) = (pieces(tape, wide), per_row(tape, wide), rows_each(wide, narrow));
    let arguments =
        vec![wide.into(), narrow.into(), y.into(), pieces.into(), per_row.into(), rows.into(), accumulate.into()];
    spread(tape, "multiply", pieces, arguments);
}

/// The gradient of [`multiply`]'s factor `narrow`: `dy wide`, where it has one position the sum over an example's.
pub fn multiply_narrow_backward(tape: &mut Tape, wide: Values, dy: Values, dnarrow: Values, accumulate: bool) {
    let rows = rows_each(wide, dnarrow);
    if rows == 1 {
        return multiply(tape, wide, dy, dnarrow, accumulate);
    }
    let per_row = per_row(tape, wide);
    // Wide enough for whole lines of memory, and no wider: the other threads share the positions.
    let columns = per_row.next_power_of_two().min(16);
    let arguments =
        vec![wide.into(), dy.into(), dnarrow.into(), per_row.into(), rows.into(), columns.into(), accumulate.into()];
    let grid = [per_row.div_ceil(columns), wide.examples, 1];
    tape.launch("multiply_narrow_backward", grid, THREADS, arguments);
}

/// `y = mask x / (1 - p)`, or `y +=`: the forward pass, and the backward pass as well. The mask is that of
/// [`kernels::dropout`](crate::kernels::dropout), bit for bit; seed and step are among the
/// [`scalars`](super::scalars).
pub fn dropout(tape: &mut Tape, p: f64, layer: usize, scalars: Place, x: Values, y: Values, accumulate: bool) {
    let limit = (p * 2.0_f64.powi(32)) as u32;
    let arguments = vec![
        x.into(),
        y.into(),
        scalars.part(4 * SEED, 16).into(),
        x.rows().into(),
        x.channels.into(),
        x.stride.into(),
        layer.into(),
        Argument::Int(limit.cast_signed()),
        (1.0 / (1.0 - p)).into(),
        accumulate.into(),
    ];
    // Every thread draws sixteen numbers, also where fewer are left.
    spread(tape, "dropout", (x.rows() * x.channels).div_ceil(16), arguments);
}

/// Rows of one width, as softmax sees them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub(super) count: usize,
    pub(super) channels: usize,
    pub(super) stride: usize,
}

impl Rows {
    fn of(values: Values) -> Self {
        Self { count: values.rows(), channels: values.channels, stride: values.stride }
    }

    /// The kernels' arguments, and how many threads there are.
    fn arguments(self, tape: &Tape) -> ([Argument; 4], usize) {
        let per_row = self.stride / piece(tape.storage);
        let group = group(per_row);
        ([self.count.into(), per_row.into(), self.channels.into(), group.into()], self.count * group)
    }
}

/// `y = softmax(factor x)` of every row.
pub(super) fn softmax_rows(tape: &mut Tape, rows: Rows, factor: f64, x: Place, y: Place) {
    let (sizes, threads) = rows.arguments(tape);
    let arguments = [x.into(), y.into()].into_iter().chain(sizes).chain([factor.into()]).collect();
    spread(tape, "softmax", threads, arguments);
}

/// `dx = factor y (dy - Σ dy y)` of every row, or `dx +=`.
pub(super) fn softmax_rows_backward(
    tape: &mut Tape,
    rows: Rows,
    factor: f64,
    [y, dy, dx]: [Place; 3],
    accumulate: bool,
) {
    let (sizes, threads) = rows.arguments(tape);
    let last = [factor.into(), accumulate.into()];
    let arguments = [y.into(), dy.into(), dx.into()].into_iter().chain(sizes).chain(last).collect();
    spread(tape, "softmax_backward", threads, arguments);
}

/// `exp(x) / Σ exp(x)` over the channels of every position.
pub fn softmax(tape: &mut Tape, x: Values, y: Values) {
    softmax_rows(tape, Rows::of(x), 1.0, x.place, y.place);
}

/// `dx = y (dy - Σ dy y)` by the output `y` of [`softmax`], or `dx +=`.
pub fn softmax_backward(tape: &mut Tape, y: Values, dy: Values, dx: Values, accumulate: bool) {
    softmax_rows_backward(tape, Rows::of(y), 1.0, [y.place, dy.place, dx.place], accumulate);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::emulated::{Bench, STORAGES};
    use crate::kernels::dropout::{Draw, Mask};
    use crate::kernels::{elementwise, softmax as host};

    const SHAPES: [[usize; 3]; 6] = [[1, 1, 1], [7, 1, 3], [3, 43, 5], [2, 4, 8], [2, 7, 37], [5, 200, 16]];

    const FUNCTIONS: [Function; 15] = [
        Function::Relu,
        Function::Relu6,
        Function::LeakyRelu(0.2),
        Function::Gelu,
        Function::GeluTanh,
        Function::Silu,
        Function::Hardswish,
        Function::Sigmoid,
        Function::Hardsigmoid,
        Function::Tanh,
        Function::Elu(0.7),
        Function::Selu,
        Function::Mish,
        Function::Softplus,
        Function::Scale(-1.5),
    ];

    /// Every shape in both storages, overwriting and adding.
    fn all(run: impl Fn(&mut Bench, [usize; 3], bool)) {
        for storage in STORAGES {
            for shape in SHAPES {
                for accumulate in [false, true] {
                    run(&mut Bench::new(storage), shape, accumulate);
                }
            }
        }
    }

    #[test]
    fn functions_are_those_of_the_processor() {
        all(|bench, shape, accumulate| {
            let numbers: Vec<f64> = bench.sample(shape.iter().product()).iter().map(|x| 9.0 * x).collect();
            let ((x, xs), (dy, dys)) = (bench.values(shape, &numbers), bench.input(shape));
            for f in FUNCTIONS {
                let (y, (dx, mut dxs), mut ys) = (bench.output(shape), bench.target(shape, accumulate), xs.clone());
                function(&mut bench.tape, f, x, y);
                function_backward(&mut bench.tape, f, x, dy, dx, accumulate);
                bench.play();
                f.apply(&xs, &mut ys);
                f.backward(&xs, &dys, &mut dxs, accumulate);
                bench.check(&format!("{f:?}"), y, &ys);
                bench.check(&format!("slope of {f:?}"), dx, &dxs);
            }
        });
    }

    #[test]
    fn kinks_far_values_and_nan_are_those_of_the_processor() {
        let numbers = [0.0, -0.0, -3.0, 3.0, 6.0, 90.0, -90.0, 20.0, -20.0, 1e30, -1e30, 20.5];
        for f in FUNCTIONS {
            let mut bench = Bench::new(Storage::F32);
            let ((x, xs), (dy, dys)) = (bench.values([1, 1, 12], &numbers), bench.values([1, 1, 12], &[1.0; 12]));
            let (y, dx) = (bench.output([1, 1, 12]), bench.output([1, 1, 12]));
            function(&mut bench.tape, f, x, y);
            function_backward(&mut bench.tape, f, x, dy, dx, false);
            bench.play();
            let (mut ys, mut dxs) = (xs.clone(), xs.clone());
            f.apply(&xs, &mut ys);
            f.backward(&xs, &dys, &mut dxs, false);
            for (got, expected) in [(y, ys), (dx, dxs)] {
                for (got, expected) in bench.device.read(got, Storage::F32).into_iter().zip(expected) {
                    let close = (f64::from(got) - expected).abs() <= 3e-6 * expected.abs().max(0.1);
                    assert!(close || expected.is_nan(), "{f:?}: {got} for {expected}");
                }
            }
            let (x, _) = bench.values([1, 1, 12], &[f64::NAN; 12]);
            function(&mut bench.tape, f, x, y);
            bench.play();
            assert!(bench.device.read(y, Storage::F32).iter().all(|y| y.is_nan()), "{f:?}");
        }
    }

    #[test]
    fn sums_and_copies_are_those_of_the_processor() {
        all(|bench, shape, accumulate| {
            let ((a, xs), (b, others), y) = (bench.input(shape), bench.input(shape), bench.output(shape));
            let (to, mut tos) = bench.target(shape, accumulate);
            add(&mut bench.tape, a, b, accumulate, y);
            put(&mut bench.tape, a, to, accumulate);
            bench.play();
            let mut ys = xs.clone();
            elementwise::add(&xs, &others, accumulate, &mut ys);
            elementwise::put(&xs, &mut tos, accumulate);
            bench.check("add", y, &ys);
            bench.check("put", to, &tos);
            relu_backward(&mut bench.tape, y, a);
            bench.play();
            let mut masked = xs;
            elementwise::relu_backward(&ys, &mut masked);
            bench.check("ReLU backward", a, &masked);
        });
    }

    #[test]
    fn products_are_those_of_the_processor() {
        all(|bench, shape, accumulate| {
            for positions in [1, shape[1]] {
                let narrow_shape = [shape[0], positions, shape[2]];
                let ((wide, wides), (narrow, narrows)) = (bench.input(shape), bench.input(narrow_shape));
                let (dy, dys) = bench.input(shape);
                let ((y, mut ys), (dnarrow, mut dnarrows)) =
                    (bench.target(shape, accumulate), bench.target(narrow_shape, accumulate));
                multiply(&mut bench.tape, wide, narrow, y, accumulate);
                multiply_narrow_backward(&mut bench.tape, wide, dy, dnarrow, accumulate);
                bench.play();
                let (rows, width) = (shape[1] / positions, shape[2] * positions);
                let (rows, width) = if positions == 1 { (rows, width) } else { (1, width) };
                elementwise::multiply(rows, width, &wides, &narrows, &mut ys, accumulate);
                elementwise::multiply_backward(rows, width, &wides, &dys, &mut dnarrows, accumulate);
                bench.check("multiply", y, &ys);
                bench.check("multiply backward", dnarrow, &dnarrows);
            }
        });
    }

    #[test]
    fn masks_are_those_of_the_processor() {
        let draw = Draw { seed: 0x1234_5678_9abc_def0, step: 77 };
        let words = [0, 0, 0, 0, 0, 0, 0, 0, 0x9abc_def0, 0x1234_5678, 77, 0, 0, 0, 0, 0];
        for storage in STORAGES {
            for (shape, accumulate) in
                [([3, 5, 7], false), ([9, 201, 37], false), ([5, 11, 16], true), ([7, 33, 200], true)]
            {
                let mut bench = Bench::new(storage);
                let scalars = bench.device.words(&words);
                let ((x, xs), (y, mut ys)) = (bench.input(shape), bench.target(shape, accumulate));
                dropout(&mut bench.tape, 0.3, 5, scalars, x, y, accumulate);
                bench.play();
                Mask { p: 0.3, layer: 5 }.apply(draw, &xs, &mut ys, accumulate);
                bench.check("dropout", y, &ys);
            }
        }
    }

    #[test]
    fn softmax_is_that_of_the_processor() {
        all(|bench, shape, accumulate| {
            let ((x, xs), (dy, dys)) = (bench.input(shape), bench.input(shape));
            let (y, (dx, mut dxs)) = (bench.output(shape), bench.target(shape, accumulate));
            softmax(&mut bench.tape, x, y);
            bench.play();
            let mut ys = xs.clone();
            host::softmax(shape[2], &xs, &mut ys);
            bench.check("softmax", y, &ys);
            let stored: Vec<f64> = bench.device.read(y, bench.storage).into_iter().map(f64::from).collect();
            softmax_backward(&mut bench.tape, y, dy, dx, accumulate);
            bench.play();
            host::softmax_backward(shape[2], &stored, &dys, &mut dxs, accumulate);
            bench.check("softmax backward", dx, &dxs);
        });
    }

    #[test]
    fn softmax_of_long_rows_is_that_of_the_processor() {
        for storage in STORAGES {
            let (shape, mut bench) = ([2, 1, 1203], Bench::new(storage));
            let numbers: Vec<f64> = bench.sample(2406).iter().map(|x| 30.0 * x).collect();
            let ((x, xs), y) = (bench.values(shape, &numbers), bench.output(shape));
            softmax(&mut bench.tape, x, y);
            bench.play();
            let mut ys = xs.clone();
            host::softmax(1203, &xs, &mut ys);
            bench.check("long softmax", y, &ys);
        }
    }
}
