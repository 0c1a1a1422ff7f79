//! Gradients that need no place of their own: where a layer passes its gradient on as it is, the operand's is the same numbers.

use crate::exec::compile::Compiled;
use crate::exec::gpu::residual::Role;
use crate::exec::layer::Operation;
use crate::exec::lowering::{Plain, Weighted};
use crate::exec::memory::BufferValue;

/// For each value the one in whose place its gradient lies. `lives` say which layers write values, as they are computed here.
///
/// An operand takes over its reader's gradient where it is the first of its readers to have a turn on the way back: behind that turn nobody
/// else reads the gradient, and others may be added to it. A sum's other operand shares it where it is only read, and that before anybody
/// changes it.
pub(super) fn shared(compiled: &Compiled<f32>, roles: &[Role], lives: &[BufferValue]) -> Vec<usize> {
    let sharing = Sharing { compiled, roles, lives };
    let mut places: Vec<usize> = (0..lives.len()).collect();
    for (index, layer) in compiled.layers.iter().enumerate().rev() {
        for value in sharing.operands(index).into_iter().flatten() {
            places[value] = places[layer.output];
        }
    }
    places
}

#[derive(Debug)]
struct Sharing<'a> {
    compiled: &'a Compiled<f32>,
    roles: &'a [Role],
    lives: &'a [BufferValue],
}

impl Sharing<'_> {
    /// The operands of the layer `index` whose gradients are that of its output.
    fn operands(&self, index: usize) -> [Option<usize>; 2] {
        let layer = &self.compiled.layers[index];
        match (&layer.operation, self.roles[index]) {
            (Operation::Weighted { operation: Weighted::PositionalEmbedding, .. }, _) => [self.first(index, 0), None],
            (Operation::Plain(Plain::Add { relu: false }), Role::Applies(residual)) if residual.relu6.is_none() => {
                [self.first(index, residual.shortcut), None]
            }
            (Operation::Plain(Plain::Add { .. }), Role::Alone) if layer.inputs[0] != layer.inputs[1] => {
                match [0, 1].map(|operand| self.first(index, operand)) {
                    [Some(left), Some(right)] => {
                        let [early, late] =
                            if self.producer(left) < self.producer(right) { [left, right] } else { [right, left] };
                        [Some(early), self.only_reads(index, [early, late]).then_some(late)]
                    }
                    one => one,
                }
            }
            _ => [None; 2],
        }
    }

    /// The value of an operand if its gradient is written, and not added to, in this layer's turn.
    fn first(&self, layer: usize, operand: usize) -> Option<usize> {
        let layer = &self.compiled.layers[layer];
        let value = layer.inputs[operand];
        let has_gradient = self.lives[value].needs_gradient && !layer.accumulate[operand];
        (has_gradient && self.lives[value].len == self.lives[layer.output].len).then_some(value)
    }

    /// The layer that writes a value.
    fn producer(&self, value: usize) -> usize {
        self.lives[value].producer
    }

    /// Whether the gradient of the operand `late` of the sum `sum` is only read, and that before the one of `early` changes.
    fn only_reads(&self, sum: usize, [early, late]: [usize; 2]) -> bool {
        let producer = self.producer(late);
        // Or passes it on, so that it lives longer than its value.
        let changes_gradient = match self.compiled.layers[producer].operation {
            Operation::Weighted { operation: Weighted::PositionalEmbedding, .. }
            | Operation::Plain(Plain::Add { .. }) => true,
            Operation::Weighted { ref operation, relu, .. } => relu && !matches!(operation, Weighted::BatchNorm(_)),
            Operation::Plain(_) | Operation::Input { .. } => false,
        };
        let reads = |layer: usize, value| self.compiled.layers[layer].inputs.contains(&value);
        let alone = (0..self.compiled.layers.len()).all(|layer| layer == sum || !reads(layer, late));
        !changes_gradient && alone && (producer..sum).all(|layer| !reads(layer, early))
    }
}
