//! The members of a job side by side, with the weights that the job gives them.

use super::context::Context;
use super::load::Loaded;
use super::phases::Halt;
use crate::fusion::{self, Ensemble, Member, PaddedMember};
use crate::plan::network::Network;
use crate::settings::{MemberWeights, WeightRule};
use crate::tensors::Weights;

/// The members that are padded to the depth of the deepest one; none for the others.
pub(super) fn padded<'a>(loaded: &'a Loaded, network: &Network) -> Vec<Option<PaddedMember<'a>>> {
    let members = loaded.members.iter().zip(&network.own).zip(&network.paddings);
    members
        .map(|((weights, own), padding)| padding.as_ref().map(|padding| PaddedMember::new(weights, own, padding)))
        .collect()
}

/// The members of a job, side by side.
pub(super) fn ensemble<'a>(
    loaded: &'a Loaded,
    padded: &'a [Option<PaddedMember<'a>>],
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
pub(super) fn weighted<'a>(context: &mut Context<'_>, ensemble: Ensemble<'a>) -> Result<Ensemble<'a>, Halt> {
    let count = ensemble.members().len();
    let weights = match (&context.method().member_weights, context.bench) {
        (MemberWeights::Given(weights), _) => weights.clone(),
        (MemberWeights::Rule(WeightRule::Uniform), _) => vec![1.0; count],
        (MemberWeights::Rule(WeightRule::Fitted), Some(bench)) => {
            let Some(validation) = &bench.data().validation else { return Ok(ensemble) };
            let mut logits = Vec::with_capacity(count);
            for member in ensemble.members() {
                logits.push(bench.logits_on(validation, member.graph, member.weights)?);
            }
            let labels = validation.labels().unwrap_or_default();
            let weights = fusion::fit_weights(&logits, &labels, ensemble.graph().classes());
            let shown: Vec<String> = weights.iter().map(|weight| format!("{weight:.3}")).collect();
            context.phases.info(format!("weights of the members by the validation split: {}", shown.join(", ")));
            weights
        }
        (MemberWeights::Rule(_), _) => return Ok(ensemble),
    };
    Ok(ensemble.weighted(&weights))
}
