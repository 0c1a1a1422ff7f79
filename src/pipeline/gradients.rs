//! Gradients of the members' losses on the train split, for rankings by them.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::measure::Bench;
use super::phases::{Halt, Phases};
use crate::fusion::importance::Saliency;
use crate::fusion::{Ensemble, Member};
use crate::kernels::loss::Targets;
use crate::process::protocol::Task;
use crate::settings::Importance;
use crate::train::{Examples, Network, TrainError};

/// Examples per gradient: few, so that squares of gradients are not those of their mean.
const BATCH: usize = 16;

/// Examples that gradients are taken of by default.
const EXAMPLES: usize = 2048;

/// What gradients of the cross-entropy tell of each weight of each member, on batches of the train split. `place` is the
/// stretch of the phase, in [0, 1], that this takes.
pub(super) fn saliencies(
    task: &Task,
    parts: &Ensemble<'_>,
    bench: &Bench<'_>,
    place: [f64; 2],
    phases: &mut Phases<'_>,
) -> Result<Vec<Saliency>, Halt> {
    let members = parts.members();
    let mut saliencies = Vec::with_capacity(members.len());
    for (index, member) in members.iter().enumerate() {
        let length = (place[1] - place[0]) / members.len() as f64;
        let stretch = [place[0] + index as f64 * length, length];
        saliencies.push(of_member(task, *member, bench, stretch, phases)?);
    }
    Ok(saliencies)
}

fn of_member(
    task: &Task,
    member: Member<'_>,
    bench: &Bench<'_>,
    [from, length]: [f64; 2],
    phases: &mut Phases<'_>,
) -> Result<Saliency, Halt> {
    let train = &bench.data().train;
    let mut indices: Vec<usize> = (0..train.len()).collect();
    indices.shuffle(&mut ChaCha8Rng::seed_from_u64(task.job.seed));
    indices.truncate(task.job.method.calibration.samples.unwrap_or(EXAMPLES));
    let mut network = Network::compile(member.graph, BATCH, task.threads)?;
    network.load(member.weights).map_err(TrainError::from)?;
    let mut sums: Vec<Vec<f64>> = Vec::new();
    let batches = indices.len().div_ceil(BATCH);
    let mut images = vec![0.0; BATCH * train.example_len()];
    for (index, batch) in indices.chunks(BATCH).enumerate() {
        let images = &mut images[..batch.len() * train.example_len()];
        train.fill(batch, images);
        let labels: Vec<u32> = batch.iter().map(|index| train.label(*index)).collect();
        network.gradients(images, Targets::of(&labels)).map_err(TrainError::from)?;
        add(&mut network, &mut sums, task.job.method.importance);
        if !phases.goes_on(from + length * (index + 1) as f64 / batches as f64) {
            return Err(Halt::Stopped);
        }
    }
    let count = batches.max(1) as f64;
    let parameters = network.parameters().iter().zip(&sums);
    Ok(parameters
        .map(|(parameter, sums)| {
            let means: Vec<f32> = sums.iter().map(|sum| (sum / count) as f32).collect();
            (parameter.name.clone(), parameter.to_pytorch(&means))
        })
        .collect())
}

/// Adds what the last gradients tell of each weight.
fn add(network: &mut Network, sums: &mut Vec<Vec<f64>>, importance: Importance) {
    network.update(|parameters| {
        sums.resize(parameters.len(), Vec::new());
        for (sums, parameter) in sums.iter_mut().zip(parameters) {
            let (values, gradient) = parameter.values_and_gradient();
            sums.resize(values.len(), 0.0);
            for (sum, (value, gradient)) in sums.iter_mut().zip(values.iter().zip(gradient)) {
                let product = f64::from(*value) * f64::from(*gradient);
                *sum += if importance == Importance::Fisher { product * product } else { product };
            }
        }
    });
}
