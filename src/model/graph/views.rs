//! What operations on sequences and on images have in common.

use super::{Op, Window};

/// What convolutions over sequences and images have in common: a sequence is an image of height 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Input channels of one group; `None` where every output reads every input.
    pub group_width: Option<usize>,
    /// The window.
    pub window: Window,
    /// Whether there is a bias.
    pub bias: bool,
}

/// What pools over sequences and images have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pooling {
    /// What becomes of the values under the window.
    pub kind: PoolKind,
    /// The window.
    pub window: Window,
    /// Whether a last window may hang over the end.
    pub ceil_mode: bool,
}

/// What becomes of the values under a pool's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolKind {
    /// Their maximum.
    Max,
    /// Their mean.
    Mean {
        /// Whether padding counts as zeros.
        count_padding: bool,
    },
}

impl Convolution {
    /// Number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.group_width.map_or(1, |width| self.in_channels / width)
    }

    /// Input channels that one output channel reads.
    #[must_use]
    pub fn inputs_of_one(&self) -> usize {
        self.group_width.unwrap_or(self.in_channels)
    }
}

/// A blur pool; its filter and steps are the same along both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlurWindow {
    /// Size of the filter.
    pub kernel: usize,
    /// Step between two filters.
    pub stride: usize,
    /// Reflected positions around the image, on each side, as timm's `get_padding` gives them.
    pub padding: usize,
}

impl Op {
    /// The operation as a blur pool, if it is one.
    #[must_use]
    pub fn blur(&self) -> Option<BlurWindow> {
        match *self {
            Self::BlurPool2d { kernel, stride } => {
                let padding = stride.saturating_sub(1).saturating_add(kernel.saturating_sub(1)) / 2;
                Some(BlurWindow { kernel, stride, padding })
            }
            _ => None,
        }
    }

    /// The operation as a convolution of images, if it is one.
    #[must_use]
    pub fn convolution(&self) -> Option<Convolution> {
        match *self {
            Self::Conv1d { in_channels, out_channels, group_width, window, bias } => {
                Some(Convolution { in_channels, out_channels, group_width, window: window.into(), bias })
            }
            Self::Conv2d { in_channels, out_channels, group_width, window, bias } => {
                Some(Convolution { in_channels, out_channels, group_width, window, bias })
            }
            _ => None,
        }
    }

    /// Positions of its kernel; 1 where there is none.
    #[must_use]
    pub fn taps(&self) -> usize {
        self.convolution().map_or(1, |conv| conv.window.kernel[0] * conv.window.kernel[1])
    }

    /// The operation as a pool over windows of an image, if it is one.
    #[must_use]
    pub fn pool(&self) -> Option<Pooling> {
        let mean = |count_padding| PoolKind::Mean { count_padding };
        match *self {
            Self::MaxPool1d { window, ceil_mode } => {
                Some(Pooling { kind: PoolKind::Max, window: window.into(), ceil_mode })
            }
            Self::MaxPool2d { window, ceil_mode } => Some(Pooling { kind: PoolKind::Max, window, ceil_mode }),
            Self::AvgPool1d { window, ceil_mode, count_include_pad } => {
                Some(Pooling { kind: mean(count_include_pad), window: window.into(), ceil_mode })
            }
            Self::AvgPool2d { window, ceil_mode, count_include_pad } => {
                Some(Pooling { kind: mean(count_include_pad), window, ceil_mode })
            }
            _ => None,
        }
    }
}
