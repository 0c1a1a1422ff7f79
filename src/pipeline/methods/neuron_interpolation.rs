//! Level after level, units that compute the means of groups of the members' units.

use super::MethodEntry;
use crate::domain::problem::{Code, Problem};
use crate::domain::progress::Phase;
use crate::fusion::interpolate::{InterpolateOptions, interpolate};
use crate::fusion::{Ensemble, Fused};
use crate::pipeline::context::Context;
use crate::pipeline::join::FusedFile;
use crate::pipeline::phases::Halt;
use crate::pipeline::publish::{self, WriteMode};
use crate::pipeline::rank::sampling;
use crate::settings::MethodName;
use crate::tensors::StateDict;

pub(super) const METHOD: MethodEntry = MethodEntry {
    name: MethodName::NeuronInterpolation,
    source: "Luenam et al. 2025, arXiv 2507.00037, the linear form",
    parameters: &["matching", "calibration", "batch_norm", "member_weights"],
    make,
};

fn make(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<FusedFile, Halt> {
    let Fused { graph, weights, provenance } = interpolated(context, ensemble)?;
    context.phases.begin(Phase::Prune)?;
    let mode = WriteMode::last(!context.trains());
    let (weights, file) = publish::model(context, &graph, &weights, &context.network().precision, mode)?;
    Ok(FusedFile::plain(Fused { graph, weights, provenance }, file))
}

/// The interpolated network, in memory.
pub(in crate::pipeline) fn interpolated(
    context: &mut Context<'_>,
    ensemble: &Ensemble<'_>,
) -> Result<Fused<StateDict>, Halt> {
    let Some(bench) = context.bench else {
        return Err(Problem::new(Code::InvalidRequest, "neuron interpolation needs a dataset").into());
    };
    let method = context.method();
    let options = InterpolateOptions {
        sampling: sampling(context.task),
        grouping: method.matching,
        ridge: method.calibration.ridge,
    };
    let graph = &context.planned.network.fusion.fused;
    let on = context.task.compute_options();
    let phases = &mut context.phases;
    Ok(interpolate(ensemble, graph, &bench.data().train, &options, &on, &mut |done| phases.goes_on(done))?)
}
