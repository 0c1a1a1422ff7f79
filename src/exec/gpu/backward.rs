//! The backward pass of each layer, put on a tape.

use crate::exec::gpu::arena::Kept;
use crate::exec::gpu::emit::{Emitter, Tensor, batch_norm, ends, is_matrix, rows};
use crate::exec::gpu::kernels::attention::Sizes;
use crate::exec::gpu::kernels::batch_norm::Backward;
use crate::exec::gpu::kernels::{
    attention, batch_norm as norms_of_batches, convolution, elementwise, layout, norms, pools, reduce, tokens,
};
use crate::exec::gpu::residual::{Residual, Role};
use crate::exec::gpu::tape::{Command, ConvolutionPass, Factor, Finish, Product, Storage, Values};
use crate::exec::layer::{Layer, Operation};
use crate::exec::lowering::{Mode, Plain, Weighted};

/// A gradient that is written, and whether it is added to what is there.
type Target = (Values, bool);

/// Whether a gradient that is `dy` lies where that does.
fn is_there(dy: Values, (dx, accumulate): Target) -> bool {
    dx.place == dy.place && !accumulate
}

impl Emitter<'_> {
    /// Puts the backward pass of the layer `index` on the tape: gradients of parameters and operands; that of the output is used up.
    pub(super) fn backward(&mut self, index: usize) {
        let layer = &self.compiled.layers[index];
        let Some(dy) = self.gradient(self.end(index, false).0) else { return };
        match &layer.operation {
            Operation::Input { .. } => {}
            _ if self.roles[index] == Role::Joins => {}
            Operation::Weighted { operation, weight, bias, relu, .. } => {
                let tensors = [*weight, *bias].map(|index| index.map(|index| self.tensor(index)));
                self.weighted_backward(index, operation, &tensors, *relu, dy);
            }
            Operation::Plain(plain) => self.plain_backward(index, layer, plain, dy),
        }
    }

    /// Where the gradient of the operand `index` of `layer` goes.
    fn target(&self, layer: &Layer<f32>, index: usize) -> Option<Target> {
        Some((self.gradient(layer.inputs[index])?, layer.accumulate[index]))
    }

    fn weighted_backward(
        &mut self,
        index: usize,
        operation: &Weighted<f32>,
        tensors: &[Option<Tensor>; 2],
        relu: bool,
        dy: Values,
    ) {
        let layer = &self.compiled.layers[index];
        let [x, y] = ends(layer).map(|value| self.value(value));
        let target = self.target(layer, 0);
        if let Weighted::BatchNorm(norm) = operation {
            let Kept::Statistics(statistics) = self.arena.kept_by[index] else { return };
            let norm = batch_norm(norm, x.channels, tensors);
            let [dweight, dbias] = tensors.each_ref().map(|tensor| tensor.as_ref().and_then(|tensor| tensor.gradient));
            let (y, activation) = self.end(index, relu);
            let y = self.value(y);
            let backward = Backward { x, y, dy, activation, dx: target, dresidual: None, dweight, dbias };
            return norms_of_batches::backward_alone(self.tape, &norm, statistics, &backward);
        }
        let [Some(weight), bias] = tensors else { return };
        let Some(dweight) = weight.gradient else { return };
        let dbias = bias.as_ref().and_then(|bias| bias.gradient);
        let summed = matches!(operation, Weighted::Linear(_) | Weighted::Conv(_) | Weighted::Depthwise(_));
        match (relu, dbias) {
            (true, dbias) if summed => reduce::relu_column_sums(self.tape, y, dy, dbias),
            (false, Some(dbias)) if summed => reduce::column_sums(self.tape, dy, dbias),
            _ => {}
        }
        match operation {
            Weighted::Linear(_) => self.matrix_backward([x, dy], weight, target),
            Weighted::Conv(conv) if is_matrix(conv) => self.matrix_backward([x, dy], weight, target),
            Weighted::Conv(conv) if conv.groups == 1 => {
                self.convolve(ConvolutionPass::Weight, conv.geometry, [x, dy], weight, false);
                if let Some((dx, accumulate)) = target {
                    self.convolve(ConvolutionPass::Input, conv.geometry, [dx, dy], weight, accumulate);
                }
            }
            Weighted::Conv(conv) => {
                convolution::grouped_weight(self.tape, conv, x, dy, dweight);
                if let Some((dx, accumulate)) = target {
                    convolution::grouped_input(self.tape, conv, dy, weight.exact, dx, accumulate);
                }
            }
            Weighted::Depthwise(sizes) => {
                convolution::depthwise_weight(self.tape, &sizes.geometry, x, dy, dweight);
                if let Some((dx, accumulate)) = target {
                    convolution::depthwise_input(self.tape, &sizes.geometry, dy, weight.exact, dx, accumulate);
                }
            }
            Weighted::GroupNorm { sizes, .. } => {
                let moments = self.numbers(index);
                let gradients = [dweight, dbias.unwrap_or(dweight)];
                norms::group_norm_backward(self.tape, sizes, weight.exact, [x, dy], moments, target, gradients);
            }
            Weighted::ResponseNorm { sizes, .. } => {
                let kept = self.numbers(index);
                let gradients = [dweight, dbias.unwrap_or(dweight)];
                norms::response_norm_backward(self.tape, sizes, weight.exact, [x, dy], kept, target, gradients);
            }
            Weighted::LayerScale => {
                reduce::column_products(self.tape, x, dy, dweight);
                if let Some((dx, accumulate)) = target {
                    tokens::scale_rows(self.tape, weight.exact, dy, dx, accumulate);
                }
            }
            Weighted::ClassToken { .. } => {
                tokens::prepend_weight(self.tape, dy, dweight);
                if let Some((dx, accumulate)) = target {
                    tokens::behind(self.tape, dy, dx, accumulate);
                }
            }
            Weighted::PositionalEmbedding => {
                tokens::embed_weight(self.tape, dy, dweight);
                if let Some(target) = target {
                    self.pass_on(dy, target);
                }
            }
            Weighted::BatchNorm(_) => {}
        }
    }

    /// An operand's gradient that is the output's.
    fn pass_on(&mut self, dy: Values, (dx, accumulate): Target) {
        if !is_there(dy, (dx, accumulate)) {
            elementwise::put(self.tape, dy, dx, accumulate);
        }
    }

    /// The gradients of a matrix: `dyᵀ x`, and `dy` times the matrix.
    fn matrix_backward(&mut self, [x, dy]: [Values; 2], weight: &Tensor, target: Option<Target>) {
        let storage = self.storage();
        let per_example = weight.layout.row() != x.stride;
        let (x, [count, depth]) = rows(x, storage, per_example);
        let (dy, [_, columns]) = rows(dy, storage, false);
        let finish = Finish { bias: None, relu: false };
        let plain = |left, right, result, sizes, accumulate| {
            let (batch, scale, exact) = (1, 1.0, false);
            Command::Product(Product { left, right, result, sizes, batch, scale, accumulate, exact, finish })
        };
        if let Some(place) = weight.gradient {
            let result = Factor { place, storage: Storage::F32, stride: depth, transposed: false, step: 0 };
            let left = Factor { transposed: true, ..dy };
            self.tape.commands.push(plain(left, x, result, [columns, depth, count], false));
        }
        if let Some((dx, accumulate)) = target {
            let (result, _) = rows(dx, storage, per_example);
            let right = Factor { place: weight.read, storage, stride: depth, transposed: false, step: 0 };
            self.tape.commands.push(plain(dy, right, result, [count, depth, columns], accumulate));
        }
    }

    /// The gradients of a sum and the BatchNorm before it.
    fn residual_backward(&mut self, index: usize, residual: Residual, relu: bool, dy: Values) {
        let layer = &self.compiled.layers[index];
        let before = &self.compiled.layers[residual.norm];
        let Operation::Weighted { operation: Weighted::BatchNorm(norm), weight, bias, .. } = &before.operation else {
            return;
        };
        let Kept::Statistics(statistics) = self.arena.kept_by[residual.norm] else { return };
        let tensors = [*weight, *bias].map(|index| index.map(|index| self.tensor(index)));
        let x = self.value(before.inputs[0]);
        let norm = batch_norm(norm, x.channels, &tensors);
        let [dweight, dbias] = tensors.map(|tensor| tensor.and_then(|tensor| tensor.gradient));
        let (dx, dresidual) = (self.target(before, 0), self.target(layer, residual.shortcut));
        let dresidual = dresidual.filter(|target| !is_there(dy, *target));
        let (y, activation) = self.end(index, relu);
        let y = self.value(y);
        let backward = Backward { x, y, dy, activation, dx, dresidual, dweight, dbias };
        norms_of_batches::backward(self.tape, &norm, statistics, &backward);
    }

    fn plain_backward(&mut self, index: usize, layer: &Layer<f32>, plain: &Plain, dy: Values) {
        if let (Plain::Add { relu }, Role::Applies(residual)) = (plain, self.roles[index]) {
            return self.residual_backward(index, residual, *relu, dy);
        }
        if let Plain::Add { relu: true } = plain {
            let y = self.value(layer.output);
            elementwise::relu_backward(self.tape, y, dy);
        }
        for operand in 0..layer.inputs.len() {
            if let Some((dx, accumulate)) = self.target(layer, operand) {
                self.operand_backward(index, plain, operand, dy, (dx, accumulate));
            }
        }
    }

    fn operand_backward(&mut self, index: usize, plain: &Plain, operand: usize, dy: Values, (dx, accumulate): Target) {
        let layer = &self.compiled.layers[index];
        let [x, y] = ends(layer).map(|value| self.value(value));
        match plain {
            Plain::Function(function) => {
                elementwise::function_backward(self.tape, *function, x, dy, dx, accumulate);
            }
            Plain::Softmax { .. } => elementwise::softmax_backward(self.tape, y, dy, dx, accumulate),
            Plain::MaxPool { cover, .. } => {
                let argmax = self.numbers(index);
                pools::max_pool_backward(self.tape, cover, argmax, dy, dx, accumulate);
            }
            Plain::MeanPool { cover, .. } => pools::mean_pool_backward(self.tape, cover, dy, dx, accumulate),
            Plain::Blur { blur, .. } => pools::blur_backward(self.tape, blur, dy, dx, accumulate),
            Plain::Reshape { .. } => layout::reshape(self.tape, dy, dx, accumulate),
            Plain::ZeroPad(rim) => layout::zero_pad_backward(self.tape, rim, dy, dx, accumulate),
            Plain::Zeros if accumulate => {}
            Plain::Zeros => {
                let bytes = dx.numbers() * self.tape.storage.bytes();
                self.tape.commands.push(Command::Zero(dx.place.part(0, bytes)));
            }
            Plain::Multiply { wide, .. } => {
                let other = self.value(layer.inputs[1 - operand]);
                if operand == *wide {
                    elementwise::multiply(self.tape, dy, other, dx, accumulate);
                } else {
                    elementwise::multiply_narrow_backward(self.tape, other, dy, dx, accumulate);
                }
            }
            Plain::Concat { channels, .. } => {
                let first = channels[..operand].iter().sum();
                layout::take_columns(self.tape, dy, first, dx, accumulate);
            }
            Plain::Dropout(mask) if self.mode == Mode::Train => {
                elementwise::dropout(self.tape, mask.p, mask.layer, self.arena.scalars, dy, dx, accumulate);
            }
            Plain::Add { .. } | Plain::Dropout(_) => self.pass_on(dy, (dx, accumulate)),
            Plain::Attention(sizes) => {
                if let Kept::Attention(work) = &self.arena.kept_by[index] {
                    let sizes = Sizes::of(sizes, self.examples);
                    attention::backward(self.tape, sizes, work, dy, dx, accumulate);
                }
            }
            Plain::TokenSelect { index, .. } => tokens::select_backward(self.tape, *index, dy, dx, accumulate),
        }
    }
}
