//! The fusion itself: verify the concatenation, rank the units, gather what is kept.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::load::{Data, Loaded};
use super::phases::{Halt, Phases};
use super::publish;
use crate::domain::problem::{Code, Problem};
use crate::fusion::{self, Ensemble, Fused, Member, Padded, Recipe, verify};
use crate::job::protocol::{OutputFile, Phase, Task};
use crate::job::request::MethodName;
use crate::job::resolve::Network;
use crate::model::costs::Costs;
use crate::model::precision::Precision;
use crate::report::Verification;
use crate::tensors::{Checkpoint, Weights};

/// Examples that verification compares at most.
const EXAMPLES: usize = 32;

/// Multiply-accumulates that verification spends at most on each way of computing the logits.
const BUDGET: u64 = 2_000_000_000;

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

/// Shows on real inputs (noise without a dataset) that the concatenation computes what the members compute together.
pub(super) fn verify(
    ensemble: &Ensemble<'_>,
    data: Option<&Data>,
    seed: u64,
    phases: &mut Phases<'_>,
) -> Result<Verification, Halt> {
    phases.begin(Phase::Verify)?;
    let macs: u64 = ensemble.members().iter().map(|member| Costs::of(member.graph, &Precision::default()).macs).sum();
    let affordable = usize::try_from(BUDGET / macs.max(1)).unwrap_or(EXAMPLES).clamp(1, EXAMPLES);
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

/// A fused network in a file, mapped.
#[derive(Debug)]
pub(super) struct FusedFile {
    pub(super) fused: Fused<Checkpoint>,
    /// The file as an artifact.
    pub(super) file: OutputFile,
}

/// Makes one network of the members, in a file below the scratch folder. The file of a network that will be trained, or
/// joined with others, is gone with its map.
pub(super) fn fuse(
    task: &Task,
    ensemble: &Ensemble<'_>,
    network: &Network,
    phases: &mut Phases<'_>,
) -> Result<FusedFile, Halt> {
    phases.begin(Phase::Score)?;
    let method = &task.job.method;
    let joins =
        if method.name == MethodName::Average { 1 } else { fusion::joins(method.order, ensemble.members().len()) };
    let mut done = 0;
    let mut model = None;
    let mut make = |recipe: Recipe<'_>, phases: &mut Phases<'_>| {
        done += 1;
        let last = done == joins;
        let published = last && task.job.finetune.is_none();
        let path = task.scratch.join(if published { publish::MODEL } else { "intermediate.safetensors" });
        let precision = if last { &network.precision } else { &Precision::default() };
        if last {
            phases.begin(Phase::Prune)?;
        }
        let (fused, written) =
            recipe.write(&path, &publish::notes(), precision, |blocks, all| phases.done(blocks, all))?;
        if !published {
            std::fs::remove_file(&path).map_err(|error| publish::unwritten(&path, &error))?;
        }
        model = Some(publish::model_file(path, written));
        Ok::<_, Halt>(fused)
    };
    let fused = if method.name == MethodName::Average {
        make(fusion::average(ensemble)?, phases)?
    } else {
        let mut joined = 0;
        fusion::in_order(method.order, ensemble.members(), &network.fusion.targets, &mut |parts, targets| {
            let parts = Ensemble::new(parts.to_vec())?;
            let selection = fusion::select(&parts, targets, fusion::magnitude, |groups, all| {
                phases.done(joined * all + groups, joins * all);
            })?;
            joined += 1;
            phases.go_on()?;
            make(fusion::gather(&parts, &selection)?, phases)
        })?
    };
    let file = model.ok_or_else(|| Problem::new(Code::Internal, "nothing was fused"))?;
    Ok(FusedFile { fused, file })
}
