//! Moving numbers without changing them.

use crate::exec::gpu::kernels::elementwise::{per_row, piece, pieces, put, spread};
use crate::exec::gpu::tape::{Argument, Tape, Values};
use crate::kernels::rim::ZeroRim;

/// The values of every example in the order of (channels x positions), laid out anew for the channels and positions of
/// `to`, or added to what is there. The inverse, and so the gradient, swaps `from` and `to`.
pub fn reshape(tape: &mut Tape, from: Values, to: Values, accumulate: bool) {
    if from.positions == to.positions {
        return put(tape, from, to, accumulate);
    }
    let pieces = pieces(tape, to);
    let arguments = vec![
        from.into(),
        to.into(),
        pieces.into(),
        from.positions.into(),
        from.stride.into(),
        to.positions.into(),
        to.channels.into(),
        to.stride.into(),
        accumulate.into(),
    ];
    spread(tape, "reshape", pieces, arguments);
}

/// Columns on their way from one matrix to another.
#[derive(Debug, Clone, Copy)]
struct Columns {
    from: Values,
    from_first: usize,
    to: Values,
    first: usize,
    /// Columns that are read.
    channels: usize,
    /// Columns that are written; those behind the ones that are read become 0.
    width: usize,
    accumulate: bool,
}

impl Columns {
    /// In pieces where they lie in whole ones, which most do.
    fn emit(self, tape: &mut Tape) {
        let piece = piece(tape.storage);
        let Self { from, from_first, to, first, channels, width, accumulate } = self;
        let whole = [from_first, first, channels, width].iter().all(|count| count.is_multiple_of(piece));
        if whole && channels == width {
            let sizes = [width, from.stride, from_first, to.stride, first].map(|count| Argument::from(count / piece));
            let pieces = to.rows() * width / piece;
            let arguments = [from.into(), to.into(), pieces.into()].into_iter().chain(sizes).chain([accumulate.into()]);
            return spread(tape, "move_pieces", pieces, arguments.collect());
        }
        let sizes = [width, channels, from.stride, from_first, to.stride, first].map(Argument::from);
        let numbers = to.rows() * width;
        let arguments = [from.into(), to.into(), numbers.into()].into_iter().chain(sizes).chain([accumulate.into()]);
        spread(tape, "move_columns", numbers, arguments.collect());
    }
}

/// The channels of `x` become those of `y` from `first` on. The call for the last ones also writes what lies behind
/// `y`'s channels.
pub fn put_columns(tape: &mut Tape, x: Values, y: Values, first: usize) {
    let channels = x.channels;
    let width = if first + channels == y.channels { y.stride - first } else { channels };
    Columns { from: x, from_first: 0, to: y, first, channels, width, accumulate: false }.emit(tape);
}

/// The channels of `dy` from `first` on, as many as `dx` has, become `dx` or are added to it.
pub fn take_columns(tape: &mut Tape, dy: Values, first: usize, dx: Values, accumulate: bool) {
    let Values { channels, stride, .. } = dx;
    Columns { from: dy, from_first: first, to: dx, first: 0, channels, width: stride, accumulate }.emit(tape);
}

/// Images that are shifted against each other.
fn shift(tape: &mut Tape, [from, to]: [(Values, [usize; 2]); 2], shift: [i32; 2], accumulate: bool) {
    let (pieces, per_row) = (pieces(tape, to.0), per_row(tape, to.0));
    let sizes = [pieces, per_row, to.1[0], to.1[1], from.1[0], from.1[1]].map(Argument::from);
    let last = [Argument::Int(shift[0]), Argument::Int(shift[1]), accumulate.into()];
    let arguments = [from.0.into(), to.0.into()].into_iter().chain(sizes).chain(last).collect();
    spread(tape, "shift_images", pieces, arguments);
}

/// The images `x` within their zeros, see [`ZeroRim`].
pub fn zero_pad(tape: &mut Tape, rim: &ZeroRim, x: Values, y: Values) {
    shift(tape, [(x, rim.inner), (y, rim.outer)], rim.begin.map(|begin| -(begin as i32)), false);
}

/// The gradients of what is within the zeros: copied, or added to `dx`.
pub fn zero_pad_backward(tape: &mut Tape, rim: &ZeroRim, dy: Values, dx: Values, accumulate: bool) {
    shift(tape, [(dy, rim.outer), (dx, rim.inner)], rim.begin.map(|begin| begin as i32), accumulate);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::emulated::{Bench, STORAGES};
    use crate::kernels::{elementwise, layout};

    /// Both storages, overwriting and adding.
    fn all(run: impl Fn(&mut Bench, bool)) {
        for storage in STORAGES {
            for accumulate in [false, true] {
                run(&mut Bench::new(storage), accumulate);
            }
        }
    }

    #[test]
    fn shapes_change_as_on_the_processor() {
        all(|bench, accumulate| {
            for (from, to) in
                [([5, 6], [30, 1]), ([30, 1], [5, 6]), ([8, 9], [4, 18]), ([3, 37], [37, 3]), ([7, 1], [7, 1])]
            {
                let ((x, xs), (y, mut ys)) =
                    (bench.input([3, from[1], from[0]]), bench.target([3, to[1], to[0]], accumulate));
                reshape(&mut bench.tape, x, y, accumulate);
                bench.play();
                layout::reshape(from, to, &xs, &mut ys, accumulate);
                bench.check("reshape", y, &ys);
            }
        });
    }

    #[test]
    fn columns_are_those_of_the_processor() {
        all(|bench, accumulate| {
            for widths in [&[3, 5, 1][..], &[8, 16, 8], &[8, 8, 5], &[37], &[4, 4], &[16, 1]] {
                let (all, mut first) = (widths.iter().sum(), 0);
                let y = bench.output([2, 7, all]);
                let mut ys = vec![0.0; 14 * all];
                let (dy, dys) = bench.input([2, 7, all]);
                let mut parts = Vec::new();
                for &width in widths {
                    let ((x, xs), (dx, mut dxs)) =
                        (bench.input([2, 7, width]), bench.target([2, 7, width], accumulate));
                    put_columns(&mut bench.tape, x, y, first);
                    take_columns(&mut bench.tape, dy, first, dx, accumulate);
                    elementwise::put_columns(&xs, width, &mut ys, first, all);
                    elementwise::take_columns(&dys, first, all, &mut dxs, width, accumulate);
                    parts.push((dx, dxs));
                    first += width;
                }
                bench.play();
                bench.check("columns", y, &ys);
                for (dx, dxs) in parts {
                    bench.check("gradient of columns", dx, &dxs);
                }
            }
        });
    }

    #[test]
    fn rims_are_those_of_the_processor() {
        all(|bench, accumulate| {
            for channels in [1, 8, 37] {
                let rim = ZeroRim { inner: [3, 5], outer: [7, 6], begin: [3, 0], channels };
                let ((x, xs), y) = (bench.input([2, 15, channels]), bench.output([2, 42, channels]));
                let ((dy, dys), (dx, mut dxs)) =
                    (bench.input([2, 42, channels]), bench.target([2, 15, channels], accumulate));
                zero_pad(&mut bench.tape, &rim, x, y);
                zero_pad_backward(&mut bench.tape, &rim, dy, dx, accumulate);
                bench.play();
                let mut ys = vec![9.0; dys.len()];
                rim.forward(&xs, &mut ys);
                rim.backward(&dys, &mut dxs, accumulate);
                bench.check("rim", y, &ys);
                bench.check("rim backward", dx, &dxs);
            }
        });
    }
}
