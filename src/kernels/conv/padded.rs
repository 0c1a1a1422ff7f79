//! Images padded with zeros, in scratch memory.

use crate::kernels::tile::MOST_COLUMNS;
use crate::kernels::workspace::scratch;
use crate::kernels::{Float, Geometry};

/// Sizes of images with their padding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Padded {
    channels: usize,
    /// Size without padding.
    inner: [usize; 2],
    /// Size with it.
    outer: [usize; 2],
    /// Lines above, columns left.
    before: [usize; 2],
}

impl Padded {
    pub(super) fn new(channels: usize, inner: [usize; 2], before: [usize; 2], after: [usize; 2]) -> Self {
        Self { channels, inner, outer: [0, 1].map(|axis| inner[axis] + before[axis] + after[axis]), before }
    }

    /// That of a sliding window around its input.
    pub(super) fn of_input(g: &Geometry) -> Self {
        Self::new(g.channels, g.input, g.padding, g.padding)
    }

    /// The images `x` with the padding of a sliding window; `x` itself if there is none.
    pub(super) fn pad_input<'x, T: Float>(g: &Geometry, x: &'x [T], buffer: &'x mut Vec<T>) -> (Self, &'x [T]) {
        let padded = Self::of_input(g);
        let images = if g.padding == [0, 0] { x } else { padded.pad(x, buffer) };
        (padded, images)
    }

    /// Channels of a pixel.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Elements of a line.
    pub(super) fn line(&self) -> usize {
        self.outer[1] * self.channels
    }

    /// Elements of an image.
    pub(super) fn len(&self) -> usize {
        self.outer[0] * self.line()
    }

    /// Copies images into `buffer`, with zeros around them; a tile may read its columns beyond the last pixel.
    pub(super) fn pad<'b, T: Float>(&self, images: &[T], buffer: &'b mut Vec<T>) -> &'b [T] {
        let inner_line = self.inner[1] * self.channels;
        let count = images.len() / (self.inner[0] * inner_line);
        let outer = scratch(buffer, count * self.len() + MOST_COLUMNS);
        let left = self.before[1] * self.channels;
        for (outer, inner) in outer.chunks_exact_mut(self.len()).zip(images.chunks_exact(self.inner[0] * inner_line)) {
            let (above, rest) = outer.split_at_mut(self.before[0] * self.line());
            let (middle, below) = rest.split_at_mut(self.inner[0] * self.line());
            above.fill(T::ZERO);
            below.fill(T::ZERO);
            for (outer, inner) in middle.chunks_exact_mut(self.line()).zip(inner.chunks_exact(inner_line)) {
                outer[..left].fill(T::ZERO);
                outer[left..left + inner_line].copy_from_slice(inner);
                outer[left + inner_line..].fill(T::ZERO);
            }
        }
        outer
    }
}
