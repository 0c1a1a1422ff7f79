//! The fusion itself: verify the concatenation, rank the units, gather what is kept.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::average;
use super::join::{FusedFile, Join, Making};
use super::load::{Data, Loaded};
use super::measure::Bench;
use super::phases::{Halt, Phases};
use super::publish;
use super::recover;
use crate::cost::budgets::{VERIFICATION_EXAMPLES, VERIFICATION_MACS};
use crate::domain::problem::{Code, Problem};
use crate::domain::progress::Phase;
use crate::fusion::reference::verify;
use crate::fusion::{self, Ensemble, Fused, Member, Padded, Provenance, Selection};
use crate::model::costs::Costs;
use crate::model::precision::Precision;
use crate::plan::network::Network;
use crate::process::protocol::Task;
use crate::report::Verification;
use crate::settings::{BatchNorm, Finetune, MemberWeights, MethodName, Objective, Order, Start, WeightRule};
use crate::tensors::Weights;
use crate::train::{self, Examples, TrainError};

/// The members that are padded to the depth of the deepest one; none for the others.
pub(super) fn padded<'a>(loaded: &'a Loaded, network: &Network) -> Vec<Option<Padded<'a>>> {
    let members = loaded.members.iter().zip(&network.own).zip(&network.paddings);
    members
        .map(|((weights, own), padding)| padding.as_ref().map(|padding| Padded::new(weights, own, padding)))
        .collect()
}

/// The members of a job, side by side.
pub(super) fn ensemble<'a>(
    loaded: &'a Loaded,
    padded: &'a [Option<Padded<'a>>],
    network: &'a Network,
) -> Result<Ensemble<'a>, Halt> {
    let weights = loaded.members.iter().zip(padded).map(|(own, padded)| -> &dyn Weights {
        match padded {
            Some(padded) => padded,
            None => own,
        }
    });
    let pairs = network.detected.graphs.iter().zip(weights);
    Ok(Ensemble::new(pairs.map(|(graph, weights)| Member { graph, weights }).collect())?)
}

/// The members with the weights that the job gives them.
pub(super) fn weighted<'a>(
    task: &Task,
    ensemble: Ensemble<'a>,
    bench: Option<&Bench<'_>>,
    phases: &mut Phases<'_>,
) -> Result<Ensemble<'a>, Halt> {
    let count = ensemble.members().len();
    let weights = match (&task.job.method.member_weights, bench.and_then(|bench| bench.data().validation.as_ref())) {
        (MemberWeights::Given(weights), _) => weights.clone(),
        (MemberWeights::Rule(WeightRule::Uniform), _) => vec![1.0; count],
        (MemberWeights::Rule(WeightRule::Fitted), Some(validation)) => {
            let mut logits = Vec::with_capacity(count);
            for (member, bench) in ensemble.members().iter().zip(bench.into_iter().cycle()) {
                let mut network = bench.network(member.graph, member.weights)?;
                logits.push(train::logits(&mut *network, validation, phases.stop_flag())?);
            }
            let labels: Vec<u32> = (0..validation.len()).map(|index| validation.label(index)).collect();
            let weights = fusion::fit_weights(&logits, &labels, ensemble.graph().classes());
            let shown: Vec<String> = weights.iter().map(|weight| format!("{weight:.3}")).collect();
            phases.info(format!("weights of the members by the validation split: {}", shown.join(", ")));
            weights
        }
        (MemberWeights::Rule(_), _) => return Ok(ensemble),
    };
    Ok(ensemble.weighted(&weights))
}

/// Shows on real inputs (noise without a dataset) that the concatenation computes what the members compute together.
pub(super) fn verify(
    ensemble: &Ensemble<'_>,
    data: Option<&Data>,
    seed: u64,
    phases: &mut Phases<'_>,
) -> Result<Verification, Halt> {
    phases.begin(Phase::Verify)?;
    let macs: u64 = ensemble.members().iter().map(|member| Costs::of(member.graph, &Precision::default()).macs).sum();
    let affordable = (VERIFICATION_MACS / macs.max(1)).clamp(1, VERIFICATION_EXAMPLES) as usize;
    let elements: usize = ensemble.graph().input_shape().iter().product();
    let inputs = match data {
        Some(data) => data.train.first(affordable),
        None => noise(affordable * elements, seed),
    };
    let examples = inputs.len() / elements;
    let expected = verify::mean_of_members(ensemble, &inputs, examples)?;
    phases.done(1, 2);
    phases.go_on()?;
    let got = verify::concatenation(ensemble, &inputs, examples)?;
    let agreement = verify::Agreement::of(&expected, &got);
    let tolerance = f64::from(verify::TOLERANCE * agreement.scale);
    if !agreement.holds() {
        let detail = format!(
            "logits differ by up to {} where rounding explains {tolerance}; this is a fault of engraft, please report it",
            agreement.max_difference
        );
        return Err(Problem::new(Code::VerificationFailed, detail).into());
    }
    Ok(Verification { examples, max_difference: f64::from(agreement.max_difference), tolerance })
}

/// Uniform noise of unit variance.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| (rng.random::<f32>() - 0.5) * 12.0_f32.sqrt()).collect()
}

