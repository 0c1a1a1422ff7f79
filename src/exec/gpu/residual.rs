//! Where a BatchNorm, the sum with a shortcut and a ReLU behind it are one pass over memory.

use crate::exec::compile::Compiled;
use crate::exec::layer::Operation;
use crate::exec::lowering::{Plain, Weighted};

/// A sum that takes the place of a BatchNorm's last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Residual {
    /// The layer of the BatchNorm.
    pub(super) norm: usize,
    /// Which operand of the sum is the shortcut.
    pub(super) shortcut: usize,
}

/// What becomes of each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It is computed by itself.
    Alone,
    /// A BatchNorm that a later sum computes.
    Joins,
    /// A sum that applies the BatchNorm before it.
    Applies(Residual),
}

/// The role of each layer. A BatchNorm joins a sum if nobody else reads its output, and nobody else what it reads: then no
/// gradient comes to another place, or in another order, than by themselves.
pub(super) fn roles(compiled: &Compiled<f32>) -> Vec<Role> {
    let mut readers = vec![0_usize; compiled.values.len()];
    compiled.layers.iter().flat_map(|layer| &layer.inputs).for_each(|input| readers[*input] += 1);
    let mut roles = vec![Role::Alone; compiled.layers.len()];
    let joins = |value: usize| {
        let norm = compiled.values[value].producer;
        let layer = &compiled.layers[norm];
        let is_norm =
            matches!(layer.operation, Operation::Weighted { operation: Weighted::BatchNorm(_), relu: false, .. });
        (is_norm && readers[value] == 1 && readers[layer.inputs[0]] == 1).then_some(norm)
    };
    for (index, layer) in compiled.layers.iter().enumerate() {
        let Operation::Plain(Plain::Add { .. }) = layer.operation else { continue };
        let found = [0, 1].into_iter().find_map(|operand| Some((joins(layer.inputs[operand])?, 1 - operand)));
        if let Some((norm, shortcut)) = found {
            roles[norm] = Role::Joins;
            roles[index] = Role::Applies(Residual { norm, shortcut });
        }
    }
    roles
}
