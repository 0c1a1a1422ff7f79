//! Shows that the concatenation is the ensemble, before anything is built on it.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::context::Context;
use super::phases::Halt;
use crate::cost::budgets::{VERIFICATION_EXAMPLES, VERIFICATION_MACS};
use crate::domain::problem::{Code, Problem};
use crate::domain::progress::Phase;
use crate::fusion::Ensemble;
use crate::fusion::reference::verify;
use crate::model::costs::Costs;
use crate::model::precision::Precision;
use crate::report::Verification;

/// Shows on real inputs (noise without a dataset) that the concatenation computes what the members compute together.
pub(super) fn verify(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<Verification, Halt> {
    context.phases.begin(Phase::Verify)?;
    let macs: u64 = ensemble.members().iter().map(|member| Costs::of(member.graph, &Precision::default()).macs).sum();
    let affordable = (VERIFICATION_MACS / macs.max(1)).clamp(1, VERIFICATION_EXAMPLES) as usize;
    let elements: usize = ensemble.graph().input_shape().iter().product();
    let inputs = match context.bench {
        Some(bench) => bench.data().train.first(affordable),
        None => noise(affordable * elements, context.task.job.seed),
    };
    let examples = inputs.len() / elements;
    let expected = verify::mean_of_members(ensemble, &inputs, examples)?;
    context.phases.done(1, 2);
    context.phases.check_stop()?;
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
    let (graph, end) = (ensemble.graph(), ensemble.linear_end());
    let up_to = (end != graph.output()).then(|| graph.node(end).name.clone());
    if let Some(node) = &up_to {
        context.phases.warn(format!(
            "the concatenated network is the mean of the members up to `{node}`; a function behind it bends the outputs, so its logits are only near the ensemble's"
        ));
    }
    Ok(Verification { examples, max_difference: f64::from(agreement.max_difference), tolerance, up_to })
}

/// Uniform noise of unit variance.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| (rng.random::<f32>() - 0.5) * 12.0_f32.sqrt()).collect()
}
