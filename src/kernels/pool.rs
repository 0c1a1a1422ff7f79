//! Maxima and means over windows, over parts of images, and over whole ones.

use rayon::prelude::*;

use crate::kernels::{Float, Geometry};

/// What one coordinate of the output covers of an axis of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: usize,
    end: usize,
    step: usize,
    /// What it counts for in a mean.
    count: usize,
}

/// What each position of a pool's output covers of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover {
    input: [usize; 2],
    /// By rows, by columns.
    spans: [Vec<Span>; 2],
}

impl Cover {
    /// Windows; a last one may hang over the end. With `count_padding` a mean divides by all of the window that lies on the
    /// input or its padding, else by what lies on the input.
    #[must_use]
    pub fn windows(g: &Geometry, count_padding: bool) -> Self {
        let span = |axis: usize, at: usize| {
            let (step, padding, size) = (g.dilation[axis], g.padding[axis], g.input[axis]);
            let start = at * g.stride[axis];
            let reach = (g.kernel[axis] - 1) * step + 1;
            let outside = padding.saturating_sub(start).div_ceil(step) * step;
            let (first, end) =
                ((start + outside).saturating_sub(padding), (start + reach).saturating_sub(padding).min(size));
            let inside = (first..end).step_by(step).len();
            let count = if count_padding { (start + reach).min(size + 2 * padding) - start } else { inside };
            Span { first, end, step, count }
        };
        Self { input: g.input, spans: [0, 1].map(|axis| (0..g.output[axis]).map(|at| span(axis, at)).collect()) }
    }

    /// As many parts as the output has positions, of about the same size; they may overlap (PyTorch's adaptive pools).
    #[must_use]
    pub fn parts(input: [usize; 2], output: [usize; 2]) -> Self {
        let span = |axis: usize, at: usize| {
            let first = at * input[axis] / output[axis];
            let end = ((at + 1) * input[axis]).div_ceil(output[axis]);
            Span { first, end, step: 1, count: end - first }
        };
        Self { input, spans: [0, 1].map(|axis| (0..output[axis]).map(|at| span(axis, at)).collect()) }
    }

    /// Positions of the input.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Positions of the output.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.spans[0].len() * self.spans[1].len()
    }

    fn at(&self, o: usize) -> [Span; 2] {
        let width = self.spans[1].len();
        [self.spans[0][o / width], self.spans[1][o % width]]
    }

    /// Positions of the input that position `o` of the output covers.
    pub fn positions(&self, o: usize) -> impl Iterator<Item = usize> {
        let ([rows, columns], width) = (self.at(o), self.input[1]);
        (rows.first..rows.end).step_by(rows.step).flat_map(move |row| {
            (columns.first..columns.end).step_by(columns.step).map(move |column| row * width + column)
        })
    }

    /// What the sum over position `o` is divided by for a mean.
    #[must_use]
    pub fn count(&self, o: usize) -> usize {
        let [rows, columns] = self.at(o);
        rows.count * columns.count
    }
}

/// Maximum; padding never counts. `argmax` gets the input position of each maximum (the first one among equals, as in
/// PyTorch; NaN wins).
pub fn max<T: Float>(cover: &Cover, channels: usize, x: &[T], y: &mut [T], argmax: &mut [u32]) {
    let (input, output) = (cover.inputs() * channels, cover.outputs() * channels);
    let images = y.par_chunks_mut(output).zip(argmax.par_chunks_mut(output)).zip(x.par_chunks(input));
    images.for_each(|((y, argmax), x)| {
        let pixels = y.chunks_exact_mut(channels).zip(argmax.chunks_exact_mut(channels));
        for (o, (y, argmax)) in pixels.enumerate() {
            max_window(cover.positions(o), x, y, argmax);
        }
    });
}

/// Channels from which on loops over them without a branch, many at once, are faster than those with one.
const MANY: usize = 32;

