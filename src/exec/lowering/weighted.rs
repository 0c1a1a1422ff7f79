//! Operations with weights.

use crate::exec::lowering::Mode;
use crate::exec::parameters::{RunningStatistics, Transposition};
use crate::kernels::batch_norm::{Affine, Backward, BatchStatistics, Momentum};
use crate::kernels::conv::{Conv, Depthwise};
use crate::kernels::group_norm::{GroupMoments, GroupNorm, Scale};
use crate::kernels::linear::Linear;
use crate::kernels::response_norm::{ResponseNorm, Responses};
use crate::kernels::{Float, Workspace, elementwise, reduce, tokens};

/// Share of a batch in running statistics, PyTorch's default.
pub(in crate::exec) const MOMENTUM: f64 = 0.1;

/// What is computed with a weight and perhaps a bias.
#[derive(Debug, Clone)]
pub enum Weighted<T> {
    Linear(Linear),
    Conv(Conv),
    Depthwise(Depthwise),
    BatchNorm(Norm<T>),
    GroupNorm {
        sizes: GroupNorm,
        moments: Vec<GroupMoments>,
    },
    ResponseNorm {
        sizes: ResponseNorm,
        responses: Responses,
    },
    /// One factor per channel.
    LayerScale,
    /// One more token before the `tokens` that come.
    ClassToken {
        tokens: usize,
        channels: usize,
    },
    PositionalEmbedding,
}

/// A BatchNorm's own numbers.
#[derive(Debug, Clone)]
pub struct Norm<T> {
    pub eps: f64,
    pub statistics: BatchStatistics,
    pub affine: Affine<T>,
}

/// The values of an operation's tensors.
#[derive(Debug, Clone, Copy)]
pub struct OperationTensors<'a, T> {
    pub weight: &'a [T],
    pub bias: Option<&'a [T]>,
}

/// What the forward pass changes besides activations.
#[derive(Debug)]
pub struct ForwardState<'a, T> {
    pub work: &'a mut Workspace<T>,
    /// Of a BatchNorm.
    pub running: Option<&'a mut RunningStatistics<T>>,
    pub mode: Mode,
}

impl<T: Float> Weighted<T> {
    /// How the blocks of its weight are transposed on their way from PyTorch's layout; a matrix behind a flatten has an order
    /// of its own, which is not known here.
    #[must_use]
    pub fn transposition(&self) -> Option<Transposition> {
        match self {
            Self::Conv(conv) => Transposition::new(conv.geometry.channels / conv.groups, conv.geometry.taps()),
            Self::Depthwise(conv) => Transposition::new(conv.geometry.channels, conv.geometry.taps()),
            Self::Linear(_)
            | Self::BatchNorm(_)
            | Self::GroupNorm { .. }
            | Self::ResponseNorm { .. }
            | Self::LayerScale
            | Self::ClassToken { .. }
            | Self::PositionalEmbedding => None,
        }
    }

    /// `y`, then ReLU if wanted.
    pub fn forward(
        &mut self,
        context: ForwardState<'_, T>,
        x: &[T],
        tensors: OperationTensors<'_, T>,
        relu: bool,
        y: &mut [T],
    ) {
        let OperationTensors { weight, bias } = tensors;
        match self {
            Self::Linear(sizes) => sizes.forward(context.work, x, weight, bias, relu, y),
            Self::Conv(sizes) => sizes.forward(context.work, x, weight, bias, relu, y),
            Self::Depthwise(sizes) => sizes.forward(x, weight, bias, relu, y),
            Self::BatchNorm(norm) => norm.forward(context, x, tensors, relu, y),
            Self::GroupNorm { sizes, moments } => {
                let count = sizes.moments(x.len());
                moments.resize(moments.len().max(count), GroupMoments::default());
                let scale = Scale { weight, bias: bias.unwrap_or(&[]) };
                sizes.forward(x, scale, &mut moments[..count], y);
            }
            Self::ResponseNorm { sizes, responses } => {
                sizes.forward(x, Scale { weight, bias: bias.unwrap_or(&[]) }, responses, y);
            }
            Self::LayerScale => elementwise::scale_rows(x, weight, y, false),
            Self::ClassToken { tokens, .. } => tokens::prepend(weight, *tokens, x, y),
            Self::PositionalEmbedding => tokens::embed(weight, x, y),
        }
    }

