//! Multi-head self-attention between its projections.
//!
//! Each head's queries, keys, values and results are matrices of their own, (tokens x width), with rows of whole pieces
//! of 16 bytes; so are its scores, (tokens x tokens), and what becomes of them. What lies behind the channels of a row is 0. Scores and
//! gradients by probabilities are f32 whatever the storage is: the exponential and the difference that softmax makes of them need it.

use crate::exec::gpu::kernels::elementwise::{Rows, piece, pieces, softmax_scores, softmax_scores_backward, spread};
use crate::exec::gpu::tape::{Argument, Command, Factor, Finish, Place, Product, Storage, Tape, Values};
use crate::kernels::attention::Attention;

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Examples of the batch.
    pub examples: usize,
    /// Tokens of an example.
    pub tokens: usize,
    /// Channels of queries, keys and values each.
    pub channels: usize,
    /// Heads, each of which has an equal part of the channels.
    pub heads: usize,
}

impl Sizes {
    /// Those of a batch.
    #[must_use]
    pub fn of(attention: &Attention, examples: usize) -> Self {
        let Attention { channels, heads, tokens } = *attention;
        Self { examples, tokens, channels, heads }
    }

    /// Channels of a head.
    fn width(self) -> usize {
        self.channels / self.heads
    }

    /// Heads of all examples.
    fn count(self) -> usize {
        self.examples * self.heads
    }

    /// Numbers of all heads' matrices with rows of `channels`.
    fn numbers(self, storage: Storage, channels: usize) -> usize {
        self.count() * self.tokens * storage.stride(channels)
    }

    /// Bytes of the queries, or the keys, or the values of all heads.
    #[must_use]
    pub fn line(self, storage: Storage) -> usize {
        self.numbers(storage, self.width()) * storage.bytes()
    }

    /// Bytes of the probabilities of all heads.
    #[must_use]
    pub fn square(self, storage: Storage) -> usize {
        self.numbers(storage, self.tokens) * storage.bytes()
    }

    /// Bytes of their scores, in rows of as many numbers.
    #[must_use]
    pub fn scores(self, storage: Storage) -> usize {
        self.numbers(storage, self.tokens) * Storage::F32.bytes()
    }

    fn rows(self, storage: Storage) -> Rows {
        let count = self.count() * self.tokens;
        Rows { count, channels: self.tokens, stride: storage.stride(self.tokens) }
    }

    fn factor(self) -> f64 {
        1.0 / (self.width() as f64).sqrt()
    }
}

/// What an attention keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Queries, keys and values of each head; lives from the forward to the backward pass.
    pub packed: Place,
    /// What each token gives to each; lives from the forward to the backward pass.
    pub probabilities: Place,
    /// What only the commands of one pass need; may be scratch memory.
    pub passing: Place,
}

impl Work {
    /// Bytes of `packed`, of `probabilities`, of `passing` in the forward pass and of `passing` in the backward pass.
    #[must_use]
    pub fn bytes(sizes: Sizes, storage: Storage) -> [usize; 4] {
        let line = sizes.line(storage);
        let [behind, scores] = [line, sizes.scores(storage)].map(|bytes| bytes.next_multiple_of(256));
        [3 * line, sizes.square(storage), line.max(scores), behind + scores + 3 * line]
    }
}

/// Rows of channels to `parts` matrices of each head, one part after another.
fn pack_parts(tape: &mut Tape, sizes: Sizes, rows: Values, packed: Place, parts: usize) {
    let width = sizes.width();
    let per_row = tape.storage.stride(width) / piece(tape.storage);
    let pieces = parts * sizes.count() * sizes.tokens * per_row;
    let counts = [pieces, sizes.examples, sizes.tokens, sizes.heads, width, per_row, rows.stride];
    let arguments = [rows.into(), packed.into()].into_iter().chain(counts.map(Argument::from)).collect();
    spread(tape, "pack_heads", pieces, arguments);
}

