//! Between PyTorch's order of axes and ours: channels move from before the pixels to behind them.

use rayon::prelude::*;

use crate::kernels::{Float, elementwise};

/// Each block of (channels x pixels) becomes (pixels x channels).
pub fn channels_last<T: Copy + Send + Sync>(channels: usize, pixels: usize, from: &[T], to: &mut [T]) {
    let block = channels * pixels;
    to.par_chunks_mut(block).zip(from.par_chunks(block)).for_each(|(to, from)| {
        for (p, pixel) in to.chunks_exact_mut(channels).enumerate() {
            pixel.iter_mut().enumerate().for_each(|(c, value)| *value = from[c * pixels + p]);
        }
    });
}

/// The values of every example in the order of (channels x positions), laid out anew for other `[channels, positions]`:
/// both sides have their channels behind the positions. The inverse, and so the gradient, swaps `from` and `to`.
pub fn reshape<T: Float>(from: [usize; 2], to: [usize; 2], x: &[T], y: &mut [T], accumulate: bool) {
    let is_flat = |sides: [usize; 2]| sides.contains(&1);
    if is_flat(from) && is_flat(to) {
        return elementwise::put(x, y, accumulate);
    }
    let block = from[0] * from[1];
    y.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(y, x)| {
        for (index, source) in (0..block).map(|i| i % from[1] * from[0] + i / from[1]).enumerate() {
            let target = &mut y[index % to[1] * to[0] + index / to[1]];
            *target = if accumulate { *target + x[source] } else { x[source] };
        }
    });
}

/// Each block of (pixels x channels) becomes (channels x pixels), or is added to what is there.
pub fn channels_first<T: Float>(channels: usize, pixels: usize, from: &[T], to: &mut [T], accumulate: bool) {
    let block = channels * pixels;
    to.par_chunks_mut(block).zip(from.par_chunks(block)).for_each(|(to, from)| {
        for (c, plane) in to.chunks_exact_mut(pixels).enumerate() {
            for (p, value) in plane.iter_mut().enumerate() {
                *value = if accumulate { *value } else { T::ZERO } + from[p * channels + c];
            }
        }
    });
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are exact")]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let planes = [1.0_f32, 2.0, 3.0, 10.0, 20.0, 30.0, 4.0, 5.0, 6.0, 40.0, 50.0, 60.0];
        let mut pixels = [0.0; 12];
        channels_last(2, 3, &planes, &mut pixels);
        assert_eq!(pixels, [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0, 5.0, 50.0, 6.0, 60.0]);
        let mut back = planes;
        channels_first(2, 3, &pixels, &mut back, true);
        assert_eq!(back, planes.map(|value| 2.0 * value));
    }

    #[test]
    fn a_reshape_keeps_the_order_of_channels_first() {
        let planes: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let inside = |[channels, positions]: [usize; 2]| {
            let mut values = vec![0.0; 24];
            channels_last(channels, positions, &planes, &mut values);
            values
        };
        for [from, to] in [[[2, 6], [3, 4]], [[12, 1], [4, 3]], [[3, 4], [12, 1]], [[2, 6], [1, 12]]] {
            let mut y = vec![1.0; 24];
            reshape(from, to, &inside(from), &mut y, true);
            assert_eq!(y, inside(to).iter().map(|value| value + 1.0).collect::<Vec<_>>());
            let mut back = vec![9.0; 24];
            reshape(to, from, &inside(to), &mut back, false);
            assert_eq!(back, inside(from));
        }
    }
}
