//! What transformers do with whole tokens; the positions of an example are its tokens. Weights are f32.

use crate::exec::gpu::kernels::elementwise::{THREADS, per_row, pieces, spread};
use crate::exec::gpu::tape::{Argument, Place, Tape, Values};

/// Adds a run of `name` on all pieces of `of`: first `pointers`, then the pieces in all and of a row, then `more`.
fn emit(tape: &mut Tape, name: &'static str, of: Values, pointers: &[Argument], more: &[Argument]) {
    let sizes = [pieces(tape, of), per_row(tape, of)];
    let arguments = [pointers, &sizes.map(Argument::from), more].concat();
    spread(tape, name, sizes[0], arguments);
}

/// Puts the token `weight` (channels) before those of every example: `y` has one more.
pub fn prepend(tape: &mut Tape, weight: Place, x: Values, y: Values) {
    let more = [y.channels.into(), y.positions.into()];
    emit(tape, "prepend", y, &[weight.into(), x.into(), y.into()], &more);
}

/// Sums over all examples of their first `rows` tokens (rows x channels).
fn sum_examples(tape: &mut Tape, dy: Values, sums: Place, rows: usize) {
    let per_row = per_row(tape, dy);
    let sizes = [dy.examples, rows, dy.positions, per_row, dy.channels].map(Argument::from);
    let arguments = [dy.into(), sums.into()].into_iter().chain(sizes).collect();
    tape.launch("sum_examples", [(rows * per_row).div_ceil(32), 1, 1], THREADS, arguments);
}

/// Gradient of the token that [`prepend`] takes: the sum of the first ones over all examples.
pub fn prepend_weight(tape: &mut Tape, dy: Values, dweight: Place) {
    sum_examples(tape, dy, dweight, 1);
}

/// The tokens of `from` from `first` on, as many as `to` has.
fn take_rows(tape: &mut Tape, from: Values, first: usize, to: Values, accumulate: bool) {
    let more = [to.positions.into(), from.positions.into(), first.into(), accumulate.into()];
    emit(tape, "take_rows", to, &[from.into(), to.into()], &more);
}

/// Gradient of the tokens behind the first one: copied, or added to `dx`.
pub fn behind(tape: &mut Tape, dy: Values, dx: Values, accumulate: bool) {
    take_rows(tape, dy, 1, dx, accumulate);
}

/// Adds the embedding `weight` (tokens x channels) to every example.
pub fn embed(tape: &mut Tape, weight: Place, x: Values, y: Values) {
    let more = [x.channels.into(), x.positions.into()];
    emit(tape, "embed", y, &[weight.into(), x.into(), y.into()], &more);
}

/// Gradient of [`embed`]'s weight: the sum over all examples.
pub fn embed_weight(tape: &mut Tape, dy: Values, dweight: Place) {
    sum_examples(tape, dy, dweight, dy.positions);
}

/// One token of every example.
pub fn select(tape: &mut Tape, index: usize, x: Values, y: Values) {
    take_rows(tape, x, index, y, false);
}

/// Gradient of [`select`]'s input: 0 for the other tokens.
pub fn select_backward(tape: &mut Tape, index: usize, dy: Values, dx: Values, accumulate: bool) {
    let (name, of) = if accumulate { ("add_row", dy) } else { ("place_row", dx) };
    emit(tape, name, of, &[dy.into(), dx.into()], &[dx.positions.into(), index.into()]);
}

/// `y = x weight`, or `y += x weight`: every row by the same factors (channels).
pub fn scale_rows(tape: &mut Tape, weight: Place, x: Values, y: Values, accumulate: bool) {
    let more = [x.channels.into(), accumulate.into()];
    emit(tape, "scale_rows", y, &[weight.into(), x.into(), y.into()], &more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::emulated::{Bench, STORAGES};
    use crate::kernels::{elementwise, tokens};

    /// Both storages, numbers of examples, tokens and channels, overwriting and adding.
    fn all(run: impl Fn(&mut Bench, [usize; 3], bool)) {
        for storage in STORAGES {
            for shape in [[1, 1, 1], [3, 4, 5], [33, 7, 16], [17, 9, 37]] {
                for accumulate in [false, true] {
                    run(&mut Bench::new(storage), shape, accumulate);
                }
            }
        }
    }

    #[test]
    fn a_token_is_put_before_the_others() {
        all(|bench, [examples, tokens, channels], accumulate| {
            let (longer, shape) = ([examples, tokens + 1, channels], [examples, tokens, channels]);
            let ((weight, weights), (x, xs), y) = (bench.weights(channels), bench.input(shape), bench.output(longer));
            let ((dy, dys), (dx, mut dxs)) = (bench.input(longer), bench.target(shape, accumulate));
            let dweight = bench.device.place(4 * channels);
            prepend(&mut bench.tape, weight, x, y);
            prepend_weight(&mut bench.tape, dy, dweight);
            behind(&mut bench.tape, dy, dx, accumulate);
            bench.play();
            let (mut ys, mut dweights) = (vec![0.0; dys.len()], vec![0.0; channels]);
            tokens::prepend(&weights, tokens, &xs, &mut ys);
            tokens::prepended(tokens, &dys, &mut dweights);
            tokens::behind(tokens, channels, &dys, &mut dxs, accumulate);
            bench.check("prepend", y, &ys);
            bench.check_floats("token's gradient", dweight, &dweights);
            bench.check("behind", dx, &dxs);
        });
    }

    #[test]
    fn embeddings_are_added_to_every_example() {
        all(|bench, shape, _| {
            let len = shape[1] * shape[2];
            let ((weight, weights), (x, xs), y) = (bench.weights(len), bench.input(shape), bench.output(shape));
            let dweight = bench.device.place(4 * len);
            embed(&mut bench.tape, weight, x, y);
            embed_weight(&mut bench.tape, x, dweight);
            bench.play();
            let (mut ys, mut sums) = (xs.clone(), vec![0.0; len]);
            tokens::embed(&weights, &xs, &mut ys);
            xs.chunks_exact(len).for_each(|xs| sums.iter_mut().zip(xs).for_each(|(sum, x)| *sum += x));
            bench.check("embed", y, &ys);
            bench.check_floats("embedding's gradient", dweight, &sums);
        });
    }

    #[test]
    fn a_token_is_selected() {
        all(|bench, shape, accumulate| {
            let ([examples, tokens, channels], index) = (shape, shape[1] / 2);
            let ((x, xs), y) = (bench.input(shape), bench.output([examples, 1, channels]));
            let ((dy, dys), (dx, mut dxs)) = (bench.input([examples, 1, channels]), bench.target(shape, accumulate));
            select(&mut bench.tape, index, x, y);
            select_backward(&mut bench.tape, index, dy, dx, accumulate);
            bench.play();
            let mut ys = dys.clone();
            tokens::select(index, tokens, channels, &xs, &mut ys);
            tokens::select_backward(index, tokens, channels, &dys, &mut dxs, accumulate);
            bench.check("select", y, &ys);
            bench.check("select backward", dx, &dxs);
        });
    }

    #[test]
    fn rows_are_scaled() {
        all(|bench, shape, accumulate| {
            let ((weight, weights), (x, xs)) = (bench.weights(shape[2]), bench.input(shape));
            let (y, mut ys) = bench.target(shape, accumulate);
            scale_rows(&mut bench.tape, weight, x, y, accumulate);
            bench.play();
            elementwise::scale_rows(&xs, &weights, &mut ys, accumulate);
            bench.check("scale", y, &ys);
        });
    }
}
