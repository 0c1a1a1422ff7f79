//! How much calibration data is run through the networks, and what is kept of it: plans and the runner agree on it.

use crate::model::costs::Costs;
use crate::model::graph::{Graph, NodeId, Op};
use crate::model::precision::Precision;

/// Bytes of activations that are kept between two layers, of all batches together; batches beyond are computed anew from
/// their inputs.
pub const HELD_BYTES: usize = 1 << 30;
/// Examples per unknown of the widest layer that compensation takes by default: fewer overfit.
pub const PER_UNKNOWN: usize = 160;
/// Examples per unit of the widest group that a ranking takes by default: it needs less precision than a fit.
pub const PER_UNIT: usize = 10;
/// Most unknowns per row of any fit.
pub const MOST_UNKNOWNS: usize = 4096;
/// Elements of the widest activation in a batch of calibration inputs.
pub const BATCH_ELEMENTS: usize = 1 << 22;
/// Most features and probabilities that the refit of an output layer to probabilities reads, all examples together.
pub const OUTPUT_LAYER_ELEMENTS: usize = 1 << 26;
/// Ridges that a fit chooses from, relative to the mean of the diagonal.
pub const RIDGES: [f64; 6] = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
/// Solutions of a system: one for each ridge, and one on all examples.
pub const SOLUTIONS: usize = RIDGES.len() + 1;

/// Fewest examples that the default takes: below, systems of a few hundred unknowns overfit.
const FEWEST: usize = 1_000;
/// Most examples that the default takes.
const MOST: usize = 50_000;
/// Multiply-accumulates of all networks that the default spends on more than [`FEWEST`] examples.
const BUDGET: u64 = 600_000_000_000;

/// How many examples are run through `graphs` by default where `wanted` would be best, as far as cost and memory allow
/// (examples whose activations are not kept are computed anew for each layer).
#[must_use]
pub fn examples(wanted: usize, graphs: &[&Graph]) -> usize {
    let macs: u64 = graphs.iter().map(|graph| Costs::of(graph, &Precision::default()).macs).sum();
    let bytes: usize = graphs.iter().map(|graph| held_per_example(graph)).sum();
    let affordable = usize::try_from(BUDGET / macs.max(1)).unwrap_or(MOST).min(HELD_BYTES / bytes.max(1));
    wanted.clamp(FEWEST, MOST).min(affordable.max(FEWEST))
}

/// Most bytes of activations that one example needs between two layers.
#[must_use]
pub fn held_per_example(graph: &Graph) -> usize {
    let mut last_use = vec![0; graph.nodes().len()];
    for (id, node) in graph.iter() {
        node.inputs.iter().for_each(|input| last_use[input.0] = id.0);
    }
    let elements = |id: usize| graph.shape(NodeId(id)).iter().product::<usize>();
    let live = |at: usize| (0..at).filter(|id| last_use[*id] >= at).map(elements).sum::<usize>();
    let dense =
        graph.iter().filter(|(id, node)| mixes(&node.op) && node.inputs.iter().all(|input| input.0 > 0) && id.0 > 0);
    dense.map(|(id, _)| live(id.0)).max().unwrap_or(0) * size_of::<f32>()
}

/// Whether the operation mixes channels, or positions, through a matrix or kernels.
#[must_use]
pub fn mixes(op: &Op) -> bool {
    op.is_dense() || op.convolution().is_some()
}
