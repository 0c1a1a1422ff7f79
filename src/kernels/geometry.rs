//! A window that slides over an image.

/// Sizes of a sliding window; each pair is (height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Channels of the input.
    pub channels: usize,
    /// Size of the input.
    pub input: [usize; 2],
    /// Size of the output.
    pub output: [usize; 2],
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Step between two windows.
    pub stride: [usize; 2],
    /// Rim around the input, on each side.
    pub padding: [usize; 2],
}

impl Geometry {
    /// Elements of one input image.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.channels * self.input[0] * self.input[1]
    }

    /// Positions of one output image.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Elements under the window.
    #[must_use]
    pub fn window_len(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }

    /// Whether the windows are the pixels themselves, in order.
    #[must_use]
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    /// The input coordinate under offset `k` of window `o` along `axis`; `None` on the rim.
    #[inline]
    pub(super) fn source(&self, axis: usize, o: usize, k: usize) -> Option<usize> {
        (o * self.stride[axis] + k).checked_sub(self.padding[axis]).filter(|&i| i < self.input[axis])
    }

    /// Unfolds (im2col) the windows of some output rows: `rows` counts through the rows of all images of `images`, and
    /// each window becomes a row of `columns`, of layout [kernel height, kernel width, channels], zero on the rim.
    pub(super) fn unfold<T: Copy + Default>(&self, images: &[T], rows: std::ops::Range<usize>, columns: &mut [T]) {
        let line = self.kernel[1] * self.channels;
        let mut windows = columns.chunks_exact_mut(self.window_len());
        for row in rows {
            let (image, oy) = (row / self.output[0], row % self.output[0]);
            let image = &images[image * self.input_len()..][..self.input_len()];
            for (ox, window) in windows.by_ref().take(self.output[1]).enumerate() {
                for (ky, target) in window.chunks_exact_mut(line).enumerate() {
                    match self.source(0, oy, ky) {
                        Some(iy) => self.unfold_line(image, iy, ox, target),
                        None => target.fill(T::default()),
                    }
                }
            }
        }
    }

    /// One line of a window: pixels of row `iy`, zero on the rim.
    fn unfold_line<T: Copy + Default>(&self, image: &[T], iy: usize, ox: usize, target: &mut [T]) {
        let line = &image[iy * self.input[1] * self.channels..][..self.input[1] * self.channels];
        let start = (ox * self.stride[1]) as isize - self.padding[1] as isize;
        let skip = start.min(0).unsigned_abs().min(self.kernel[1]);
        let from = start.max(0) as usize;
        let count = self.input[1].saturating_sub(from).min(self.kernel[1] - skip);
        let (before, rest) = target.split_at_mut(skip * self.channels);
        let (inside, after) = rest.split_at_mut(count * self.channels);
        before.fill(T::default());
        if count > 0 {
            inside.copy_from_slice(&line[from * self.channels..][..count * self.channels]);
        }
        after.fill(T::default());
    }

    /// The transpose of [`Self::unfold`] for some output rows of one image: adds each window to the pixels it came from.
    pub(super) fn fold<T: Copy + std::ops::AddAssign>(
        &self,
        columns: &[T],
        rows: std::ops::Range<usize>,
        image: &mut [T],
    ) {
        let mut windows = columns.chunks_exact(self.window_len());
        for oy in rows {
            for (ox, window) in windows.by_ref().take(self.output[1]).enumerate() {
                for (k, pixel) in window.chunks_exact(self.channels).enumerate() {
                    let (ky, kx) = (k / self.kernel[1], k % self.kernel[1]);
                    if let (Some(iy), Some(ix)) = (self.source(0, oy, ky), self.source(1, ox, kx)) {
                        let target = &mut image[(iy * self.input[1] + ix) * self.channels..][..self.channels];
                        target.iter_mut().zip(pixel).for_each(|(t, p)| *t += *p);
                    }
                }
            }
        }
    }
}
