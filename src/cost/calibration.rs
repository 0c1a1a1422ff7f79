//! How much calibration data is run through the networks, and what is kept of it: plans and the runner agree on it.

use crate::model::costs::Costs;
use crate::model::graph::{Graph, NodeId, Op};
use crate::model::precision::Precision;

/// Bytes of activations that are kept between two layers, of all batches together; batches beyond are computed anew from
/// their inputs.
pub const HELD_BYTES: usize = 1 << 30;
/// Examples per unknown of the widest layer that compensation takes by default: fewer overfit.
pub const PER_UNKNOWN: usize = 80;
/// Examples per unit of the widest group that a ranking takes by default: it needs less precision than a fit. From so many examples on these.
const PER_UNIT: usize = 10;
const ENOUGH_TO_RANK: usize = 10_000;
const PER_UNIT_OF_MANY: usize = 4;
/// Most unknowns per row of any fit.
pub const MOST_UNKNOWNS: usize = 4096;
/// Elements of the widest activation in a batch of calibration inputs.
pub const BATCH_ELEMENTS: usize = 1 << 22;
/// Most examples of a batch.
pub const BATCH: usize = 1024;
/// Fewest batches, where there are as many examples: some of them are held out to choose by.
const BATCHES: usize = 10;
/// Most features and probabilities that the refit of an output layer to probabilities reads, all examples together.
pub const OUTPUT_LAYER_ELEMENTS: usize = 1 << 26;
/// Ridges that a fit chooses from, relative to the mean of the diagonal.
pub const RIDGES: [f64; 6] = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
/// Solutions of a system: one for each ridge, and one on all examples.
pub const SOLUTIONS: usize = RIDGES.len() + 1;

/// Fewest examples that the default takes: below, systems of a few hundred unknowns overfit.
const FEWEST: usize = 1_000;
/// Most examples that the default takes.
const MOST: usize = 32_768;
/// Multiply-accumulates of all networks that the default spends on more than [`FEWEST`] examples.
const BUDGET: u64 = 600_000_000_000;

/// How many examples are best for a ranking whose widest group has so many units.
#[must_use]
pub fn to_rank(units: usize) -> usize {
    (PER_UNIT * units).min(ENOUGH_TO_RANK.max(PER_UNIT_OF_MANY * units))
}

/// How many examples are run through `graphs` by default where `wanted` would be best, as far as cost and memory allow
/// (examples whose activations are not kept are computed anew for each layer).
#[must_use]
pub fn examples(wanted: usize, graphs: &[&Graph]) -> usize {
    let macs: u64 = graphs.iter().map(|graph| Costs::of(graph, &Precision::default()).macs).sum();
    let bytes: usize = graphs.iter().map(|graph| held_per_example(graph)).sum();
    let affordable = usize::try_from(BUDGET / macs.max(1)).unwrap_or(MOST).min(HELD_BYTES / bytes.max(1));
    wanted.clamp(FEWEST, MOST).min(affordable.max(FEWEST))
}

/// Examples of a batch of `count` in all, where the largest activation has so many `elements`.
#[must_use]
pub fn batch(elements: usize, count: usize) -> usize {
    (BATCH_ELEMENTS / elements.max(1)).clamp(1, BATCH).min(count.div_ceil(BATCHES)).max(1)
}

/// Elements of the largest activation.
#[must_use]
pub fn largest_activation(graph: &Graph) -> usize {
    graph.iter().map(|(id, _)| graph.shape(id).iter().product()).max().unwrap_or(1)
}

/// Most bytes that members and fused networks have of `count` examples while a batch is on its way: what a layer reads and writes. Fused
/// networks begin behind their first layer.
#[must_use]
pub fn batch_bytes(count: usize, members: &[&Graph], fused: &[&Graph]) -> usize {
    let widest = members.iter().chain(fused).map(|graph| largest_activation(graph)).max().unwrap_or(1);
    let of_members: usize = members.iter().map(|graph| largest_activation(graph)).sum();
    let of_fused: usize = fused.iter().map(|graph| largest_behind_first_layer(graph)).sum();
    batch(widest, count) * 2 * (of_members + of_fused) * size_of::<f32>()
}

fn largest_behind_first_layer(graph: &Graph) -> usize {
    let behind = graph.iter().skip_while(|(_, node)| !mixes(&node.op));
    behind.map(|(id, _)| graph.shape(id).iter().product()).max().unwrap_or(1)
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
    let read = graph.iter().filter(|(id, node)| mixes(&node.op) && reads_units(graph, *id));
    read.map(|(id, _)| live(id.0)).max().unwrap_or(0) * size_of::<f32>()
}

/// Whether a layer reads other layers' units.
pub(super) fn reads_units(graph: &Graph, id: NodeId) -> bool {
    let mut operand = graph.node(id).inputs[0];
    loop {
        match graph.node(operand).op {
            Op::Input { .. } => return false,
            Op::Flatten => operand = graph.node(operand).inputs[0],
            _ => return true,
        }
    }
}

/// Whether the operation mixes channels, or positions, through a matrix or kernels.
#[must_use]
pub fn mixes(op: &Op) -> bool {
    op.is_dense() || op.convolution().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_units_are_ranked_on_more_examples_each_than_many() {
        assert_eq!([256, 1000, 2048, 8192].map(to_rank), [2560, 10_000, 10_000, 32_768]);
    }

    #[test]
    fn a_batch_is_bounded_by_elements_by_number_and_by_a_tenth_of_all() {
        let batches = [(784, 50_000), (1 << 16, 50_000), (1 << 23, 50_000), (784, 95), (0, 0)];
        assert_eq!(batches.map(|(elements, count)| batch(elements, count)), [1024, 64, 1, 10, 1]);
    }
}
