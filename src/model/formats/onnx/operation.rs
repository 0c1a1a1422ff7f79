//! Operations as they are read: those of a graph, and parts of them that later nodes complete.

use std::rc::Rc;

use super::constant::Constant;
use super::functions::ScalarFunction;
use super::sums::PixelSums;
use crate::model::graph::Op;

/// What an operation computes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum OperationKind {
    /// An operation of the graph.
    Graph(Op),
    /// A function of each value, or of two operands' values; what it is a part of is recognised where it is used.
    ScalarFunction(ScalarFunction),
    /// A factor and a summand for each channel, which are its weights.
    Affine,
    /// A rim around each example's positions; before and behind each axis.
    Padded { begin: Vec<usize>, end: Vec<usize>, rim: Rim },
    /// Means over parts of each row of an image.
    RowMeans,
    /// Sums of an image's pixels.
    PixelSums(Rc<PixelSums>),
    /// Mean over the channels at each position.
    ChannelMean,
    /// A value without its mean over the channels.
    Centred,
    /// Mean of a [`OperationKind::Centred`]'s squares over the channels.
    ChannelVariance,
    /// Mean 0 and variance 1 over the channels.
    Standardised { eps: f64 },
    /// The same, with a factor for each channel.
    Scaled { eps: f64 },
    /// Mean 0 and variance 1 over each group's channels and all positions.
    GroupStandardised { groups: usize, eps: f64 },
    /// The same, with a factor for each channel.
    GroupScaled { groups: usize, eps: f64 },
    /// L2 norm of each channel over all positions.
    Norms,
    /// These over their mean plus eps.
    NormShares { eps: f64 },
    /// A value times the shares of its norms.
    Responses { eps: f64 },
    /// The same, with a factor for each channel.
    ScaledResponses { eps: f64 },
    /// The same, with a factor and a summand for each channel.
    ShiftedResponses { eps: f64 },
    /// Products of queries and keys, heads x T x T; where each head's channels begin in their operands.
    Scores { width: usize, starts: [usize; 2], factor: f64 },
    /// Scores that sum up to 1 for each query.
    Probabilities,
    /// Values mixed by probabilities, C x T.
    Mixed { heads: usize, starts: [usize; 3] },
}

/// What stands in a rim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rim {
    Zeros,
    Lowest,
    Reflected,
}

/// An operation with its operands, which come before it.
#[derive(Debug, Clone)]
pub(super) struct PlacedOperation<'a> {
    pub(super) kind: OperationKind,
    pub(super) inputs: Vec<usize>,
    /// Shape of one example, channels first.
    pub(super) shape: Vec<usize>,
    /// Its tensors, as the graph's operation has them.
    pub(super) weights: Vec<Constant<'a>>,
    /// The projections that an attention has taken in.
    pub(super) parts: Vec<usize>,
    /// The file's node that it came from.
    pub(super) origin: usize,
}
