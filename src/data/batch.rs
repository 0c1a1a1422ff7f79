//! Stored examples to network inputs.

use rayon::prelude::*;

use super::dataset::Split;
use super::store::Pixels;
use crate::settings::Normalize;

/// Outputs below this number are written by the calling thread alone.
const PARALLEL: usize = 1 << 16;

/// `(x - mean) / std` of one channel.
#[derive(Debug, Clone, Copy)]
struct Affine {
    mean: f32,
    std: f32,
}

impl Affine {
    const IDENTITY: Self = Self { mean: 0.0, std: 1.0 };

    /// Of channel `channel`; one value serves all channels.
    fn of(normalize: Option<&Normalize>, channel: usize) -> Self {
        let Some(normalize) = normalize else { return Self::IDENTITY };
        let pick = |values: &[f32]| values.get(channel).or(values.last()).copied();
        Self { mean: pick(&normalize.mean).unwrap_or(0.0), std: pick(&normalize.std).unwrap_or(1.0) }
    }

    fn apply(self, x: f32) -> f32 {
        (x - self.mean) / self.std
    }

    /// For each byte, what it becomes.
    fn table(self) -> [f32; 256] {
        std::array::from_fn(|byte| self.apply(byte as f32 / 255.0))
    }
}

/// How examples are to be seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct BatchView<'a> {
    /// Examples that are counted from 0; all where there is none.
    pub subset: Option<&'a [usize]>,
    /// Applied to every value, after the division by 255 of bytes.
    pub normalize: Option<&'a Normalize>,
    /// What the channels are.
    pub channels: Channels,
}

/// What the channels of examples are to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Channels {
    /// Those of the examples as they are stored.
    #[default]
    Stored,
    /// The only one as often as this, at least once, one after another.
    Repeated(usize),
    /// The rows of images with one channel, `[C, L]`.
    Rows,
}

impl Channels {
    /// Elements of an example of `elements` stored ones.
    #[must_use]
    pub fn elements(self, elements: usize) -> usize {
        if let Self::Repeated(copies) = self { elements * copies } else { elements }
    }

    /// Channels of an example that is stored with the shape `example`, and how often they are repeated.
    fn of(self, example: &[usize]) -> (usize, usize) {
        match (self, example) {
            (Self::Rows, [1, rows, _]) => (*rows, 1),
            (Self::Repeated(copies), [channels, _, _]) => (*channels, copies),
            (_, [channels, _, _]) => (*channels, 1),
            _ => (1, 1),
        }
    }
}

impl Split {
    /// Writes the examples `indices` to `out`, one after another in row-major order (`[N, C, H, W]` or `[N, D]`): bytes
    /// divided by 255, floats as they are, then `(x - mean) / std` with one value per channel or one for all (examples of
    /// shape `[D]` have one channel). Where there is a subset, `indices` are places in it. Allocates nothing; runs in the
    /// current rayon pool; the result does not depend on it.
    ///
    /// # Panics
    /// When an index is not below [`Split::len`], or no place in the subset.
    pub fn batch(&self, indices: &[usize], view: BatchView<'_>, out: &mut [f32]) {
        let elements = view.channels.elements(self.elements());
        debug_assert_eq!(out.len(), indices.len() * elements, "one example per index");
        let tasks = if out.len() < PARALLEL { 1 } else { rayon::current_num_threads() };
        let group = indices.len().div_ceil(tasks).max(1);
        if tasks == 1 {
            self.write(indices, view, out);
        } else {
            let groups = out.par_chunks_mut(group * elements).zip(indices.par_chunks(group));
            groups.for_each(|(out, indices)| self.write(indices, view, out));
        }
    }

    /// Mean and deviation that `channel` is normalised with.
    #[must_use]
    pub fn affine(channel: usize, normalize: Option<&Normalize>) -> [f32; 2] {
        let Affine { mean, std } = Affine::of(normalize, channel);
        [mean, std]
    }

    /// What a stored 0 becomes in `channel`.
    #[must_use]
    pub fn black(channel: usize, normalize: Option<&Normalize>) -> f32 {
        Affine::of(normalize, channel).apply(0.0)
    }

