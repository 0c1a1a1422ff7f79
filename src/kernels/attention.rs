//! Multi-head self-attention (Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.2) between its
//! projections. The scores are never kept: the backward pass computes them again, head by head.

use std::num::NonZeroUsize;

use rayon::prelude::*;

use crate::kernels::softmax::{in_place, mean_gradient};
use crate::kernels::workspace::scratch;
use crate::kernels::{Float, Matrix, Workspace, matmul};

const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Channels of queries, keys and values each, and of the output.
    pub channels: usize,
    /// Heads, each of which has an equal part of the channels.
    pub heads: usize,
    /// Tokens of an example.
    pub tokens: usize,
}

impl Attention {
    /// `softmax(q kᵀ / sqrt(d)) v` of every head; `x` is (examples x tokens x 3 channels): queries, keys, values.
    pub fn forward<T: Float>(&self, work: &mut Workspace<T>, x: &[T], y: &mut [T]) {
        let example = self.tokens * self.channels;
        let lanes = &work.lanes;
        y.par_chunks_mut(example).zip(x.par_chunks(3 * example)).for_each(|(y, x)| {
            let lane = &mut *lanes.take();
            let Parts { q, k, v, mixed, scores, .. } = self.parts(&mut lane.tiles);
            for head in 0..self.heads {
                self.load(x, head, [&mut *q, &mut *k, &mut *v]);
                self.scores(q, k, scores);
                matmul(ONE, self.square(scores), self.matrix(v), mixed, false);
                self.put(mixed, self.channels, head * self.width(), y, false);
            }
        });
    }

    /// `dx = ` or `dx += ` the gradient of queries, keys and values.
    pub fn backward<T: Float>(&self, work: &mut Workspace<T>, x: &[T], dy: &[T], dx: &mut [T], accumulate: bool) {
        let example = self.tokens * self.channels;
        let lanes = &work.lanes;
        let examples = dx.par_chunks_mut(3 * example).zip(x.par_chunks(3 * example)).zip(dy.par_chunks(example));
        examples.for_each(|((dx, x), dy)| {
            let lane = &mut *lanes.take();
            let Parts { q, k, v, mixed, scores, slopes } = self.parts(&mut lane.tiles);
            let factor = self.factor::<T>();
            for head in 0..self.heads {
                self.load(x, head, [&mut *q, &mut *k, &mut *v]);
                self.scores(q, k, scores);
                self.take(dy, self.channels, head * self.width(), mixed);
                matmul(ONE, self.matrix(mixed), self.matrix(v).transposed(), slopes, false);
                for (slopes, scores) in slopes.chunks_exact_mut(self.tokens).zip(scores.chunks_exact(self.tokens)) {
                    let mean = mean_gradient(scores, slopes);
                    for (slope, score) in slopes.iter_mut().zip(scores) {
                        *slope = factor * *score * (*slope - mean);
                    }
                }
                // What the values were is no longer needed, so that their place takes each gradient in turn.
                let mut put = |part: usize, left: Matrix<T>, right: Matrix<T>| {
                    matmul(ONE, left, right, v, false);
                    self.put(v, 3 * self.channels, part * self.channels + head * self.width(), dx, accumulate);
                };
                put(0, self.square(slopes), self.matrix(k));
                put(1, self.square(slopes).transposed(), self.matrix(q));
                put(2, self.square(scores).transposed(), self.matrix(mixed));
            }
        });
    }

    /// Channels of a head.
    fn width(&self) -> usize {
        self.channels / self.heads
    }

    fn factor<T: Float>(&self) -> T {
        T::of(1.0 / (self.width() as f64).sqrt())
    }

    fn matrix<'a, T>(&self, data: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(data, self.tokens, self.width())
    }

    fn square<'a, T>(&self, data: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(data, self.tokens, self.tokens)
    }

    fn parts<'b, T: Float>(&self, buffer: &'b mut Vec<T>) -> Parts<'b, T> {
        let (line, square) = (self.tokens * self.width(), self.tokens * self.tokens);
        let (q, rest) = scratch(buffer, 4 * line + 2 * square).split_at_mut(line);
        let (k, rest) = rest.split_at_mut(line);
        let (v, rest) = rest.split_at_mut(line);
        let (mixed, rest) = rest.split_at_mut(line);
        let (scores, slopes) = rest.split_at_mut(square);
        Parts { q, k, v, mixed, scores, slopes }
    }

    /// A head's queries, keys and values.
    fn load<T: Float>(&self, x: &[T], head: usize, parts: [&mut [T]; 3]) {
        for (index, part) in parts.into_iter().enumerate() {
            self.take(x, 3 * self.channels, index * self.channels + head * self.width(), part);
        }
    }

    /// How much each token attends to each.
    fn scores<T: Float>(&self, q: &[T], k: &[T], scores: &mut [T]) {
        matmul(ONE, self.matrix(q), self.matrix(k).transposed(), scores, false);
        let factor = self.factor();
        scores.chunks_exact_mut(self.tokens).for_each(|row| in_place(row, factor));
    }

    /// Columns of an example (tokens x `of`) from `first` on.
    fn take<T: Float>(&self, example: &[T], of: usize, first: usize, part: &mut [T]) {
        for (part, token) in part.chunks_exact_mut(self.width()).zip(example.chunks_exact(of)) {
            part.copy_from_slice(&token[first..first + self.width()]);
        }
    }

    /// The inverse of [`Self::take`].
    fn put<T: Float>(&self, part: &[T], of: usize, first: usize, example: &mut [T], accumulate: bool) {
        for (part, token) in part.chunks_exact(self.width()).zip(example.chunks_exact_mut(of)) {
            crate::kernels::elementwise::put_piece(part, &mut token[first..first + self.width()], accumulate);
        }
    }
}

/// One head's matrices: the first four (tokens x width), the others (tokens x tokens).
struct Parts<'b, T> {
    q: &'b mut [T],
    k: &'b mut [T],
    v: &'b mut [T],
    mixed: &'b mut [T],
    scores: &'b mut [T],
    slopes: &'b mut [T],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample, workspace};

    #[test]
    fn gradients_equal_finite_differences() {
        for (channels, heads, tokens) in [(6, 2, 3), (4, 1, 5), (3, 3, 1)] {
            let attention = Attention { channels, heads, tokens };
            let (x, c) = (sample(2 * tokens * 3 * channels, 1), sample(2 * tokens * channels, 2));
            let forward = |x: &[f64]| {
                let mut y = vec![0.0; c.len()];
                attention.forward(&mut workspace(), x, &mut y);
                projection(&y, &c)
            };
            let mut dx = sample(x.len(), 3);
            let before = dx.clone();
            attention.backward(&mut workspace(), &x, &c, &mut dx, true);
            dx.iter_mut().zip(&before).for_each(|(dx, before)| *dx -= before);
            assert_gradient("x", &x, &dx, forward);
        }
    }
}
