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
