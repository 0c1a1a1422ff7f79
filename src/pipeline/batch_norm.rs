//! BatchNorm's statistics, measured anew after weights were averaged (REPAIR; Jordan et al., ICLR 2023).

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::context::Context;
use super::join::FusedFile;
use super::measure::{BATCH, Bench};
use super::phases::Halt;
use super::publish::{self, WriteMode};
use crate::exec::Inputs;
use crate::fusion::Fused;
use crate::model::graph::{Graph, Op};
use crate::tensors::{StateDict, Weights};
use crate::train::{Examples, TrainError};

/// Batches that the statistics are measured on at most; each counts alike.
const STATISTICS_BATCHES: usize = 40;

/// Whether there are any.
pub(super) fn has_statistics(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| matches!(node.op, Op::BatchNorm { .. }))
}

/// A fused network with BatchNorm's statistics measured anew.
pub(super) fn with_statistics(context: &mut Context<'_>, bench: Bench<'_>, made: FusedFile) -> Result<FusedFile, Halt> {
    let Fused { graph, weights, provenance } = made.fused;
    let measured = reset(context, bench, &graph, &weights)?;
    // The file that is mapped may be the one that is written next.
    drop(weights);
    let mode = WriteMode::last(!context.trains());
    let (weights, file) = publish::model(context, &graph, &measured, &context.network().precision, mode)?;
    Ok(FusedFile { fused: Fused { graph, weights, provenance }, file, ..made })
}

/// The weights with BatchNorm's statistics as inputs of the train split give them.
pub(super) fn reset(
    context: &mut Context<'_>,
    bench: Bench<'_>,
    graph: &Graph,
    weights: &dyn Weights,
) -> Result<StateDict, Halt> {
    let train = &bench.data().train;
    let mut indices: Vec<usize> = (0..train.len()).collect();
    indices.shuffle(&mut ChaCha8Rng::seed_from_u64(context.task.job.seed));
    indices.truncate((indices.len() / BATCH).clamp(1, STATISTICS_BATCHES) * BATCH);
    let mut network = bench.network(graph, weights)?;
    network.reset_statistics().map_err(TrainError::from)?;
    let mut images = vec![0.0; BATCH * train.example_len()];
    for (index, batch) in indices.chunks(BATCH).enumerate() {
        let images = &mut images[..batch.len() * train.example_len()];
        train.fill(batch, images);
        network.reestimate(Inputs::Images(images)).map_err(TrainError::from)?;
        context.phases.done(index + 1, indices.len().div_ceil(BATCH));
        context.phases.check_stop()?;
    }
    context.phases.info(format!("measured the statistics of BatchNorm anew on {} examples", indices.len()));
    Ok(network.state_dict().map_err(TrainError::from)?)
}
