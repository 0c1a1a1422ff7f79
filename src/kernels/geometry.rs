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
    /// Padding around the input, on each side.
    pub padding: [usize; 2],
    /// Step between two elements under the window.
    pub dilation: [usize; 2],
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

    /// Pixels under the window.
    #[must_use]
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether the windows are the pixels themselves, in order.
    #[must_use]
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    /// The input coordinate under offset `k` of window `o` along `axis`; `None` on the padding.
    #[inline]
    pub(super) fn source(&self, axis: usize, o: usize, k: usize) -> Option<usize> {
        (o * self.stride[axis] + k * self.dilation[axis])
            .checked_sub(self.padding[axis])
            .filter(|&i| i < self.input[axis])
    }

    /// The window along `axis` that has input coordinate `i` under offset `k`; the inverse of [`Self::source`].
    #[inline]
    pub(super) fn target(&self, axis: usize, i: usize, k: usize) -> Option<usize> {
        let start = (i + self.padding[axis]).checked_sub(k * self.dilation[axis])?;
        let window = start / self.stride[axis];
        (start.is_multiple_of(self.stride[axis]) && window < self.output[axis]).then_some(window)
    }
}
