//! Pooling over windows and over whole images.

use rayon::prelude::*;

use crate::kernels::{Float, Geometry};

/// Maximum over windows; the rim never wins. `winners` gets the input position of each maximum (the first one among
/// equals, as in PyTorch; NaN wins).
pub fn max<T: Float>(g: &Geometry, x: &[T], y: &mut [T], winners: &mut [u32]) {
    let (in_len, out_len) = (g.input_len(), g.positions() * g.channels);
    let images = y.par_chunks_mut(out_len).zip(winners.par_chunks_mut(out_len)).zip(x.par_chunks(in_len));
    images.for_each(|((y, winners), x)| {
        let pixels = y.chunks_exact_mut(g.channels).zip(winners.chunks_exact_mut(g.channels));
        for (o, (y, winners)) in pixels.enumerate() {
            max_window(g, x, o, y, winners);
        }
    });
}

/// Maximum of one window, channel by channel.
fn max_window<T: Float>(g: &Geometry, x: &[T], o: usize, y: &mut [T], winners: &mut [u32]) {
    let mut first = true;
    for position in positions(g, o) {
        let pixel = &x[position * g.channels..][..g.channels];
        for ((y, winner), &value) in y.iter_mut().zip(winners.iter_mut()).zip(pixel) {
            #[expect(clippy::eq_op, reason = "NaN is the only value that differs from itself")]
            let wins = first || value > *y || value != value;
            if wins {
                (*y, *winner) = (value, position as u32);
            }
        }
        first = false;
    }
}

/// Input positions under window `o`, rim left out.
fn positions(g: &Geometry, o: usize) -> impl Iterator<Item = usize> {
    let (oy, ox) = (o / g.output[1], o % g.output[1]);
    (0..g.kernel[0]).filter_map(move |ky| g.source(0, oy, ky)).flat_map(move |iy| {
        (0..g.kernel[1]).filter_map(move |kx| g.source(1, ox, kx)).map(move |ix| iy * g.input[1] + ix)
    })
}

/// Gives each maximum's gradient to its winner.
pub fn max_backward<T: Float>(g: &Geometry, dy: &[T], winners: &[u32], dx: &mut [T], accumulate: bool) {
    let (in_len, out_len) = (g.input_len(), g.positions() * g.channels);
    let images = dx.par_chunks_mut(in_len).zip(dy.par_chunks(out_len)).zip(winners.par_chunks(out_len));
    images.for_each(|((dx, dy), winners)| {
        if !accumulate {
            dx.fill(T::ZERO);
        }
        for (dy, winners) in dy.chunks_exact(g.channels).zip(winners.chunks_exact(g.channels)) {
            for (c, (dy, winner)) in dy.iter().zip(winners).enumerate() {
                dx[*winner as usize * g.channels + c] += *dy;
            }
        }
    });
}

/// Mean over windows; the rim counts as zeros.
pub fn average<T: Float>(g: &Geometry, x: &[T], y: &mut [T]) {
    let share = T::ONE / T::of((g.kernel[0] * g.kernel[1]) as f64);
    let images = y.par_chunks_mut(g.positions() * g.channels).zip(x.par_chunks(g.input_len()));
    images.for_each(|(y, x)| {
        for (o, y) in y.chunks_exact_mut(g.channels).enumerate() {
            y.fill(T::ZERO);
            for position in positions(g, o) {
                let pixel = &x[position * g.channels..][..g.channels];
                y.iter_mut().zip(pixel).for_each(|(y, x)| *y += *x);
            }
            for y in y {
                *y = *y * share;
            }
        }
    });
}

/// Spreads each mean's gradient over its window.
pub fn average_backward<T: Float>(g: &Geometry, dy: &[T], dx: &mut [T], accumulate: bool) {
    let share = T::ONE / T::of((g.kernel[0] * g.kernel[1]) as f64);
    let images = dx.par_chunks_mut(g.input_len()).zip(dy.par_chunks(g.positions() * g.channels));
    images.for_each(|(dx, dy)| {
        if !accumulate {
            dx.fill(T::ZERO);
        }
        for (o, dy) in dy.chunks_exact(g.channels).enumerate() {
            for position in positions(g, o) {
                let pixel = &mut dx[position * g.channels..][..g.channels];
                pixel.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += *dy * share);
            }
        }
    });
}

