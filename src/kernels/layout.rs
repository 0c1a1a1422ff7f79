//! Between PyTorch's order of axes and ours: channels move from before the pixels to behind them.

use rayon::prelude::*;

use crate::kernels::Float;

/// Each block of (channels x pixels) becomes (pixels x channels).
pub fn channels_last<T: Copy + Send + Sync>(channels: usize, pixels: usize, from: &[T], to: &mut [T]) {
    let block = channels * pixels;
    to.par_chunks_mut(block).zip(from.par_chunks(block)).for_each(|(to, from)| {
        for (p, pixel) in to.chunks_exact_mut(channels).enumerate() {
            pixel.iter_mut().enumerate().for_each(|(c, value)| *value = from[c * pixels + p]);
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
}