    /// Writes examples channel by channel, so that a channel's table serves all of them.
    fn write(&self, indices: &[usize], view: BatchView<'_>, out: &mut [f32]) {
        let BatchView { subset, normalize, channels } = view;
        let elements = self.elements();
        let (channels, copies) = channels.of(&self.example_shape);
        let plane = elements / channels;
        for channel in 0..channels * copies {
            let affine = Affine::of(normalize, channel);
            let places = channel * plane..(channel + 1) * plane;
            let outputs = out.chunks_exact_mut(elements * copies).map(|out| &mut out[places.clone()]);
            let starts = indices.iter().map(|index| {
                let index = subset.map_or(*index, |subset| subset[*index]);
                index * elements + channel % channels * plane
            });
            match self.pixels.pixels() {
                Pixels::U8(bytes) => {
                    let table = affine.table();
                    for (out, at) in outputs.zip(starts) {
                        let pairs = out.iter_mut().zip(&bytes[at..at + plane]);
                        pairs.for_each(|(out, byte)| *out = table[usize::from(*byte)]);
                    }
                }
                Pixels::F32(floats) => {
                    for (out, at) in outputs.zip(starts) {
                        let pairs = out.iter_mut().zip(&floats[at..at + plane]);
                        pairs.for_each(|(out, value)| *out = affine.apply(*value));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the same arithmetic gives the same bits")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::labels::Labels;
    use crate::data::store::Stored;

    fn images(pixels: Pixels<'_>, count: usize) -> Split {
        Split {
            example_shape: vec![2, 1, 2],
            pixels: Stored::of(pixels),
            labels: Arc::new(Labels::Classes(vec![0; count])),
            classes: 1,
        }
    }

    #[test]
    fn bytes_are_divided_and_normalised_per_channel() {
        let split = images(Pixels::U8(&[0, 255, 51, 102, 10, 20, 30, 40]), 2);
        let normalize = Normalize { mean: vec![0.5, 0.25], std: vec![0.5, 2.0] };
        let mut out = [0.0; 8];
        let normalised = BatchView { normalize: Some(&normalize), ..BatchView::default() };
        split.batch(&[1, 0], normalised, &mut out);
        let at = |byte: f32, channel: usize| (byte / 255.0 - normalize.mean[channel]) / normalize.std[channel];
        assert_eq!(out, [at(10.0, 0), at(20.0, 0), at(30.0, 1), at(40.0, 1), -1.0, 1.0, at(51.0, 1), at(102.0, 1)]);
        split.batch(&[0, 0], BatchView::default(), &mut out);
        assert_eq!(out[..4], [0.0, 1.0, 0.2, 0.4]);
        split.batch(&[1, 0], BatchView { subset: Some(&[0, 1]), ..normalised }, &mut out);
        assert_eq!(out[4..6], [-1.0, 1.0]);
        split.batch(&[0, 0], BatchView { subset: Some(&[1]), ..normalised }, &mut out);
        assert_eq!(out[..2], [at(10.0, 0), at(20.0, 0)]);
        assert_eq!([0, 1].map(|channel| Split::black(channel, Some(&normalize))), [at(0.0, 0), at(0.0, 1)]);
    }

    #[test]
    fn channels_are_repeated_with_their_own_normalisation() {
        let pixels = Stored::of(Pixels::U8(&[0, 255, 51, 102]));
        let split =
            Split { example_shape: vec![1, 1, 2], pixels, labels: Arc::new(Labels::Classes(vec![0; 2])), classes: 1 };
        let normalize = Normalize { mean: vec![0.0, 1.0, 0.2], std: vec![1.0; 3] };
        let mut out = [0.0; 12];
        split.batch(
            &[0, 1],
            BatchView { normalize: Some(&normalize), channels: Channels::Repeated(3), subset: None },
            &mut out,
        );
        assert_eq!(out[..6], [0.0, 1.0, -1.0, 0.0, -0.2, 1.0 - 0.2]);
        assert_eq!(out[6..8], [0.2, 0.4]);
        let rows = Split {
            example_shape: vec![1, 2, 2],
            pixels: Stored::of(Pixels::F32(&[1.0, 2.0, 3.0, 4.0])),
            ..images(Pixels::U8(&[]), 1)
        };
        let normalize = Normalize { mean: vec![1.0, 3.0], std: vec![1.0, 2.0] };
        rows.batch(
            &[0],
            BatchView { normalize: Some(&normalize), channels: Channels::Rows, subset: None },
            &mut out[..4],
        );
        assert_eq!(out[..4], [0.0, 1.0, 0.0, 0.5]);
    }

    #[test]
    fn floats_are_taken_as_they_are() {
        let split = images(Pixels::F32(&[-1.0, 2.0, 3.0, 4.0]), 1);
        let mut out = [0.0; 4];
        split.batch(&[0], BatchView::default(), &mut out);
        assert_eq!(out, [-1.0, 2.0, 3.0, 4.0]);
        let normalize = Normalize { mean: vec![1.0], std: vec![2.0] };
        split.batch(&[0], BatchView { normalize: Some(&normalize), ..BatchView::default() }, &mut out);
        assert_eq!(out, [-1.0, 0.5, 1.0, 1.5]);
    }

    #[test]
    fn large_batches_do_not_depend_on_the_threads() {
        let count = 20_000;
        let bytes: Vec<u8> = (0..count * 4).map(|at| (at % 251) as u8).collect();
        let split = images(Pixels::U8(&bytes), count);
        let indices: Vec<usize> = (0..count).rev().collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = vec![0.0; count * 4];
            pool.install(|| split.batch(&indices, BatchView::default(), &mut out));
            out
        };
        let expected: Vec<f32> =
            indices.iter().flat_map(|index| (0..4).map(move |at| ((index * 4 + at) % 251) as f32 / 255.0)).collect();
        assert_eq!(run(1), expected);
        assert_eq!(run(3), expected);
    }
}