/// Mean over all positions of each image.
pub fn global_average<T: Float>(channels: usize, positions: usize, x: &[T], y: &mut [T]) {
    let share = T::ONE / T::of(positions as f64);
    y.par_chunks_mut(channels).zip(x.par_chunks(channels * positions)).for_each(|(y, x)| {
        y.fill(T::ZERO);
        for pixel in x.chunks_exact(channels) {
            y.iter_mut().zip(pixel).for_each(|(y, x)| *y += *x);
        }
        for y in y {
            *y = *y * share;
        }
    });
}

/// Spreads each mean's gradient over its image.
pub fn global_average_backward<T: Float>(channels: usize, positions: usize, dy: &[T], dx: &mut [T], accumulate: bool) {
    let share = T::ONE / T::of(positions as f64);
    dx.par_chunks_mut(channels * positions).zip(dy.par_chunks(channels)).for_each(|(dx, dy)| {
        for pixel in dx.chunks_exact_mut(channels) {
            for (dx, dy) in pixel.iter_mut().zip(dy) {
                *dx = if accumulate { *dx } else { T::ZERO } + *dy * share;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample};

    fn geometry(input: [usize; 2], kernel: usize, stride: usize, padding: usize) -> Geometry {
        let output = input.map(|i| (i + 2 * padding - kernel) / stride + 1);
        let (kernel, stride, padding) = ([kernel; 2], [stride; 2], [padding; 2]);
        Geometry { channels: 2, input, output, kernel, stride, padding }
    }

    /// Windows that touch, overlap, leave gaps, do not divide the input, and reach over the rim.
    fn geometries() -> [Geometry; 4] {
        [geometry([4, 6], 2, 2, 0), geometry([5, 7], 3, 2, 1), geometry([7, 5], 2, 3, 0), geometry([5, 5], 3, 1, 1)]
    }

    #[test]
    fn gradients_of_maxima_equal_finite_differences() {
        for g in geometries() {
            let (x, c) = (sample(2 * g.input_len(), 1), sample(2 * g.positions() * 2, 2));
            let forward = |x: &[f64]| {
                let (mut y, mut winners) = (vec![0.0; c.len()], vec![0; c.len()]);
                max(&g, x, &mut y, &mut winners);
                (y, winners)
            };
            let mut dx = sample(x.len(), 3);
            let before = dx.clone();
            max_backward(&g, &c, &forward(&x).1, &mut dx, true);
            dx.iter_mut().zip(&before).for_each(|(dx, before)| *dx -= before);
            assert_gradient("x", &x, &dx, |x| projection(&forward(x).0, &c));
        }
    }

    #[test]
    fn gradients_of_means_equal_finite_differences() {
        for g in geometries() {
            let (x, c) = (sample(2 * g.input_len(), 1), sample(2 * g.positions() * 2, 2));
            let mut dx = vec![9.0; x.len()];
            average_backward(&g, &c, &mut dx, false);
            assert_gradient("x", &x, &dx, |x| {
                let mut y = vec![0.0; c.len()];
                average(&g, x, &mut y);
                projection(&y, &c)
            });
            let (mut dx, c) = (vec![9.0; x.len()], sample(4, 3));
            let positions = g.input[0] * g.input[1];
            global_average_backward(2, positions, &c, &mut dx, false);
            assert_gradient("x", &x, &dx, |x| {
                let mut y = vec![0.0; 4];
                global_average(2, positions, x, &mut y);
                projection(&y, &c)
            });
        }
    }

    #[test]
    fn the_first_of_equal_maxima_wins_and_the_rim_never_does() {
        let g = Geometry { channels: 1, ..geometry([3, 3], 3, 2, 1) };
        let x = [-1.0, -1.0, -2.0, -1.0, -1.0, -2.0, -3.0, -3.0, f32::NAN];
        let (mut y, mut winners) = ([0.0; 4], [9; 4]);
        max(&g, &x, &mut y, &mut winners);
        assert_eq!((y[0], y[1], y[2]), (-1.0, -1.0, -1.0));
        assert!(y[3].is_nan());
        assert_eq!(winners, [0, 1, 3, 8]);
    }
}