/// Maximum of one window, channel by channel.
fn max_window<T: Float>(positions: impl Iterator<Item = usize>, x: &[T], y: &mut [T], argmax: &mut [u32]) {
    let mut first = true;
    for position in positions {
        let pixel = &x[position * y.len()..][..y.len()];
        if y.len() < MANY {
            for ((y, index), &value) in y.iter_mut().zip(argmax.iter_mut()).zip(pixel) {
                if first || wins(value, *y) {
                    (*y, *index) = (value, position as u32);
                }
            }
        } else if first {
            y.copy_from_slice(pixel);
            argmax.fill(position as u32);
        } else {
            for ((y, index), &value) in y.iter_mut().zip(argmax.iter_mut()).zip(pixel) {
                let wins = wins(value, *y);
                *y = if wins { value } else { *y };
                *index = if wins { position as u32 } else { *index };
            }
        }
        first = false;
    }
}

/// Whether `value` takes the place of the maximum `most` so far.
#[expect(clippy::eq_op, reason = "NaN is the only value that differs from itself")]
fn wins<T: Float>(value: T, most: T) -> bool {
    value > most || value != value
}

/// Where there are many channels, windows of at most so many positions are faster when all channels are compared position by
/// position than when the index of each channel is followed.
const SMALL: usize = 16;

/// Gives each maximum's gradient to its index.
pub fn max_backward<T: Float>(
    cover: &Cover,
    channels: usize,
    dy: &[T],
    argmax: &[u32],
    dx: &mut [T],
    accumulate: bool,
) {
    let (input, output) = (cover.inputs() * channels, cover.outputs() * channels);
    let images = dx.par_chunks_mut(input).zip(dy.par_chunks(output)).zip(argmax.par_chunks(output));
    images.for_each(|((dx, dy), argmax)| {
        if !accumulate {
            dx.fill(T::ZERO);
        }
        for (o, (dy, argmax)) in dy.chunks_exact(channels).zip(argmax.chunks_exact(channels)).enumerate() {
            if channels >= MANY && cover.positions(o).count() <= SMALL {
                for position in cover.positions(o) {
                    let pixel = &mut dx[position * channels..][..channels];
                    for ((dx, dy), index) in pixel.iter_mut().zip(dy).zip(argmax) {
                        *dx += if *index == position as u32 { *dy } else { T::ZERO };
                    }
                }
            } else {
                for (c, (dy, index)) in dy.iter().zip(argmax).enumerate() {
                    dx[*index as usize * channels + c] += *dy;
                }
            }
        }
    });
}

/// Mean.
pub fn mean<T: Float>(cover: &Cover, channels: usize, x: &[T], y: &mut [T]) {
    let images = y.par_chunks_mut(cover.outputs() * channels).zip(x.par_chunks(cover.inputs() * channels));
    images.for_each(|(y, x)| {
        for (o, y) in y.chunks_exact_mut(channels).enumerate() {
            y.fill(T::ZERO);
            for position in cover.positions(o) {
                let pixel = &x[position * channels..][..channels];
                y.iter_mut().zip(pixel).for_each(|(y, x)| *y += *x);
            }
            let share = T::ONE / T::of(cover.count(o) as f64);
            for y in y {
                *y = *y * share;
            }
        }
    });
}

