//! The steps of a compiled network.

use crate::kernels::batch_norm::{Affine, Backward, Momentum, Statistics};
use crate::kernels::conv::Conv;
use crate::kernels::linear::Linear;
use crate::kernels::{Float, Geometry, Workspace, elementwise, layout, pool};
use crate::train::network::memory::{Memory, Value};
use crate::train::network::parameters::{Parameter, Running};

/// Share of a batch in running statistics, PyTorch's default.
const MOMENTUM: f64 = 0.1;

/// Which statistics BatchNorm uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The running ones.
    Evaluate,
    /// The batch's, which move the running ones.
    Train,
    /// The batch's, whose mean over all batches becomes the running ones.
    Reestimate,
}

/// What a layer computes. Parameters are positions in the network's lists.
#[derive(Debug)]
pub(super) enum Operation<T> {
    Input { channels: usize, pixels: usize },
    Linear { sizes: Linear, weight: usize, bias: Option<usize>, relu: bool },
    Conv { sizes: Conv, weight: usize, bias: Option<usize>, relu: bool },
    BatchNorm { norm: Norm<T>, weight: usize, bias: usize, relu: bool },
    Relu,
    MaxPool { geometry: Geometry, winners: Vec<u32> },
    AvgPool { geometry: Geometry },
    GlobalAvgPool { channels: usize, pixels: usize },
    ChannelsFirst { channels: usize, pixels: usize },
    Add { relu: bool },
}

/// A BatchNorm's own numbers.
#[derive(Debug)]
pub(super) struct Norm<T> {
    pub(super) eps: f64,
    /// Position of its running statistics.
    pub(super) running: usize,
    pub(super) statistics: Statistics,
    pub(super) affine: Affine<T>,
}

/// An operation with its operands.
#[derive(Debug)]
pub(super) struct Layer<T> {
    pub(super) operation: Operation<T>,
    pub(super) inputs: Vec<usize>,
    pub(super) output: usize,
    /// For each operand whether its gradient has been written before this layer's turn.
    pub(super) accumulate: Vec<bool>,
}

/// What layers work on.
#[derive(Debug)]
pub(super) struct Pass<'a, T> {
    pub(super) values: &'a [Value],
    pub(super) memory: &'a mut Memory<T>,
    pub(super) parameters: &'a mut [Parameter<T>],
    pub(super) running: &'a mut [Running<T>],
    pub(super) work: &'a mut Workspace<T>,
    pub(super) batch: usize,
    pub(super) mode: Mode,
}

impl<T: Float> Pass<'_, T> {
    fn len(&self, value: usize) -> usize {
        self.values[value].len * self.batch
    }

    fn read(&self, value: usize) -> &[T] {
        &self.memory.activation(value)[..self.len(value)]
    }
}

impl<T: Float> Layer<T> {
    /// Writes the output; `images` is the network's input (batch x channels x pixels).
    pub(super) fn forward(&mut self, pass: &mut Pass<T>, images: &[T]) {
        let mut buffer = pass.memory.take_activation(self.output);
        let y = &mut buffer[..pass.len(self.output)];
        let input = self.inputs.first().copied();
        match (&mut self.operation, input) {
            (Operation::Input { channels, pixels }, _) => {
                if *channels > 1 && *pixels > 1 {
                    layout::channels_last(*channels, *pixels, images, y);
                } else {
                    elementwise::put(images, y, false);
                }
            }
            (operation, Some(input)) => forward(operation, pass, input, self.inputs.last().copied(), y),
            (_, None) => {}
        }
        pass.memory.put_activation(self.output, buffer);
    }

    /// Writes the gradients of parameters and operands; that of the output is used up.
    pub(super) fn backward(&mut self, pass: &mut Pass<T>) {
        if !pass.values[self.output].needs_gradient {
            return;
        }
        let mut buffer = pass.memory.take_gradient(self.output);
        let dy = &mut buffer[..pass.len(self.output)];
        if self.has_relu() {
            elementwise::relu_backward(pass.read(self.output), dy);
        }
        self.backward_parameters(pass, dy);
        for (&input, &accumulate) in self.inputs.iter().zip(&self.accumulate) {
            if pass.values[input].needs_gradient {
                let mut buffer = pass.memory.take_gradient(input);
                let dx = &mut buffer[..pass.len(input)];
                backward_input(&self.operation, pass, input, dy, dx, accumulate);
                pass.memory.put_gradient(input, buffer);
            }
        }
        pass.memory.put_gradient(self.output, buffer);
    }

    fn has_relu(&self) -> bool {
        match self.operation {
            Operation::Linear { relu, .. }
            | Operation::Conv { relu, .. }
            | Operation::BatchNorm { relu, .. }
            | Operation::Add { relu } => relu,
            Operation::Relu => true,
            _ => false,
        }
    }

    fn backward_parameters(&self, pass: &mut Pass<T>, dy: &[T]) {
        let (weight, bias) = match self.operation {
            Operation::Linear { weight, bias, .. } | Operation::Conv { weight, bias, .. } => (weight, bias),
            Operation::BatchNorm { weight, bias, .. } => (weight, Some(bias)),
            _ => return,
        };
        let mut dweight = std::mem::take(&mut pass.parameters[weight].gradient);
        let mut dbias = bias.map(|bias| std::mem::take(&mut pass.parameters[bias].gradient));
        let x = &pass.memory.activation(self.inputs[0])[..pass.len(self.inputs[0])];
        match (&self.operation, dbias.as_deref_mut()) {
            (Operation::Linear { sizes, .. }, dbias) => {
                sizes.backward_parameters(pass.work, x, dy, &mut dweight, dbias);
            }
            (Operation::Conv { sizes, .. }, dbias) => {
                sizes.backward_parameters(pass.work, x, dy, &mut dweight, dbias);
            }
            (Operation::BatchNorm { norm, .. }, Some(dbias)) => {
                norm.backward(&pass.parameters[weight].values).parameters(pass.work, x, dy, &mut dweight, dbias);
            }
            _ => {}
        }
        pass.parameters[weight].gradient = dweight;
        if let (Some(bias), Some(dbias)) = (bias, dbias) {
            pass.parameters[bias].gradient = dbias;
        }
    }
}

