//! Measures what a budget is spent by: each coupling group pruned alone, and what that does to the ensemble's logits.

use super::context::Context;
use super::load::Subset;
use super::measure::Bench;
use super::phases::Halt;
use crate::cost::budgets::{SENSITIVITY_EXAMPLES, SENSITIVITY_MACS};
use crate::domain::progress::Phase;
use crate::fusion::select::sensitivity::{Probe, probes};
use crate::fusion::{Ensemble, Masked};
use crate::model::allocate::Curve;
use crate::model::costs::Costs;
use crate::model::precision::Precision;
use crate::train;

/// Fewest examples that say something.
const FEWEST: u64 = 16;

/// One curve per group, in pruning order: the relative change of the ensemble's logits (Frobenius norm, over a few hundred
/// inputs) at a few widths of the group; from the scores alone where there is no data or measuring would take too long.
pub(super) fn curves(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<Vec<Curve>, Halt> {
    context.phases.begin(Phase::Score)?;
    let probes = probes(ensemble)?;
    let runs: usize = probes.iter().map(|probe| probe.widths.len()).sum();
    let macs: u64 = ensemble.members().iter().map(|member| Costs::of(member.graph, &Precision::default()).macs).sum();
    let affordable = SENSITIVITY_MACS / macs.saturating_mul(runs as u64).max(1);
    let Some(bench) = context.bench.filter(|_| affordable >= FEWEST) else {
        context.phases.info("each layer's sensitivity is taken from its scores");
        return Ok(probes.iter().map(Probe::from_scores).collect());
    };
    let data = bench.data();
    let part = data.validation.as_ref().unwrap_or(&data.train).prefix(affordable.min(SENSITIVITY_EXAMPLES) as usize);
    let changes = measure(context, ensemble, &probes, bench, &part)?;
    context.phases.info(format!("measured each layer's sensitivity on {} examples", part.indices.len()));
    let mut changes = changes.into_iter();
    Ok(probes.iter().map(|probe| probe.curve(changes.by_ref().take(probe.widths.len()))).collect())
}

/// The relative change of the logits at every width of every probe.
fn measure(
    context: &mut Context<'_>,
    ensemble: &Ensemble<'_>,
    probes: &[Probe],
    bench: Bench<'_>,
    part: &Subset,
) -> Result<Vec<f64>, Halt> {
    let runs: Vec<(&Probe, usize)> =
        probes.iter().flat_map(|probe| probe.widths.iter().map(move |width| (probe, *width))).collect();
    let mut logits: Vec<f32> = Vec::new();
    let mut differences: Vec<Vec<f32>> = vec![Vec::new(); runs.len()];
    let all = ensemble.members().len() * runs.len();
    for (index, (member, share)) in ensemble.members().iter().zip(ensemble.member_shares()).enumerate() {
        let mut network = bench.network(member.graph, member.weights)?;
        let own = train::logits(&mut *network, part, context.phases.stop_flag())?;
        logits.resize(own.len(), 0.0);
        logits.iter_mut().zip(&own).for_each(|(sum, logit)| *sum += share * logit);
        for (run, (probe, width)) in runs.iter().enumerate() {
            let difference = &mut differences[run];
            difference.resize(own.len(), 0.0);
            if let Some(masked) = Masked::new(ensemble, index, probe.group, &probe.selection(ensemble, *width)) {
                network.load(&masked).map_err(train::TrainError::from)?;
                let pruned = train::logits(&mut *network, part, context.phases.stop_flag())?;
                let pairs = pruned.iter().zip(&own);
                difference.iter_mut().zip(pairs).for_each(|(sum, (pruned, own))| *sum += share * (pruned - own));
            }
            context.phases.done(index * runs.len() + run + 1, all);
        }
    }
    let norm = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let scale = norm(&logits).max(f64::MIN_POSITIVE);
    Ok(differences.iter().map(|difference| norm(difference) / scale).collect())
}