/// Makes one network of the members, in a file below the scratch folder. The file of a network that will be trained,
/// compensated, or joined with others, is gone with its map.
pub(super) fn fuse(
    task: &Task,
    ensemble: &Ensemble<'_>,
    network: &Network,
    bench: Option<&Bench<'_>>,
    phases: &mut Phases<'_>,
) -> Result<FusedFile, Halt> {
    phases.begin(Phase::Score)?;
    let method = &task.job.method;
    let made = match (method.name, method.order) {
        (MethodName::OptimalTransport | MethodName::PermutationAlignment, _) => {
            return average::aligned(task, ensemble, network, bench, phases);
        }
        (MethodName::DistillOnly, _) => return alone(task, ensemble, network, phases),
        (MethodName::Average, _) => {
            phases.begin(Phase::Prune)?;
            let published = task.job.finetune.is_none() && network.batch_norm != BatchNorm::Reset;
            let making = Making { last: true, published };
            let (fused, file) = making.write(task, network, fusion::average(ensemble)?, phases)?;
            FusedFile::plain(fused, file)
        }
        (MethodName::NeuronTransplantation, Order::MergeFinetunePrune) => {
            merge_finetune_prune(task, ensemble, network, bench, phases)?
        }
        (MethodName::NeuronTransplantation, _) => transplant(task, ensemble, network, bench, phases)?,
    };
    match bench {
        Some(bench) if network.batch_norm == BatchNorm::Reset => {
            average::with_statistics(task, network, bench, made, phases)
        }
        _ => Ok(made),
    }
}

/// Joins the members in the order that the job asks for.
fn transplant(
    task: &Task,
    ensemble: &Ensemble<'_>,
    network: &Network,
    bench: Option<&Bench<'_>>,
    phases: &mut Phases<'_>,
) -> Result<FusedFile, Halt> {
    let method = &task.job.method;
    let joins = fusion::joins(method.order, ensemble.members().len());
    if joins == 1 {
        let join = Join { task, network, bench, parts: ensemble, targets: &network.fusion.targets, place: (0, 1) };
        return join.make(phases);
    }
    let mut joined = 0;
    let mut last = None;
    let fused = fusion::in_order(method.order, ensemble.members(), &network.fusion.targets, &mut |parts, targets| {
        let parts = Ensemble::new(parts.to_vec())?;
        let join = Join { task, network, bench, parts: &parts, targets, place: (joined, joins) };
        joined += 1;
        let FusedFile { fused, file, uncompensated, compensation, choice } = join.make(phases)?;
        last = Some((file, uncompensated, compensation, choice));
        Ok::<_, Halt>(fused)
    })?;
    let last = last.ok_or_else(|| Problem::new(Code::Internal, "nothing was fused"))?;
    let (file, uncompensated, compensation, choice) = last;
    Ok(FusedFile { fused, file, uncompensated, compensation, choice })
}

/// Trains the concatenated network on the labels, then prunes it.
fn merge_finetune_prune(
    task: &Task,
    ensemble: &Ensemble<'_>,
    network: &Network,
    bench: Option<&Bench<'_>>,
    phases: &mut Phases<'_>,
) -> Result<FusedFile, Halt> {
    let (Some(finetune), Some(bench)) = (&task.job.finetune, bench) else {
        return Err(Problem::new(Code::InvalidRequest, "merging before pruning needs `finetune` and a dataset").into());
    };
    let everything = fusion::gather(ensemble, &Selection::all(ensemble))?;
    let (merged, _) = Making { last: false, published: false }.write(task, network, everything, phases)?;
    // It computes what the ensemble does: from that teacher it would learn nothing.
    let settings = Finetune {
        epochs: task.job.method.merge_epochs.unwrap_or(finetune.epochs),
        objective: Objective::CrossEntropy,
        ..finetune.clone()
    };
    let trained =
        recover::train_beside(task, &settings, bench, ensemble, merged.as_member(), "all members merged", phases)?;
    let parts = Ensemble::new(vec![Member { graph: &merged.graph, weights: &trained.weights }])?;
    let targets = &network.fusion.targets;
    let join = Join { task, network, bench: Some(bench), parts: &parts, targets, place: (0, 1) };
    let mut made = join.make(phases)?;
    made.fused.provenance = made.fused.provenance.through(&[(Some(&merged.provenance), 0)]);
    Ok(made)
}

/// No fusion: the first member, or fresh weights in its place.
fn alone(task: &Task, ensemble: &Ensemble<'_>, network: &Network, phases: &mut Phases<'_>) -> Result<FusedFile, Halt> {
    phases.begin(Phase::Prune)?;
    let first = Ensemble::new(vec![ensemble.members()[0]])?;
    let (fused, file) = match task.job.method.start {
        Start::Member => {
            let recipe = fusion::gather(&first, &Selection::all(&first))?;
            Making { last: true, published: false }.write(task, network, recipe, phases)?
        }
        Start::Scratch => {
            let graph = ensemble.graph().clone();
            let fresh = train::init(&graph, task.job.seed).map_err(TrainError::from)?;
            let (weights, file) = publish::temporary(task, &fresh, &network.precision)?;
            let provenance = Provenance { shares: Vec::new(), groups: Vec::new() };
            (Fused { graph, weights, provenance }, file)
        }
    };
    Ok(FusedFile::plain(fused, file))
}