/// Spreads each mean's gradient over what it covers.
pub fn mean_backward<T: Float>(cover: &Cover, channels: usize, dy: &[T], dx: &mut [T], accumulate: bool) {
    let images = dx.par_chunks_mut(cover.inputs() * channels).zip(dy.par_chunks(cover.outputs() * channels));
    images.for_each(|(dx, dy)| {
        if !accumulate {
            dx.fill(T::ZERO);
        }
        for (o, dy) in dy.chunks_exact(channels).enumerate() {
            let share = T::ONE / T::of(cover.count(o) as f64);
            for position in cover.positions(o) {
                let pixel = &mut dx[position * channels..][..channels];
                pixel.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += *dy * share);
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
        Geometry { channels: 2, input, output, kernel, stride, padding, dilation: [1; 2] }
    }

    /// Windows that touch, overlap, leave gaps, do not divide the input, reach over the padding, hang over the end and are
    /// dilated; parts that overlap; the whole image.
    fn covers() -> [Cover; 9] {
        let hanging = Geometry { output: [4, 3], ..geometry([6, 5], 3, 2, 1) };
        let dilated = Geometry { dilation: [2, 1], output: [4, 4], ..geometry([7, 5], 3, 1, 1) };
        [
            Cover::windows(&geometry([4, 6], 2, 2, 0), true),
            Cover::windows(&geometry([5, 7], 3, 2, 1), true),
            Cover::windows(&geometry([5, 7], 3, 2, 1), false),
            Cover::windows(&geometry([7, 5], 2, 3, 0), true),
            Cover::windows(&hanging, true),
            Cover::windows(&hanging, false),
            Cover::windows(&dilated, false),
            Cover::parts([5, 4], [3, 7]),
            Cover::parts([5, 4], [1, 1]),
        ]
    }

    #[test]
    fn gradients_of_maxima_equal_finite_differences() {
        for cover in covers() {
            let (x, c) = (sample(2 * cover.inputs() * 2, 1), sample(2 * cover.outputs() * 2, 2));
            let forward = |x: &[f64]| {
                let (mut y, mut argmax) = (vec![0.0; c.len()], vec![0; c.len()]);
                max(&cover, 2, x, &mut y, &mut argmax);
                (y, argmax)
            };
            let mut dx = sample(x.len(), 3);
            let before = dx.clone();
            max_backward(&cover, 2, &c, &forward(&x).1, &mut dx, true);
            dx.iter_mut().zip(&before).for_each(|(dx, before)| *dx -= before);
            assert_gradient("x", &x, &dx, |x| projection(&forward(x).0, &c));
        }
    }

    #[test]
    fn gradients_of_means_equal_finite_differences() {
        for cover in covers() {
            let (x, c) = (sample(2 * cover.inputs() * 2, 1), sample(2 * cover.outputs() * 2, 2));
            let mut dx = vec![9.0; x.len()];
            mean_backward(&cover, 2, &c, &mut dx, false);
            assert_gradient("x", &x, &dx, |x| {
                let mut y = vec![0.0; c.len()];
                mean(&cover, 2, x, &mut y);
                projection(&y, &c)
            });
        }
    }

    /// Many channels take another way than one.
    #[test]
    fn many_channels_are_each_as_if_alone() {
        for cover in covers() {
            let (inputs, outputs) = (cover.inputs(), cover.outputs());
            let mut x = sample(inputs * MANY, 1);
            x.iter_mut().step_by(5).for_each(|x| *x = 0.25);
            x[7] = f64::NAN;
            let dy = sample(outputs * MANY, 2);
            let (mut y, mut argmax, mut dx) = (vec![0.0; dy.len()], vec![0; dy.len()], vec![0.0; x.len()]);
            max(&cover, MANY, &x, &mut y, &mut argmax);
            max_backward(&cover, MANY, &dy, &argmax, &mut dx, false);
            for channel in 0..MANY {
                let of = |all: &[f64]| -> Vec<f64> { all.iter().skip(channel).step_by(MANY).copied().collect() };
                let (mut y_alone, mut argmax_alone) = (vec![0.0; outputs], vec![0; outputs]);
                max(&cover, 1, &of(&x), &mut y_alone, &mut argmax_alone);
                let mut dx_alone = vec![9.0; inputs];
                max_backward(&cover, 1, &of(&dy), &argmax_alone, &mut dx_alone, false);
                let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same(&of(&y), &y_alone), "maxima of {channel}");
                assert_eq!(argmax.iter().skip(channel).step_by(MANY).copied().collect::<Vec<u32>>(), argmax_alone);
                assert!(same(&of(&dx), &dx_alone), "gradients of {channel}");
            }
        }
    }

    #[test]
    fn the_first_of_equal_maxima_wins_and_the_rim_never_does() {
        let x = [-1.0, -1.0, -2.0, -1.0, -1.0, -2.0, -3.0, -3.0, f32::NAN];
        let (mut y, mut argmax) = ([0.0; 4], [9; 4]);
        max(&Cover::windows(&geometry([3, 3], 3, 2, 1), true), 1, &x, &mut y, &mut argmax);
        assert_eq!((y[0], y[1], y[2]), (-1.0, -1.0, -1.0));
        assert!(y[3].is_nan());
        assert_eq!(argmax, [0, 1, 3, 8]);
    }
}
