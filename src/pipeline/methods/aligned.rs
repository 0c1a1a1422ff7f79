//! What methods have in common that average the members' weights after putting the members' units in one order.

use crate::domain::progress::Phase;
use crate::fusion::align::{self, Alignment};
use crate::fusion::{self, Ensemble, Fused, Member, select};
use crate::pipeline::batch_norm;
use crate::pipeline::context::Context;
use crate::pipeline::join::FusedFile;
use crate::pipeline::phases::Halt;
use crate::pipeline::publish::{self, WriteMode};
use crate::pipeline::rank::sampling;
use crate::settings::{BatchNorm, GroundCost};
use crate::tensors::StateDict;

/// How units of different members are matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pipeline) enum Matching {
    /// Every member is carried over to the first.
    Transport,
    /// All members are put in the orders in which they agree most.
    Permutation,
}

/// The mean of the members after what the job's method does to the order of their units.
pub(super) fn make(context: &mut Context<'_>, ensemble: &Ensemble<'_>, matching: Matching) -> Result<FusedFile, Halt> {
    let network = context.network();
    let resets = network.batch_norm == BatchNorm::Reset;
    let Fused { graph, weights, provenance } = mean(context, ensemble, matching, resets)?;
    context.phases.begin(Phase::Prune)?;
    let mode = WriteMode::last(!context.trains());
    let (weights, file) = publish::model(context, &graph, &weights, &network.precision, mode)?;
    let fused = Fused { graph, weights, provenance };
    Ok(FusedFile::plain(fused, file))
}

/// The mean of the members after matching, in memory; with `resets`, BatchNorm's statistics are measured anew where there is
/// data.
pub(in crate::pipeline) fn mean(
    context: &mut Context<'_>,
    ensemble: &Ensemble<'_>,
    matching: Matching,
    resets: bool,
) -> Result<Fused<StateDict>, Halt> {
    let permuted = align::permuted(ensemble, alignments(context, ensemble, matching)?);
    let pairs = ensemble.members().iter().zip(&permuted);
    let members = pairs.map(|(Member { graph, .. }, weights)| Member { graph, weights }).collect();
    let shares: Vec<f64> = ensemble.member_shares().into_iter().map(f64::from).collect();
    let fused = fusion::average(&Ensemble::new(members)?.weighted(&shares))?.build()?;
    match context.bench {
        Some(bench) if resets && batch_norm::has_statistics(&fused.graph) => {
            let weights = batch_norm::reset(context, bench, &fused.graph, &fused.weights)?;
            Ok(Fused { weights, ..fused })
        }
        _ => Ok(fused),
    }
}

/// The order of each member's units in which it is averaged.
fn alignments(context: &mut Context<'_>, ensemble: &Ensemble<'_>, matching: Matching) -> Result<Vec<Alignment>, Halt> {
    let (method, phases) = (context.method(), &mut context.phases);
    Ok(match (method.alignment.cost, context.bench) {
        (GroundCost::Activations, Some(bench)) => {
            let monitor = &mut |done| phases.goes_on(done);
            let statistics = select::measure(
                ensemble,
                &bench.data().train,
                &sampling(context.task),
                &context.task.compute_options(),
                monitor,
            )?;
            // Transport minimises distances; matching maximises products, which is the least sum of squared distances.
            let distance = match matching {
                Matching::Transport => f64::sqrt,
                Matching::Permutation => std::convert::identity,
            };
            align::match_activations(ensemble, &statistics, distance)?
        }
        _ if matching == Matching::Transport => align::transport(ensemble, method.alignment.outputs)?,
        _ => align::match_weights(ensemble, context.task.job.seed, &mut || phases.check_stop().is_ok())?,
    })
}