    /// Gradients of weight and bias.
    pub fn backward_parameters(
        &self,
        work: &mut Workspace<T>,
        x: &[T],
        dy: &[T],
        weight: &[T],
        dweight: &mut [T],
        dbias: Option<&mut [T]>,
    ) {
        match (self, dbias) {
            (Self::Linear(sizes), dbias) => sizes.backward_parameters(work, x, dy, dweight, dbias),
            (Self::Conv(sizes), dbias) => sizes.backward_parameters(work, x, dy, dweight, dbias),
            (Self::Depthwise(sizes), dbias) => sizes.backward_parameters(work, x, dy, dweight, dbias),
            (Self::BatchNorm(norm), Some(dbias)) => norm.backward(weight).parameters(work, x, dy, dweight, dbias),
            (Self::GroupNorm { sizes, moments }, Some(dbias)) => {
                let moments = &moments[..sizes.moments(x.len())];
                sizes.backward_parameters(work, x, dy, moments, [dweight, dbias]);
            }
            (Self::ResponseNorm { sizes, responses }, Some(dbias)) => {
                sizes.backward_parameters(x, dy, responses, [dweight, dbias]);
            }
            (Self::LayerScale, _) => reduce::column_products(x, dy, work, dweight),
            (Self::ClassToken { tokens, .. }, _) => tokens::prepended(*tokens, dy, dweight),
            (Self::PositionalEmbedding, _) => reduce::column_sums(dy, work, dweight),
            (Self::BatchNorm(_) | Self::GroupNorm { .. } | Self::ResponseNorm { .. }, None) => {}
        }
    }

    /// `dx = ` or `dx += ` the operand's gradient; `gradients` are those of weight and bias.
    pub fn backward_input(
        &self,
        work: &mut Workspace<T>,
        [x, dy]: [&[T]; 2],
        weight: &[T],
        gradients: [&[T]; 2],
        dx: &mut [T],
        accumulate: bool,
    ) {
        match self {
            Self::Linear(sizes) => sizes.backward_input(work, dy, weight, dx, accumulate),
            Self::Conv(sizes) => sizes.backward_input(work, dy, weight, dx, accumulate),
            Self::Depthwise(sizes) => sizes.backward_input(dy, weight, dx, accumulate),
            Self::BatchNorm(norm) => {
                let [dweight, dbias] = gradients;
                if weight.is_empty() {
                    return norm.backward_plain(work, [x, dy], dx, accumulate);
                }
                norm.backward(weight).input(x, dy, dweight, dbias, dx, accumulate);
            }
            Self::ResponseNorm { sizes, responses } => {
                sizes.backward_input([x, dy, weight], responses, dx, accumulate);
            }
            Self::GroupNorm { sizes, moments } => {
                sizes.backward_input([x, dy, weight], &moments[..sizes.moments(x.len())], dx, accumulate);
            }
            Self::LayerScale => elementwise::scale_rows(dy, weight, dx, accumulate),
            Self::ClassToken { tokens, channels } => tokens::behind(*tokens, *channels, dy, dx, accumulate),
            Self::PositionalEmbedding => elementwise::put(dy, dx, accumulate),
        }
    }
}

impl<T: Float> Norm<T> {
    fn backward<'a>(&'a self, weight: &'a [T]) -> Backward<'a, T> {
        Backward { statistics: &self.statistics, weight, eps: self.eps }
    }

    /// The operand's gradient where there is no weight.
    fn backward_plain(&self, work: &mut Workspace<T>, [x, dy]: [&[T]; 2], dx: &mut [T], accumulate: bool) {
        let channels = self.statistics.mean.len();
        let [mut dweight, mut dbias] = [vec![T::ZERO; channels], vec![T::ZERO; channels]];
        let ones = vec![T::ONE; channels];
        let backward = self.backward(&ones);
        backward.parameters(work, x, dy, &mut dweight, &mut dbias);
        backward.input(x, dy, &dweight, &dbias, dx, accumulate);
    }

    /// Picks the statistics, moves the running ones if the mode says so, and normalises.
    fn forward(
        &mut self,
        context: ForwardState<'_, T>,
        x: &[T],
        tensors: OperationTensors<'_, T>,
        relu: bool,
        y: &mut [T],
    ) {
        let ForwardState { work, running, mode } = context;
        let Some(running) = running else { return };
        let channels = running.mean.len();
        let factor = |c: usize| tensors.weight.get(c).copied().unwrap_or(T::ONE);
        let summand = |c: usize| tensors.bias.and_then(|bias| bias.get(c)).copied().unwrap_or(T::ZERO);
        if mode == Mode::Evaluate {
            let of_channel = |c: usize| (running.mean[c].f64(), running.var[c].f64(), factor(c), summand(c));
            self.affine.set(self.eps, (0..channels).map(of_channel));
        } else {
            self.statistics.measure(work, x, channels);
            running.since_reset += 1;
            running.tracked = running.tracked.map(|tracked| tracked.saturating_add(1));
            let momentum = match mode {
                Mode::Reestimate => Momentum::Cumulative(running.since_reset),
                Mode::Train | Mode::Evaluate => Momentum::Exponential(MOMENTUM),
            };
            let rows = x.len() / channels;
            self.statistics.update_running(rows, momentum, &mut running.mean, &mut running.var);
            let of_batch = &self.statistics;
            self.affine
                .set(self.eps, (0..channels).map(|c| (of_batch.mean[c], of_batch.var[c], factor(c), summand(c))));
        }
        self.affine.apply(x, relu, y);
    }
}
