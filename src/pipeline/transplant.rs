//! The fusion itself: verify the concatenation, rank the units, gather what is kept.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::load::{Data, Loaded};
use super::phases::{Halt, Phases};
use crate::domain::problem::{Code, Problem};
use crate::fusion::{self, Ensemble, Fused, Member, verify};
use crate::job::protocol::Phase;
use crate::job::resolve::Network;
use crate::model::plan::Costs;
use crate::report::Verification;

/// Examples that verification compares at most.
const EXAMPLES: usize = 32;

/// Multiply-accumulates that verification spends at most on each way of computing the logits.
const BUDGET: u64 = 2_000_000_000;

/// The members of a job, side by side.
pub(super) fn ensemble<'a>(loaded: &'a Loaded, network: &'a Network) -> Result<Ensemble<'a>, Halt> {
    let pairs = network.detected.graphs.iter().zip(&loaded.members);
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
    let macs: u64 = ensemble.members().iter().map(|member| Costs::of(member.graph).macs).sum();
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

/// Keeps the best units of all members.
pub(super) fn fuse(ensemble: &Ensemble<'_>, targets: &[usize], phases: &mut Phases<'_>) -> Result<Fused, Halt> {
    phases.begin(Phase::Score)?;
    let selection = fusion::select(ensemble, targets, fusion::magnitude, |done, total| phases.done(done, total))?;
    phases.begin(Phase::Prune)?;
    Ok(fusion::gather(ensemble, &selection, |done, total| phases.done(done, total))?)
}
