//! The operations of a network.
//!
//! Every activation has its channels first: `[D]`, `[C, L]` (a sequence, the tokens of a transformer) or `[C, H, W]` (an
//! image); the axes behind the channels are its positions. Modules that PyTorch runs channels last (a Linear, a
//! LayerNorm or an attention on tokens, ConvNeXt's blocks) work on the channels of every position here, so that a
//! network needs no permutation.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Projections, Shape, Window, Window1d};

/// What a node computes. Parameters are named and laid out as in PyTorch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// The network's input.
    Input {
        /// Shape of one example.
        shape: Shape,
    },
    /// `y = x Wᵀ + b` at every position, W of shape (out x in).
    Linear {
        /// Channels of the input.
        in_features: usize,
        /// Channels of the output.
        out_features: usize,
        /// Whether there is a bias.
        #[serde(default)]
        bias: bool,
    },
    /// Cross-correlation of a sequence, W of shape (out x in / groups x k).
    Conv1d {
        /// Channels of the input.
        in_channels: usize,
        /// Channels of the output.
        out_channels: usize,
        /// Input channels of one group; see [`Op::Conv2d`].
        group_width: Option<usize>,
        /// The window.
        #[serde(flatten)]
        window: Window1d,
        /// Whether there is a bias.
        #[serde(default)]
        bias: bool,
    },
    /// Cross-correlation of an image, W of shape (out x in / groups x kh x kw).
    Conv2d {
        /// Channels of the input.
        in_channels: usize,
        /// Channels of the output.
        out_channels: usize,
        /// Input channels of one group, where the channels fall into groups: each group of the output reads only its own
        /// group of the input. 1 makes a depthwise convolution. Unlike PyTorch's number of groups it stays when a
        /// network becomes narrower.
        group_width: Option<usize>,
        /// The window.
        #[serde(flatten)]
        window: Window,
        /// Whether there is a bias.
        #[serde(default)]
        bias: bool,
    },
    /// Per-channel normalisation with running statistics.
    BatchNorm {
        /// Whether there are a factor and a summand for each channel.
        #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
        affine: bool,
        /// Number of channels.
        features: usize,
        /// Added to the variance.
        #[serde(default = "eps")]
        eps: f64,
    },
    /// Normalisation over the channels, at every position by itself (PyTorch's LayerNorm on tokens, `LayerNorm2d` on
    /// images).
    LayerNorm {
        /// Number of channels.
        features: usize,
        /// Added to the variance.
        #[serde(default = "eps")]
        eps: f64,
    },
    /// Normalisation over the channels of each group and all positions.
    GroupNorm {
        /// Channels of one group; `None` where all channels are one group.
        group_width: Option<usize>,
        /// Number of channels.
        features: usize,
        /// Added to the variance.
        #[serde(default = "eps")]
        eps: f64,
    },
    /// `x + weight x n + bias`, where n is the L2 norm of the channel over all positions as a part of the mean of these norms over
    /// the channels (ConvNeXt V2's GRN).
    GlobalResponseNorm {
        /// Number of channels.
        features: usize,
        /// Added to the mean of the norms.
        #[serde(default = "small")]
        eps: f64,
    },
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x` where positive, else `negative_slope * x`.
    LeakyRelu {
        /// Factor of negative values.
        #[serde(default = "negative_slope")]
        negative_slope: f64,
    },
    /// `x Φ(x)`, Φ the normal distribution's function.
    Gelu {
        /// How Φ is computed.
        #[serde(default)]
        approximate: Approximate,
    },
    /// `x sigmoid(x)`.
    Silu,
    /// `x relu6(x + 3) / 6`.
    Hardswish,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `relu6(x + 3) / 6`.
    Hardsigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `x` where positive, else `alpha (exp(x) - 1)`.
    Elu {
        /// Minus the limit of negative values.
        #[serde(default = "one")]
        alpha: f64,
    },
    /// ELU with fixed factors, which keep mean 0 and variance 1 from layer to layer.
    Selu,
    /// `x tanh(ln(1 + exp(x)))`.
    Mish,
    /// `ln(1 + exp(x))`; PyTorch's with its defaults, beta 1 and threshold 20.
    Softplus,
    /// `factor x`.
    Scale {
        /// The factor.
        factor: f64,
    },
    /// `exp(x) / Σ exp(x)` over the channels, at every position by itself.
    Softmax,
    /// Maximum over windows of a sequence.
    MaxPool1d {
        /// The window.
        #[serde(flatten)]
        window: Window1d,
        /// Whether a last window may hang over the end.
        #[serde(default)]
        ceil_mode: bool,
    },
    /// Maximum over windows of an image.
    MaxPool2d {
        /// The window.
        #[serde(flatten)]
        window: Window,
        /// Whether a last window may hang over the end.
        #[serde(default)]
        ceil_mode: bool,
    },
    /// Mean over windows of a sequence.
    AvgPool1d {
        /// The window.
        #[serde(flatten)]
        window: Window1d,
        /// Whether a last window may hang over the end.
        #[serde(default)]
        ceil_mode: bool,
        /// Whether padding counts as zeros.
        #[serde(default = "yes")]
        count_include_pad: bool,
    },
    /// Mean over windows of an image.
    AvgPool2d {
        /// The window.
        #[serde(flatten)]
        window: Window,
        /// Whether a last window may hang over the end.
        #[serde(default)]
        ceil_mode: bool,
        /// Whether padding counts as zeros.
        #[serde(default = "yes")]
        count_include_pad: bool,
    },
    /// Mean over as many windows as the output has positions, whatever the size of the image.
    AdaptiveAvgPool2d {
        /// Height and width of the output.
        output: [usize; 2],
    },
    /// Maximum over as many windows as the output has positions.
    AdaptiveMaxPool2d {
        /// Height and width of the output.
        output: [usize; 2],
    },
    /// Mean over all positions, which become one: `[C, H, W]` to `[C, 1, 1]`.
    GlobalAvgPool2d,
    /// A binomial filter over the image, reflected at its rims, every few positions: timm's `BlurPool2d`, which owns no
    /// tensors.
    BlurPool2d {
        /// Height and width of the filter.
        #[serde(default = "three")]
        kernel: usize,
        /// Step between two filters.
        #[serde(default = "two")]
        stride: usize,
    },
    /// All values in order: `[C, H, W]` to `[C*H*W]`, channel first; `[D]` stays.
    Flatten,
    /// The same values in order, with other positions; as many channels as that makes. `[C, H, W]` becomes tokens with
    /// `positions: [H*W]`.
    Reshape {
        /// Sizes of the axes behind the channels.
        positions: Vec<usize>,
    },
    /// Zeros around the positions, as many before and behind each axis as it says: PyTorch's `ZeroPad2d`, and what
    /// `same` padding needs where it is wider on one side.
    ZeroPad {
        /// Zeros before each axis behind the channels.
        begin: Vec<usize>,
        /// Zeros behind each of these axes.
        end: Vec<usize>,
    },
    /// Channels of zeros at the operand's positions. Only concatenations read them: shortcuts of residual networks that
    /// widen without weights (option A of He et al. 2016).
    Zeros {
        /// Number of channels.
        features: usize,
    },
    /// Sum of two operands of one shape.
    Add,
    /// Product of two operands of one shape, or of which one has a single position that meets all of the other's.
    Multiply,
    /// Operands one after another along the channels.
    Concat,
    /// The identity, but in training: values become 0 with probability `p`.
    Dropout {
        /// The probability.
        #[serde(default = "half")]
        p: f64,
    },
    /// One factor per channel. The node is named after the tensor itself.
    LayerScale {
        /// Number of channels.
        features: usize,
        /// Axes of length 1 behind the channels in the tensor's shape: torchvision's ConvNeXt keeps `[C, 1, 1]`, so 2.
        #[serde(default)]
        unit_axes: usize,
    },
    /// Puts a learned token before the others: `[C, T]` to `[C, T + 1]`. The node is named after the tensor itself, of
    /// shape (1 x 1 x C).
    ClassToken {
        /// Number of channels.
        features: usize,
    },
    /// Adds a learned value to each channel of each token. The node is named after the tensor itself, of shape
    /// (1 x T x C).
    PositionalEmbedding {
        /// Number of tokens.
        tokens: usize,
        /// Number of channels.
        features: usize,
    },
    /// Multi-head self-attention over the tokens, with its four projections.
    Attention {
        /// Number of channels; each head has an equal part of them.
        features: usize,
        /// Number of heads.
        heads: usize,
        /// Names of the projections' tensors below the node's name.
        #[serde(default)]
        projections: Projections,
        /// Whether queries, keys and values have a bias.
        #[serde(default = "yes")]
        bias: bool,
        /// Whether the output projection has a bias.
        #[serde(default = "yes")]
        output_bias: bool,
    },
    /// Mean over all tokens: `[C, T]` to `[C]`.
    TokenMean,
    /// One token: `[C, T]` to `[C]`.
    TokenSelect {
        /// Which, from 0.
        index: usize,
    },
}

/// How GELU computes the normal distribution's function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approximate {
    /// By the error function.
    #[default]
    None,
    /// By the hyperbolic tangent.
    Tanh,
}

impl Op {
    /// A convolution of images whose every output channel reads every input channel.
    #[must_use]
    pub fn conv2d(in_channels: usize, out_channels: usize, window: Window, bias: bool) -> Self {
        Self::Conv2d { in_channels, out_channels, group_width: None, window, bias }
    }

    /// Maximum over the windows that fit.
    #[must_use]
    pub fn max_pool2d(window: Window) -> Self {
        Self::MaxPool2d { window, ceil_mode: false }
    }

    /// Mean over the windows that fit; padding counts.
    #[must_use]
    pub fn avg_pool2d(window: Window) -> Self {
        Self::AvgPool2d { window, ceil_mode: false, count_include_pad: true }
    }

    /// How many operands the operation may have.
    #[must_use]
    pub fn arity(&self) -> RangeInclusive<usize> {
        match self {
            Self::Input { .. } => 0..=0,
            Self::Add | Self::Multiply => 2..=2,
            Self::Concat => 1..=usize::MAX,
            _ => 1..=1,
        }
    }

    /// Whether the operation owns tensors in the `state_dict`.
    #[must_use]
    pub fn has_parameters(&self) -> bool {
        self.is_dense() || self.scales_channels()
    }

    /// Whether every output channel reads every input channel through weights.
    #[must_use]
    pub fn is_dense(&self) -> bool {
        match self {
            Self::Linear { .. } | Self::Attention { .. } => true,
            _ => self.convolution().is_some_and(|conv| conv.group_width.is_none()),
        }
    }

    /// Whether the operation has weights of its own for each channel, or each group of channels: normalisations, grouped
    /// convolutions, layer scales, embeddings.
    #[must_use]
    pub fn scales_channels(&self) -> bool {
        match self {
            Self::BatchNorm { .. }
            | Self::LayerNorm { .. }
            | Self::GroupNorm { .. }
            | Self::GlobalResponseNorm { .. }
            | Self::LayerScale { .. }
            | Self::ClassToken { .. }
            | Self::PositionalEmbedding { .. } => true,
            _ => self.convolution().is_some_and(|conv| conv.group_width.is_some()),
        }
    }
}

fn yes() -> bool {
    true
}

fn eps() -> f64 {
    1e-5
}

fn small() -> f64 {
    1e-6
}

fn two() -> usize {
    2
}

fn three() -> usize {
    3
}

fn one() -> f64 {
    1.0
}

fn negative_slope() -> f64 {
    0.01
}

fn half() -> f64 {
    0.5
}
