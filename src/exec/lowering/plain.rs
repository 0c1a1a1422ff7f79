//! Operations without weights.

use crate::exec::lowering::Mode;
use crate::kernels::attention::Attention;
use crate::kernels::blur::Blur;
use crate::kernels::dropout::{Draw, Mask};
use crate::kernels::function::Function;
use crate::kernels::pool::Cover;
use crate::kernels::rim::ZeroRim;
use crate::kernels::{Float, Workspace, elementwise, layout, pool, softmax, tokens};

/// What is computed from the operands alone.
#[derive(Debug, Clone)]
pub enum Plain {
    Function(Function),
    /// Over the channels, at every position.
    Softmax {
        channels: usize,
    },
    MaxPool {
        cover: Cover,
        channels: usize,
        argmax: Vec<u32>,
    },
    MeanPool {
        cover: Cover,
        channels: usize,
    },
    Blur {
        blur: Blur,
        channels: usize,
    },
    /// `[channels, positions]` before and after.
    Reshape {
        from: [usize; 2],
        to: [usize; 2],
    },
    ZeroPad(ZeroRim),
    /// Whatever the operand is.
    Zeros,
    Add {
        relu: bool,
    },
    /// The operand `wide` has `rows` rows of `width` values, the other one a single such row.
    Multiply {
        wide: usize,
        rows: usize,
        width: usize,
    },
    /// Channels of each operand, and of all together.
    Concat {
        channels: Vec<usize>,
        all: usize,
    },
    Dropout(Mask),
    Attention(Attention),
    TokenSelect {
        index: usize,
        tokens: usize,
        channels: usize,
    },
}

/// What an operation reads.
pub trait Operands<T> {
    /// The operand `index`, examples x positions x channels.
    fn get(&self, index: usize) -> &[T];
}

/// How a pass runs.
#[derive(Debug)]
pub struct ForwardSettings<'a, T> {
    /// Scratch memory of the kernels.
    pub work: &'a mut Workspace<T>,
    pub mode: Mode,
    pub draw: Draw,
}

/// A layer's output and its gradient.
#[derive(Debug, Clone, Copy)]
pub struct WithGradient<'a, T> {
    pub y: &'a [T],
    pub dy: &'a [T],
}

impl Plain {
    /// `y`.
    pub fn forward<T: Float>(
        &mut self,
        settings: &mut ForwardSettings<'_, T>,
        operands: &impl Operands<T>,
        y: &mut [T],
    ) {
        let x = operands.get(0);
        match self {
            Self::Function(function) => function.apply(x, y),
            Self::Softmax { channels } => softmax::softmax(*channels, x, y),
            Self::MaxPool { cover, channels, argmax } => {
                argmax.resize(argmax.len().max(y.len()), 0);
                pool::max(cover, *channels, x, y, &mut argmax[..y.len()]);
            }
            Self::MeanPool { cover, channels } => pool::mean(cover, *channels, x, y),
            Self::Blur { blur, channels } => blur.forward(*channels, x, y),
            Self::Reshape { from, to } => layout::reshape(*from, *to, x, y, false),
            Self::ZeroPad(rim) => rim.forward(x, y),
            Self::Zeros => y.fill(T::ZERO),
            Self::Add { relu } => elementwise::add(x, operands.get(1), *relu, y),
            Self::Multiply { wide, rows, width } => {
                elementwise::multiply(*rows, *width, operands.get(*wide), operands.get(1 - *wide), y, false);
            }
            Self::Concat { channels, all } => {
                let mut first = 0;
                for (index, &width) in channels.iter().enumerate() {
                    elementwise::put_columns(operands.get(index), width, y, first, *all);
                    first += width;
                }
            }
            Self::Dropout(mask) if settings.mode == Mode::Train => mask.apply(settings.draw, x, y, false),
            Self::Dropout(_) => elementwise::put(x, y, false),
            Self::Attention(sizes) => sizes.forward(settings.work, x, y),
            Self::TokenSelect { index, tokens, channels } => tokens::select(*index, *tokens, *channels, x, y),
        }
    }

    /// `dx = ` or `dx += ` the gradient of the operand `which`.
    pub fn backward<T: Float>(
        &self,
        settings: &mut ForwardSettings<'_, T>,
        operands: &impl Operands<T>,
        which: usize,
        WithGradient { y, dy }: WithGradient<'_, T>,
        dx: &mut [T],
        accumulate: bool,
    ) {
        match self {
            Self::Function(function) => function.backward(operands.get(0), dy, dx, accumulate),
            Self::Softmax { channels } => softmax::softmax_backward(*channels, y, dy, dx, accumulate),
            Self::MaxPool { cover, channels, argmax } => {
                pool::max_backward(cover, *channels, dy, &argmax[..dy.len()], dx, accumulate);
            }
            Self::MeanPool { cover, channels } => pool::mean_backward(cover, *channels, dy, dx, accumulate),
            Self::Blur { blur, channels } => blur.backward(*channels, dy, dx, accumulate),
            Self::Reshape { from, to } => layout::reshape(*to, *from, dy, dx, accumulate),
            Self::ZeroPad(rim) => rim.backward(dy, dx, accumulate),
            Self::Zeros if accumulate => {}
            Self::Zeros => dx.fill(T::ZERO),
            Self::Add { .. } => elementwise::put(dy, dx, accumulate),
            Self::Multiply { wide, rows, width } if which == *wide => {
                elementwise::multiply(*rows, *width, dy, operands.get(1 - which), dx, accumulate);
            }
            Self::Multiply { wide, rows, width } => {
                elementwise::multiply_backward(*rows, *width, operands.get(*wide), dy, dx, accumulate);
            }
            Self::Concat { channels, all } => {
                let first = channels[..which].iter().sum();
                elementwise::take_columns(dy, first, *all, dx, channels[which], accumulate);
            }
            Self::Dropout(mask) => mask.apply(settings.draw, dy, dx, accumulate),
            Self::Attention(sizes) => sizes.backward(settings.work, operands.get(0), dy, dx, accumulate),
            Self::TokenSelect { index, tokens, channels } => {
                tokens::select_backward(*index, *tokens, *channels, dy, dx, accumulate);
            }
        }
    }
}
