//! The forward pass of each layer, put on a tape.

use crate::exec::gpu::arena::Kept;
use crate::exec::gpu::emit::{Emitter, Source, Tensor, batch_norm, ends, is_matrix, rows};
use crate::exec::gpu::kernels::attention::Sizes;
use crate::exec::gpu::kernels::batch_norm::{BatchNorm, Measured, Sum};
use crate::exec::gpu::kernels::staging::Gather;
use crate::exec::gpu::kernels::{
    attention, batch_norm as norms_of_batches, convolution, elementwise, layout, norms, pools, staging, tokens,
};
use crate::exec::gpu::residual::{Residual, Role};
use crate::exec::gpu::tape::{Command, Convolution, ConvolutionPass, Factor, Finish, Place, Product, Region, Values};
use crate::exec::layer::{Layer, Operation};
use crate::exec::lowering::{Mode, Norm, Plain, Weighted};
use crate::kernels::Geometry;

impl Emitter<'_> {
    /// Puts the forward pass of the layer `index` on the tape.
    pub(super) fn forward(&mut self, index: usize) {
        let layer = &self.compiled.layers[index];
        match &layer.operation {
            Operation::Input { .. } => self.input(self.value(layer.output)),
            Operation::Weighted { operation, weight, bias, relu, .. } => {
                let tensors = [*weight, *bias].map(|index| index.map(|index| self.tensor(index)));
                self.weighted(index, operation, &tensors, *relu);
            }
            Operation::Plain(plain) => self.plain(index, layer, plain),
        }
    }

    /// The batch as the network's input.
    fn input(&mut self, y: Values) {
        match self.source {
            Source::Images => staging::stage(self.tape, self.arena.images, y),
            Source::Held { bytes, shape, seen } => {
                let pixels = Place { region: Region::Held, offset: 0, bytes };
                // A network that knows no positions reads every byte as a channel.
                let shape = if y.positions == 1 { [shape.iter().product(), 1, 1] } else { shape };
                let (indices, affine) = (self.arena.indices, self.arena.normalization);
                let views = seen.then_some(self.arena.views);
                staging::gather(self.tape, Gather { pixels, shape, indices, affine, views }, y);
            }
        }
    }

    fn weighted(&mut self, index: usize, operation: &Weighted<f32>, tensors: &[Option<Tensor>; 2], relu: bool) {
        let layer = &self.compiled.layers[index];
        let [x, y] = ends(layer).map(|value| self.value(value));
        if let Weighted::BatchNorm(norm) = operation {
            return self.batch_norm(index, norm, x, tensors, relu);
        }
        let [Some(weight), bias] = tensors else { return };
        let (bias, bias_read) = (bias.as_ref(), bias.as_ref().map(|bias| bias.exact));
        match operation {
            Weighted::Linear(_) => self.matrix([x, y], weight, bias, relu),
            Weighted::Conv(conv) if is_matrix(conv) => self.matrix([x, y], weight, bias, relu),
            Weighted::Conv(conv) if conv.groups == 1 => {
                self.convolve(ConvolutionPass::Forward, conv.geometry, [x, y], weight, false);
                if bias.is_some() || relu {
                    convolution::bias_relu(self.tape, bias_read, relu, y);
                }
            }
            Weighted::Conv(conv) => convolution::grouped(self.tape, conv, x, weight.exact, bias_read, relu, y),
            Weighted::Depthwise(sizes) => {
                convolution::depthwise(self.tape, &sizes.geometry, x, weight.exact, bias_read, relu, y);
            }
            Weighted::GroupNorm { sizes, .. } => {
                let moments = self.numbers(index);
                norms::group_norm(self.tape, sizes, [weight.exact, bias_read.unwrap_or(weight.exact)], x, y, moments);
            }
            Weighted::ResponseNorm { sizes, .. } => {
                let kept = self.numbers(index);
                norms::response_norm(self.tape, sizes, [weight.exact, bias_read.unwrap_or(weight.exact)], x, y, kept);
            }
            Weighted::LayerScale => tokens::scale_rows(self.tape, weight.exact, x, y, false),
            Weighted::ClassToken { .. } => tokens::prepend(self.tape, weight.exact, x, y),
            Weighted::PositionalEmbedding => tokens::embed(self.tape, weight.exact, x, y),
            Weighted::BatchNorm(_) => {}
        }
    }

    /// A matrix at every position, or over all positions of an example.
    fn matrix(&mut self, [x, y]: [Values; 2], weight: &Tensor, bias: Option<&Tensor>, relu: bool) {
        let storage = self.storage();
        let (left, [count, depth]) = rows(x, storage, weight.layout.row() != x.stride);
        let (result, [_, columns]) = rows(y, storage, false);
        let right = Factor { place: weight.read, storage, stride: depth, transposed: true, step: 0 };
        let finish = Finish { bias: bias.map(|bias| bias.read), relu };
        let sizes = [count, columns, depth];
        let (accumulate, exact) = (false, false);
        let product = Product { left, right, result, sizes, batch: 1, scale: 1.0, accumulate, exact, finish };
        self.tape.commands.push(Command::Product(product));
    }

    /// One pass of a convolution between `x` and `y`, or their gradients.
    pub(super) fn convolve(
        &mut self,
        pass: ConvolutionPass,
        geometry: Geometry,
        [x, y]: [Values; 2],
        weight: &Tensor,
        accumulate: bool,
    ) {
        let geometry = Geometry { channels: x.stride, ..geometry };
        let weight = match pass {
            ConvolutionPass::Forward | ConvolutionPass::Input => weight.read,
            ConvolutionPass::Weight => weight.low_gradient.or(weight.gradient).unwrap_or(weight.exact),
        };
        self.tape.commands.push(Command::Convolution(Convolution {
            pass,
            geometry,
            out_channels: y.stride,
            examples: self.examples,
            storage: self.tape.storage,
            x: x.place,
            weight,
            y: y.place,
            accumulate,
        }));
    }

    /// Measures and applies, unless a later sum does.
    fn batch_norm(&mut self, index: usize, norm: &Norm<f32>, x: Values, tensors: &[Option<Tensor>; 2], relu: bool) {
        if self.roles[index] != Role::Joins {
            let norm = batch_norm(norm, x.channels, tensors);
            let (y, activation) = self.end(index, relu);
            self.normalise(index, &norm, x, Sum { residual: None, activation }, self.value(y));
        }
    }

    /// What the sum `layer` and the BatchNorm before it compute together.
    fn residual(&mut self, index: usize, residual: Residual, relu: bool) {
        let layer = &self.compiled.layers[index];
        let before = &self.compiled.layers[residual.norm];
        let Operation::Weighted { operation: Weighted::BatchNorm(norm), weight, bias, .. } = &before.operation else {
            return;
        };
        let tensors = [*weight, *bias].map(|index| index.map(|index| self.tensor(index)));
        let x = self.value(before.inputs[0]);
        let norm = batch_norm(norm, x.channels, &tensors);
        let (y, activation) = self.end(index, relu);
        let sum = Sum { residual: Some(self.value(layer.inputs[residual.shortcut])), activation };
        self.normalise(residual.norm, &norm, x, sum, self.value(y));
    }

    /// A BatchNorm by the running statistics or by the batch's, which move the running ones.
    fn normalise(&mut self, index: usize, norm: &BatchNorm, x: Values, sum: Sum, y: Values) {
        let Operation::Weighted { running: Some(running), .. } = self.compiled.layers[index].operation else { return };
        let Kept::Statistics(statistics) = self.arena.kept_by[index] else { return };
        let running = self.arena.running[running];
        match self.mode {
            Mode::Evaluate => {
                norms_of_batches::fixed(self.tape, norm, running, statistics);
                norms_of_batches::apply(self.tape, norm, statistics, x, sum.residual, sum.activation, y);
            }
            Mode::Train | Mode::Reestimate => {
                let measured = Measured { statistics, running, scalars: self.arena.scalars };
                norms_of_batches::forward(self.tape, norm, x, measured, sum, y);
            }
        }
    }

    fn plain(&mut self, index: usize, layer: &Layer<f32>, plain: &Plain) {
        let y = self.value(layer.output);
        let x = layer.inputs.first().map_or(y, |input| self.value(*input));
        let operand = |index: usize| self.value(layer.inputs[index]);
        match plain {
            Plain::Function(_) if self.roles[index] == Role::Joins => {}
            Plain::Function(function) => elementwise::function(self.tape, *function, x, y),
            Plain::Softmax { .. } => elementwise::softmax(self.tape, x, y),
            Plain::MaxPool { cover, .. } => {
                let argmax = self.numbers(index);
                pools::max_pool(self.tape, cover, x, y, argmax);
            }
            Plain::MeanPool { cover, .. } => pools::mean_pool(self.tape, cover, x, y),
            Plain::Blur { blur, .. } => pools::blur(self.tape, blur, x, y),
            Plain::Reshape { .. } => layout::reshape(self.tape, x, y, false),
            Plain::ZeroPad(rim) => layout::zero_pad(self.tape, rim, x, y),
            Plain::Zeros => {
                self.tape.commands.push(Command::Zero(y.place.part(0, y.numbers() * self.tape.storage.bytes())));
            }
            Plain::Add { relu } => match self.roles[index] {
                Role::Applies(residual) => self.residual(index, residual, *relu),
                Role::Alone | Role::Joins | Role::Clamps(_) => {
                    let right = operand(1);
                    elementwise::add(self.tape, x, right, *relu, y);
                }
            },
            Plain::Multiply { wide, .. } => {
                let [wide, narrow] = [operand(*wide), operand(1 - wide)];
                elementwise::multiply(self.tape, wide, narrow, y, false);
            }
            Plain::Concat { channels, .. } => {
                let mut first = 0;
                for (index, width) in channels.iter().enumerate() {
                    let x = self.value(layer.inputs[index]);
                    layout::put_columns(self.tape, x, y, first);
                    first += width;
                }
            }
            Plain::Dropout(mask) if self.mode == Mode::Train => {
                elementwise::dropout(self.tape, mask.p, mask.layer, self.arena.scalars, x, y, false);
            }
            Plain::Dropout(_) => elementwise::put(self.tape, x, y, false),
            Plain::Attention(sizes) => {
                if let Kept::Attention(work) = &self.arena.kept_by[index] {
                    attention::forward(self.tape, Sizes::of(sizes, self.examples), x, work, y);
                }
            }
            Plain::TokenSelect { index, .. } => tokens::select(self.tape, *index, x, y),
        }
    }
}