impl<T: Float> Norm<T> {
    fn backward<'a>(&'a self, weight: &'a [T]) -> Backward<'a, T> {
        Backward { statistics: &self.statistics, weight, eps: self.eps }
    }

    /// Picks the statistics, moves the running ones if the mode says so, and normalises.
    fn forward(&mut self, pass: &mut Pass<T>, x: usize, weight: usize, bias: usize, relu: bool, y: &mut [T]) {
        let x = &pass.memory.activation(x)[..y.len()];
        let (weight, bias) = (&pass.parameters[weight].values, &pass.parameters[bias].values);
        let running = &mut pass.running[self.running];
        let affine = weight.iter().zip(bias).enumerate();
        if pass.mode == Mode::Evaluate {
            let channels = affine.map(|(c, (w, b))| (running.mean[c].f64(), running.var[c].f64(), *w, *b));
            self.affine.set(self.eps, channels);
        } else {
            self.statistics.measure(pass.work, x, weight.len());
            running.since_reset += 1;
            running.tracked = running.tracked.map(|tracked| tracked.saturating_add(1));
            let momentum = match pass.mode {
                Mode::Reestimate => Momentum::Cumulative(running.since_reset),
                _ => Momentum::Exponential(MOMENTUM),
            };
            let rows = x.len() / weight.len();
            self.statistics.update_running(rows, momentum, &mut running.mean, &mut running.var);
            let of_batch = &self.statistics;
            self.affine.set(self.eps, affine.map(|(c, (w, b))| (of_batch.mean[c], of_batch.var[c], *w, *b)));
        }
        self.affine.apply(x, relu, y);
    }
}

/// Every operation with operands; `second` is the last operand (the only one again, where there is one).
fn forward<T: Float>(
    operation: &mut Operation<T>,
    pass: &mut Pass<T>,
    input: usize,
    second: Option<usize>,
    y: &mut [T],
) {
    let x = &pass.memory.activation(input)[..pass.len(input)];
    match operation {
        Operation::Linear { sizes, weight, bias, relu } => {
            let bias = bias.map(|bias| &pass.parameters[bias].values[..]);
            sizes.forward(pass.work, x, &pass.parameters[*weight].values, bias, *relu, y);
        }
        Operation::Conv { sizes, weight, bias, relu } => {
            let bias = bias.map(|bias| &pass.parameters[bias].values[..]);
            sizes.forward(pass.work, x, &pass.parameters[*weight].values, bias, *relu, y);
        }
        Operation::BatchNorm { norm, weight, bias, relu } => norm.forward(pass, input, *weight, *bias, *relu, y),
        Operation::Relu => elementwise::relu(x, y),
        Operation::MaxPool { geometry, winners } => {
            winners.resize(winners.len().max(y.len()), 0);
            pool::max(geometry, x, y, &mut winners[..y.len()]);
        }
        Operation::AvgPool { geometry } => pool::average(geometry, x, y),
        Operation::GlobalAvgPool { channels, pixels } => pool::global_average(*channels, *pixels, x, y),
        Operation::ChannelsFirst { channels, pixels } => layout::channels_first(*channels, *pixels, x, y, false),
        Operation::Add { relu } => {
            elementwise::add(x, pass.read(second.unwrap_or(input)), *relu, y);
        }
        Operation::Input { .. } => {}
    }
}

/// Gradient of one operand.
fn backward_input<T: Float>(
    operation: &Operation<T>,
    pass: &mut Pass<T>,
    input: usize,
    dy: &[T],
    dx: &mut [T],
    accumulate: bool,
) {
    match operation {
        Operation::Linear { sizes, weight, .. } => {
            sizes.backward_input(pass.work, dy, &pass.parameters[*weight].values, dx, accumulate);
        }
        Operation::Conv { sizes, weight, .. } => {
            sizes.backward_input(pass.work, dy, &pass.parameters[*weight].values, dx, accumulate);
        }
        Operation::BatchNorm { norm, weight, bias, .. } => {
            let (weight, bias) = (&pass.parameters[*weight], &pass.parameters[*bias]);
            let backward = norm.backward(&weight.values);
            backward.input(pass.read(input), dy, &weight.gradient, &bias.gradient, dx, accumulate);
        }
        Operation::MaxPool { geometry, winners } => {
            pool::max_backward(geometry, dy, &winners[..dy.len()], dx, accumulate);
        }
        Operation::AvgPool { geometry } => pool::average_backward(geometry, dy, dx, accumulate),
        Operation::GlobalAvgPool { channels, pixels } => {
            pool::global_average_backward(*channels, *pixels, dy, dx, accumulate);
        }
        Operation::ChannelsFirst { channels, pixels } => {
            // The transpose of moving channels first is moving them last, which `channels_first` does with sizes swapped.
            layout::channels_first(*pixels, *channels, dy, dx, accumulate);
        }
        Operation::Relu | Operation::Add { .. } | Operation::Input { .. } => elementwise::put(dy, dx, accumulate),
    }
}
