//! Gradients of the members' losses on the train split, for rankings by them.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::context::Context;
use super::measure::Bench;
use super::phases::Halt;
use crate::exec::Inputs;
use crate::fusion::select::Saliency;
use crate::fusion::{Ensemble, Member};
use crate::kernels::dropout::Draw;
use crate::kernels::loss::Targets;
use crate::kernels::truth::TruthBuffer;
use crate::settings::Importance;
use crate::train::{Examples, TrainError};

/// Examples per gradient: few, so that squares of gradients are not those of their mean.
const BATCH: usize = 16;

/// Examples that gradients are taken of by default.
const EXAMPLES: usize = 2048;

/// Importance of each weight of each member by gradients of the task's loss, on batches of the train split. `place` is the
/// stretch of the phase, in [0, 1], that this takes.
pub(super) fn saliencies(
    context: &mut Context<'_>,
    parts: &Ensemble<'_>,
    bench: Bench<'_>,
    place: [f64; 2],
) -> Result<Vec<Saliency>, Halt> {
    let members = parts.members();
    let mut saliencies = Vec::with_capacity(members.len());
    for (index, member) in members.iter().enumerate() {
        let length = (place[1] - place[0]) / members.len() as f64;
        let stretch = [place[0] + index as f64 * length, length];
        saliencies.push(of_member(context, *member, bench, stretch)?);
    }
    Ok(saliencies)
}

fn of_member(
    context: &mut Context<'_>,
    member: Member<'_>,
    bench: Bench<'_>,
    [from, length]: [f64; 2],
) -> Result<Saliency, Halt> {
    let (train, method) = (&bench.data().train, context.method());
    let mut indices: Vec<usize> = (0..train.len()).collect();
    indices.shuffle(&mut ChaCha8Rng::seed_from_u64(context.task.job.seed));
    indices.truncate(method.calibration.samples.unwrap_or(EXAMPLES));
    let mut network = bench.compiled(member.graph, member.weights, BATCH)?;
    let names: Vec<String> = network.learned().into_iter().map(|(name, _)| name.to_owned()).collect();
    let squared = method.importance == Importance::Fisher;
    let batches = indices.len().div_ceil(BATCH);
    let mut images = vec![0.0; BATCH * train.example_len()];
    let mut truths = TruthBuffer::default();
    for (index, batch) in indices.chunks(BATCH).enumerate() {
        let images = &mut images[..batch.len() * train.example_len()];
        train.fill(batch, images);
        truths.clear();
        for index in batch {
            truths.push(train.truth(*index));
        }
        let targets = Targets { truths: truths.truths(), smoothing: 0.0, soft: None };
        let added = network.add_saliency(Inputs::Images(images), targets, Draw::default(), squared);
        added.map_err(TrainError::from)?;
        if !context.phases.goes_on(from + length * (index + 1) as f64 / batches as f64) {
            return Err(Halt::Stopped);
        }
    }
    Ok(names.into_iter().zip(network.take_saliency().map_err(TrainError::from)?).collect())
}
