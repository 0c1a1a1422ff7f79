//! Windows that slide over positions.

use serde::{Deserialize, Serialize};

/// A window that slides over an image; each pair is (height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Step between two windows.
    pub stride: [usize; 2],
    /// Zeros (for maxima: minus infinity) around the image, on each side.
    pub padding: [usize; 2],
    /// Step between two elements under the window.
    pub dilation: [usize; 2],
}

/// A window that slides over a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window1d {
    /// Size of the window.
    pub kernel: usize,
    /// Step between two windows.
    pub stride: usize,
    /// Zeros (for maxima: minus infinity) at both ends.
    pub padding: usize,
    /// Step between two elements under the window.
    pub dilation: usize,
}

impl Window {
    /// A square window.
    #[must_use]
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2], dilation: [1; 2] }
    }

    /// Output height and width for an input of height and width `input`; `None` where no window fits.
    #[must_use]
    pub fn output(&self, input: [usize; 2]) -> Option<[usize; 2]> {
        self.output_with(input, false)
    }

    /// As [`Self::output`]; with `ceil`, a last window may hang over the end as long as it starts before the padding
    /// there (PyTorch's `ceil_mode`).
    #[must_use]
    pub fn output_with(&self, input: [usize; 2], ceil: bool) -> Option<[usize; 2]> {
        Some([self.along(0, input[0], ceil)?, self.along(1, input[1], ceil)?])
    }

    fn along(&self, axis: usize, input: usize, ceil: bool) -> Option<usize> {
        let (stride, padding) = (self.stride[axis], self.padding[axis]);
        let span = self.dilation[axis].checked_mul(self.kernel[axis].checked_sub(1)?)?.checked_add(1)?;
        let room = input.checked_add(padding.checked_mul(2)?)?.checked_sub(span)?;
        let windows = room.checked_div(stride)? + 1;
        let one_more = ceil && !room.is_multiple_of(stride) && windows.checked_mul(stride)? < input + padding;
        Some(windows + usize::from(one_more))
    }
}

impl From<Window1d> for Window {
    /// The window of a sequence, over an image of height 1.
    fn from(line: Window1d) -> Self {
        Self {
            kernel: [1, line.kernel],
            stride: [1, line.stride],
            padding: [0, line.padding],
            dilation: [1, line.dilation],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_pytorch() {
        let window = |kernel, stride, padding, dilation| Window {
            dilation: [dilation; 2],
            ..Window::square(kernel, stride, padding)
        };
        assert_eq!(window(3, 2, 1, 1).output([224, 7]), Some([112, 4]));
        assert_eq!(window(3, 1, 2, 2).output([10, 9]), Some([10, 9]));
        assert_eq!(window(3, 1, 0, 3).output([6, 9]), None);
        assert_eq!(window(3, 2, 0, 1).output([8, 9]), Some([3, 4]));
        assert_eq!(window(3, 2, 0, 1).output_with([8, 9], true), Some([4, 4]));
        assert_eq!(window(2, 3, 1, 1).output_with([4, 7], true), Some([2, 3]));
        assert_eq!(
            window(1, 4, 0, 1).output_with([5, 6], true),
            Some([2, 2]),
            "the window that starts outside is left out"
        );
        assert_eq!(window(usize::MAX, 1, usize::MAX, usize::MAX).output([5, 5]), None);
        assert_eq!(window(1, 0, 0, 1).output([5, 5]), None);
    }
}
