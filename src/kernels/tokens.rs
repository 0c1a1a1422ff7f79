//! What transformers do with whole tokens; examples are (tokens x channels).

use rayon::prelude::*;

use crate::kernels::Float;
use crate::kernels::elementwise::put_piece;

/// Puts `token` before the tokens of every example: `y` has one more.
pub fn prepend<T: Float>(token: &[T], tokens: usize, x: &[T], y: &mut [T]) {
    let channels = token.len();
    let examples = y.par_chunks_mut((tokens + 1) * channels).zip(x.par_chunks(tokens * channels));
    examples.for_each(|(y, x)| {
        y[..channels].copy_from_slice(token);
        y[channels..].copy_from_slice(x);
    });
}

/// Gradient of the token: the sum over all examples.
pub fn prepended<T: Float>(tokens: usize, dy: &[T], dtoken: &mut [T]) {
    dtoken.fill(T::ZERO);
    for example in dy.chunks_exact((tokens + 1) * dtoken.len()) {
        dtoken.iter_mut().zip(example).for_each(|(sum, dy)| *sum += *dy);
    }
}

/// Gradient of the tokens behind the first one: copied, or added to `dx`.
pub fn behind<T: Float>(tokens: usize, channels: usize, dy: &[T], dx: &mut [T], accumulate: bool) {
    let examples = dx.par_chunks_mut(tokens * channels).zip(dy.par_chunks((tokens + 1) * channels));
    examples.for_each(|(dx, dy)| put_piece(&dy[channels..], dx, accumulate));
}

/// Adds `embedding` (tokens x channels) to every example.
pub fn embed<T: Float>(embedding: &[T], x: &[T], y: &mut [T]) {
    y.par_chunks_mut(embedding.len()).zip(x.par_chunks(embedding.len())).for_each(|(y, x)| {
        for ((y, x), e) in y.iter_mut().zip(x).zip(embedding) {
            *y = *x + *e;
        }
    });
}

/// One token of every example.
pub fn select<T: Float>(index: usize, tokens: usize, channels: usize, x: &[T], y: &mut [T]) {
    for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(tokens * channels)) {
        y.copy_from_slice(&x[index * channels..][..channels]);
    }
}

/// Gradient of [`select`]'s input: 0 for the other tokens.
pub fn select_backward<T: Float>(
    index: usize,
    tokens: usize,
    channels: usize,
    dy: &[T],
    dx: &mut [T],
    accumulate: bool,
) {
    dx.par_chunks_mut(tokens * channels).zip(dy.par_chunks(channels)).for_each(|(dx, dy)| {
        if !accumulate {
            dx.fill(T::ZERO);
        }
        dx[index * channels..][..channels].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += *dy);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample};

    #[test]
    fn gradients_equal_finite_differences() {
        let (x, token, c) = (sample(2 * 3 * 2, 1), sample(2, 2), sample(2 * 4 * 2, 3));
        let output = |x: &[f64], token: &[f64]| {
            let mut y = vec![0.0; 16];
            prepend(token, 3, x, &mut y);
            projection(&y, &c)
        };
        let (mut dtoken, mut dx) = (vec![5.0; 2], vec![1.0; 12]);
        prepended(3, &c, &mut dtoken);
        behind(3, 2, &c, &mut dx, true);
        for dx in &mut dx {
            *dx -= 1.0;
        }
        assert_gradient("token", &token, &dtoken, |token| output(&x, token));
        assert_gradient("x", &x, &dx, |x| output(x, &token));
        for accumulate in [false, true] {
            let mut dx = vec![1.0; 12];
            select_backward(1, 3, 2, &c[..4], &mut dx, accumulate);
            for dx in &mut dx {
                *dx -= f64::from(u8::from(accumulate));
            }
            assert_gradient("selected", &x, &dx, |x| {
                let mut y = vec![0.0; 4];
                select(1, 3, 2, x, &mut y);
                projection(&y, &c[..4])
            });
        }
    }

    #[test]
    fn embeddings_are_added_to_every_example() {
        let mut y = [0.0_f32; 4];
        embed(&[10.0, 20.0], &[1.0, 2.0, 3.0, 4.0], &mut y);
        assert!(y.iter().zip([11.0, 22.0, 13.0, 24.0]).all(|(y, expected)| y.to_bits() == f32::to_bits(expected)));
    }
}
