//! Methods that average the members' weights after putting the members' units in one order, and BatchNorm afterwards.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::join::{FusedFile, sampling};
use super::measure::{BATCH, Bench};
use super::phases::{Halt, Phases};
use super::publish;
use crate::domain::progress::Phase;
use crate::fusion::align::{self, Alignment};
use crate::fusion::select;
use crate::fusion::{self, Ensemble, Fused, Member};
use crate::model::graph::{Graph, Op};
use crate::plan::network::Network;
use crate::process::protocol::Task;
use crate::settings::{BatchNorm, GroundCost, MethodName};
use crate::tensors::{StateDict, Weights};
use crate::train::{Examples, TrainError};

/// Batches that BatchNorm's statistics are measured on at most; each counts alike.
const STATISTICS_BATCHES: usize = 40;

/// The mean of the members after what the job's method does to the order of their units.
pub(super) fn aligned(
    task: &Task,
    ensemble: &Ensemble<'_>,
    network: &Network,
    bench: Option<&Bench<'_>>,
    phases: &mut Phases<'_>,
) -> Result<FusedFile, Halt> {
    let method = &task.job.method;
    let resets = network.batch_norm == BatchNorm::Reset;
    let Fused { graph, weights, provenance } = baseline(task, method.name, ensemble, bench, resets, phases)?;
    phases.begin(Phase::Prune)?;
    let write = if task.job.finetune.is_none() { publish::model } else { publish::temporary };
    let (weights, file) = write(task, &weights, &network.precision)?;
    let fused = Fused { graph, weights, provenance };
    Ok(FusedFile::plain(fused, file))
}

/// The mean of the members after what the method `name` does to the order of their units, in memory.
pub(super) fn baseline(
    task: &Task,
    name: MethodName,
    ensemble: &Ensemble<'_>,
    bench: Option<&Bench<'_>>,
    resets: bool,
    phases: &mut Phases<'_>,
) -> Result<Fused<StateDict>, Halt> {
    let permuted = align::permuted(ensemble, alignments(task, name, ensemble, bench, phases)?);
    let pairs = ensemble.members().iter().zip(&permuted);
    let members = pairs.map(|(Member { graph, .. }, weights)| Member { graph, weights }).collect();
    let shares: Vec<f64> = ensemble.shares().iter().map(|share| f64::from(*share)).collect();
    let fused = fusion::average(&Ensemble::new(members)?.weighted(&shares))?.build()?;
    match bench {
        Some(bench) if resets && has_statistics(&fused.graph) => {
            let weights = reset(task, bench, &fused.graph, &fused.weights, phases)?;
            Ok(Fused { weights, ..fused })
        }
        _ => Ok(fused),
    }
}

fn has_statistics(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| matches!(node.op, Op::BatchNorm { .. }))
}

/// The order of each member's units in which it is averaged.
fn alignments(
    task: &Task,
    name: MethodName,
    ensemble: &Ensemble<'_>,
    bench: Option<&Bench<'_>>,
    phases: &mut Phases<'_>,
) -> Result<Vec<Alignment>, Halt> {
    let method = &task.job.method;
    let transports = name == MethodName::OptimalTransport;
    Ok(match (method.alignment.cost, bench) {
        (GroundCost::Activations, Some(bench)) => {
            let monitor = &mut |done| phases.goes_on(done);
            let statistics = select::measure(ensemble, &bench.data().train, &sampling(task), monitor)?;
            // Transport minimises distances; matching maximises products, which is the least sum of squared distances.
            let distance = if transports { f64::sqrt } else { std::convert::identity };
            align::match_activations(ensemble, &statistics, distance)?
        }
        _ if transports => align::transport(ensemble, method.alignment.outputs)?,
        _ => align::match_weights(ensemble, task.job.seed, &mut || phases.go_on().is_ok())?,
    })
}

/// A fused network with BatchNorm's statistics measured anew.
pub(super) fn with_statistics(
    task: &Task,
    network: &Network,
    bench: &Bench<'_>,
    made: FusedFile,
    phases: &mut Phases<'_>,
) -> Result<FusedFile, Halt> {
    let Fused { graph, weights, provenance } = made.fused;
    let measured = reset(task, bench, &graph, &weights, phases)?;
    // The file that is mapped may be the one that is written next.
    drop(weights);
    let write = if task.job.finetune.is_none() { publish::model } else { publish::temporary };
    let (weights, file) = write(task, &measured, &network.precision)?;
    Ok(FusedFile { fused: Fused { graph, weights, provenance }, file, ..made })
}

/// The weights with BatchNorm's statistics as inputs of the train split give them.
fn reset(
    task: &Task,
    bench: &Bench<'_>,
    graph: &Graph,
    weights: &dyn Weights,
    phases: &mut Phases<'_>,
) -> Result<StateDict, Halt> {
    let train = &bench.data().train;
    let mut indices: Vec<usize> = (0..train.len()).collect();
    indices.shuffle(&mut ChaCha8Rng::seed_from_u64(task.job.seed));
    indices.truncate((indices.len() / BATCH).clamp(1, STATISTICS_BATCHES) * BATCH);
    let mut network = bench.network(graph, weights)?;
    network.reset_statistics();
    let mut images = vec![0.0; BATCH * train.example_len()];
    for (index, batch) in indices.chunks(BATCH).enumerate() {
        let images = &mut images[..batch.len() * train.example_len()];
        train.fill(batch, images);
        network.reestimate(images).map_err(TrainError::from)?;
        phases.done(index + 1, indices.len().div_ceil(BATCH));
        phases.go_on()?;
    }
    phases.info(format!("measured the statistics of BatchNorm anew on {} examples", indices.len()));
    Ok(network.state_dict().map_err(TrainError::from)?)
}