fn unpack_parts(tape: &mut Tape, sizes: Sizes, packed: Place, rows: Values, accumulate: bool) {
    let (pieces, width) = (pieces(tape, rows), sizes.width());
    let padded = tape.storage.stride(width);
    let counts = [pieces, sizes.examples, sizes.tokens, sizes.heads, width, padded, rows.stride, rows.channels];
    let last = [accumulate.into()];
    let arguments = [packed.into(), rows.into()].into_iter().chain(counts.map(Argument::from)).chain(last).collect();
    spread(tape, "unpack_heads", pieces, arguments);
}

/// Queries, keys and values (3 channels behind each other) become matrices of each head, one after another.
pub fn pack(tape: &mut Tape, sizes: Sizes, qkv: Values, packed: Place) {
    pack_parts(tape, sizes, qkv, packed, 3);
}

/// The inverse of [`pack`] for gradients, which are stored or added.
pub fn unpack_gradient(tape: &mut Tape, sizes: Sizes, dpacked: Place, dqkv: Values, accumulate: bool) {
    unpack_parts(tape, sizes, dpacked, dqkv, accumulate);
}

/// Values of all channels become matrices of each head.
pub fn pack_heads(tape: &mut Tape, sizes: Sizes, values: Values, packed: Place) {
    pack_parts(tape, sizes, values, packed, 1);
}

/// The inverse of [`pack_heads`].
pub fn unpack_heads(tape: &mut Tape, sizes: Sizes, packed: Place, values: Values) {
    unpack_parts(tape, sizes, packed, values, false);
}

/// Scores become probabilities: softmax of each row, divided by the root of a head's width before.
pub fn probabilities(tape: &mut Tape, sizes: Sizes, scores: Place, p: Place) {
    softmax_scores(tape, sizes.rows(tape.storage), sizes.factor(), scores, p);
}

/// The gradient by the scores, in place of the probabilities `p`, from that by them.
pub fn probabilities_backward(tape: &mut Tape, sizes: Sizes, p: Place, dp: Place) {
    softmax_scores_backward(tape, sizes.rows(tape.storage), sizes.factor(), [p, dp, p]);
}

/// Products of all heads' matrices.
#[derive(Debug, Clone, Copy)]
struct Heads {
    sizes: Sizes,
    storage: Storage,
}

impl Heads {
    fn matrix(self, place: Place, channels: usize, transposed: bool) -> Factor {
        let stride = self.storage.stride(channels);
        Factor { place, storage: self.storage, stride, transposed, step: self.sizes.tokens * stride }
    }

    /// (tokens x width).
    fn line(self, place: Place) -> Factor {
        self.matrix(place, self.sizes.width(), false)
    }

    /// (tokens x tokens).
    fn square(self, place: Place) -> Factor {
        self.matrix(place, self.sizes.tokens, false)
    }

    /// Scores in f32: the columns behind the tokens are left to softmax.
    fn scores(self, tape: &mut Tape, left: Place, right: Place, result: Place) {
        let right = Factor { transposed: true, ..self.line(right) };
        let result = Factor { storage: Storage::F32, ..self.square(result) };
        self.product(tape, [self.line(left), right, result], [self.sizes.tokens, self.sizes.width()]);
    }

    /// A square matrix times lines, whose zeros behind the channels the result takes over.
    fn mix(self, tape: &mut Tape, square: Place, transposed: bool, line: Place, result: Place) {
        let left = Factor { transposed, ..self.square(square) };
        let columns = self.storage.stride(self.sizes.width());
        self.product(tape, [left, self.line(line), self.line(result)], [columns, self.sizes.tokens]);
    }

    fn product(self, tape: &mut Tape, [left, right, result]: [Factor; 3], [columns, depth]: [usize; 2]) {
        tape.commands.push(Command::Product(Product {
            left,
            right,
            result,
            sizes: [self.sizes.tokens, columns, depth],
            batch: self.sizes.count(),
            scale: 1.0,
            accumulate: false,
            exact: false,
            finish: Finish { bias: None, relu: false },
        }));
    }
}

