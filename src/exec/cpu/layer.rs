//! The steps of a compiled network on the CPU.

use crate::exec::cpu::memory::Memory;
use crate::exec::layer::{Layer, Operation};
use crate::exec::lowering::{ForwardSettings, ForwardState, Mode, Operands, OperationTensors, Plain, WithGradient};
use crate::exec::memory::BufferValue;
use crate::exec::parameters::{LearnedParameter, RunningStatistics};
use crate::kernels::dropout::Draw;
use crate::kernels::{Float, Workspace, elementwise, layout};

/// What layers work on.
#[derive(Debug)]
pub(super) struct Pass<'a, T> {
    pub(super) values: &'a [BufferValue],
    pub(super) memory: &'a mut Memory<T>,
    pub(super) parameters: &'a mut [LearnedParameter<T>],
    pub(super) running: &'a mut [RunningStatistics<T>],
    pub(super) work: &'a mut Workspace<T>,
    pub(super) batch: usize,
    pub(super) mode: Mode,
    pub(super) draw: Draw,
}

/// A layer's operands.
#[derive(Debug)]
struct Taken<'a, T> {
    values: &'a [BufferValue],
    memory: &'a Memory<T>,
    inputs: &'a [usize],
    batch: usize,
}

impl<T: Float> Operands<T> for Taken<'_, T> {
    fn get(&self, index: usize) -> &[T] {
        let value = self.inputs[index];
        &self.memory.activation(value)[..self.values[value].len * self.batch]
    }
}

impl<T: Float> Layer<T> {
    /// Writes the output; `images` is the network's input (batch x channels x pixels).
    pub(super) fn forward(&mut self, pass: &mut Pass<'_, T>, images: &[T]) {
        let mut buffer = pass.memory.take_activation(self.output);
        let y = &mut buffer[..pass.values[self.output].len * pass.batch];
        let Pass { values, memory, parameters, running, work, batch, mode, draw } = pass;
        let operands = Taken { values, memory, inputs: &self.inputs, batch: *batch };
        match &mut self.operation {
            Operation::Input { channels, pixels } if *channels > 1 && *pixels > 1 => {
                layout::channels_last(*channels, *pixels, images, y);
            }
            Operation::Input { .. } => elementwise::put(images, y, false),
            Operation::Weighted { operation, weight, bias, running: own, relu } => {
                let tensors = OperationTensors {
                    weight: weight.map_or(&[][..], |weight| &parameters[weight].values),
                    bias: bias.map(|bias| &parameters[bias].values[..]),
                };
                let running = own.map(|own| &mut running[own]);
                operation.forward(ForwardState { work, running, mode: *mode }, operands.get(0), tensors, *relu, y);
            }
            Operation::Plain(plain) => {
                plain.forward(&mut ForwardSettings { work, mode: *mode, draw: *draw }, &operands, y);
            }
        }
        pass.memory.put_activation(self.output, buffer);
    }

    /// Writes the gradients of parameters and operands; that of the output is used up.
    pub(super) fn backward(&mut self, pass: &mut Pass<'_, T>) {
        if !pass.values[self.output].needs_gradient {
            return;
        }
        let mut buffer = pass.memory.take_gradient(self.output);
        let dy = &mut buffer[..pass.values[self.output].len * pass.batch];
        if self.has_relu() {
            elementwise::relu_backward(&pass.memory.activation(self.output)[..dy.len()], dy);
        }
        self.backward_parameters(pass, dy);
        for (index, &accumulate) in self.accumulate.iter().enumerate() {
            let input = self.inputs[index];
            if pass.values[input].needs_gradient {
                let mut buffer = pass.memory.take_gradient(input);
                let dx = &mut buffer[..pass.values[input].len * pass.batch];
                self.backward_input(pass, index, dy, dx, accumulate);
                pass.memory.put_gradient(input, buffer);
            }
        }
        pass.memory.put_gradient(self.output, buffer);
    }

    fn has_relu(&self) -> bool {
        matches!(self.operation, Operation::Weighted { relu: true, .. } | Operation::Plain(Plain::Add { relu: true }))
    }

    fn backward_parameters(&self, pass: &mut Pass<'_, T>, dy: &[T]) {
        let Operation::Weighted { operation, weight: Some(weight), bias, .. } = &self.operation else { return };
        let Pass { values, memory, parameters, work, batch, .. } = pass;
        let operands = Taken { values, memory, inputs: &self.inputs, batch: *batch };
        let mut dweight = std::mem::take(&mut parameters[*weight].gradient);
        let mut dbias = bias.map(|bias| std::mem::take(&mut parameters[bias].gradient));
        let values = &parameters[*weight].values;
        operation.backward_parameters(work, operands.get(0), dy, values, &mut dweight, dbias.as_deref_mut());
        parameters[*weight].gradient = dweight;
        if let (Some(bias), Some(dbias)) = (bias, dbias) {
            parameters[*bias].gradient = dbias;
        }
    }

    /// Gradient of the operand `index`.
    fn backward_input(&self, pass: &mut Pass<'_, T>, index: usize, dy: &[T], dx: &mut [T], accumulate: bool) {
        let Pass { values, memory, parameters, work, batch, mode, draw, .. } = pass;
        let operands = Taken { values, memory, inputs: &self.inputs, batch: *batch };
        match &self.operation {
            Operation::Input { .. } => {}
            Operation::Weighted { operation, weight, bias, .. } => {
                let [weight, dweight] = weight.map_or([&[][..]; 2], |weight| {
                    let LearnedParameter { values, gradient, .. } = &parameters[weight];
                    [values, gradient]
                });
                let dbias = bias.map_or(&[][..], |bias| &parameters[bias].gradient);
                let x = operands.get(0);
                operation.backward_input(work, [x, dy], weight, [dweight, dbias], dx, accumulate);
            }
            Operation::Plain(plain) => {
                let output = WithGradient { y: &memory.activation(self.output)[..dy.len()], dy };
                let settings = &mut ForwardSettings { work, mode: *mode, draw: *draw };
                plain.backward(settings, &operands, index, output, dx, accumulate);
            }
        }
    }
}
