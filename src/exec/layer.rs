//! A compiled network's steps, whoever runs them.

use crate::exec::lowering::{Plain, Weighted};

/// What a layer computes. Parameters are positions in the network's list.
#[derive(Debug)]
pub(in crate::exec) enum Operation<T> {
    Input {
        channels: usize,
        pixels: usize,
    },
    /// A BatchNorm may have neither weight nor bias.
    Weighted {
        operation: Weighted<T>,
        weight: Option<usize>,
        bias: Option<usize>,
        running: Option<usize>,
        relu: bool,
    },
    Plain(Plain),
}

/// An operation with its operands.
#[derive(Debug)]
pub(in crate::exec) struct Layer<T> {
    pub(in crate::exec) operation: Operation<T>,
    pub(in crate::exec) inputs: Vec<usize>,
    pub(in crate::exec) output: usize,
    /// For each operand whether its gradient has been written before this layer's turn.
    pub(in crate::exec) accumulate: Vec<bool>,
}