/// `softmax(q kᵀ / sqrt(d)) v` of every head: `y` (examples x tokens x channels) of `qkv` (examples x tokens x 3
/// channels).
pub fn forward(tape: &mut Tape, sizes: Sizes, qkv: Values, work: &Work, y: Values) {
    let heads = Heads { sizes, storage: tape.storage };
    let line = sizes.line(tape.storage);
    let [q, k, v] = [0, 1, 2].map(|part| work.packed.part(part * line, line));
    // When the probabilities are there, the scores are of no use.
    let (scores, mixed) = (work.passing.part(0, sizes.scores(tape.storage)), work.passing.part(0, line));
    pack(tape, sizes, qkv, work.packed);
    heads.scores(tape, q, k, scores);
    probabilities(tape, sizes, scores, work.probabilities);
    heads.mix(tape, work.probabilities, false, v, mixed);
    unpack_heads(tape, sizes, mixed, y);
}

/// `dqkv = ` or `dqkv += ` the gradient of queries, keys and values, after [`forward`] with the same `work`, whose probabilities are used
/// up.
pub fn backward(tape: &mut Tape, sizes: Sizes, work: &Work, dy: Values, dqkv: Values, accumulate: bool) {
    let heads = Heads { sizes, storage: tape.storage };
    let (line, p) = (sizes.line(tape.storage), work.probabilities);
    let [q, k, v] = [0, 1, 2].map(|part| work.packed.part(part * line, line));
    let (behind, scores) = (line.next_multiple_of(256), sizes.scores(tape.storage));
    let (dmixed, dp) = (work.passing.part(0, line), work.passing.part(behind, scores));
    let dpacked = work.passing.part(behind + scores.next_multiple_of(256), 3 * line);
    let [dq, dk, dv] = [0, 1, 2].map(|part| dpacked.part(part * line, line));
    pack_heads(tape, sizes, dy, dmixed);
    heads.scores(tape, dmixed, v, dp);
    heads.mix(tape, p, true, dmixed, dv);
    probabilities_backward(tape, sizes, p, dp);
    let dscores = p;
    heads.mix(tape, dscores, false, k, dq);
    heads.mix(tape, dscores, true, q, dk);
    unpack_gradient(tape, sizes, dpacked, dqkv, accumulate);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::emulated::{Bench, STORAGES};
    use crate::kernels::attention::Attention;
    use crate::kernels::finite_difference::workspace;

    #[test]
    fn both_passes_are_those_of_the_processor() {
        for storage in STORAGES {
            for (channels, heads, tokens) in [(6, 2, 3), (4, 1, 5), (3, 3, 1), (32, 2, 37), (64, 4, 9)] {
                for accumulate in [false, true] {
                    let (sizes, mut bench) = (Sizes { examples: 2, tokens, channels, heads }, Bench::new(storage));
                    let attention = Attention { channels, heads, tokens };
                    let numbers: Vec<f64> = bench.sample(6 * tokens * channels).iter().map(|x| 4.0 * x).collect();
                    let ((qkv, xs), (dy, dys)) =
                        (bench.values([2, tokens, 3 * channels], &numbers), bench.input([2, tokens, channels]));
                    let y = bench.output([2, tokens, channels]);
                    let (dqkv, mut dxs) = bench.target([2, tokens, 3 * channels], accumulate);
                    let [packed, probabilities, ahead, back] = Work::bytes(sizes, storage);
                    let [packed, probabilities] = [packed, probabilities].map(|bytes| bench.device.place(bytes));
                    let passing = bench.tape.scratch(ahead.max(back));
                    let work = Work { packed, probabilities, passing };
                    forward(&mut bench.tape, sizes, qkv, &work, y);
                    backward(&mut bench.tape, sizes, &work, dy, dqkv, accumulate);
                    bench.play();
                    let mut ys = dys.clone();
                    attention.forward(&mut workspace(), &xs, &mut ys);
                    attention.backward(&mut workspace(), &xs, &dys, &mut dxs, accumulate);
                    bench.check("attention", y, &ys);
                    bench.check("attention backward", dqkv, &dxs);
                }
            }
        }
    }
}
