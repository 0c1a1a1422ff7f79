//! No fusion: one network of the first member's form learns from the ensemble.

use super::MethodEntry;
use crate::domain::progress::Phase;
use crate::fusion::{self, Ensemble, Fused, Provenance, Selection};
use crate::pipeline::context::Context;
use crate::pipeline::join::FusedFile;
use crate::pipeline::phases::Halt;
use crate::pipeline::publish::{self, WriteMode};
use crate::settings::{MethodName, Start};
use crate::train::{self, TrainError};

pub(super) const METHOD: MethodEntry = MethodEntry {
    name: MethodName::DistillOnly,
    source: "Hinton, Vinyals and Dean 2015, arXiv 1503.02531",
    parameters: &["start"],
    make,
};

/// The first member, or fresh weights in its place.
fn make(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<FusedFile, Halt> {
    context.phases.begin(Phase::Prune)?;
    let precision = &context.network().precision;
    let first = Ensemble::new(vec![ensemble.members()[0]])?;
    let (fused, file) = match context.method().start {
        Start::Member => {
            let recipe = fusion::gather(&first, &Selection::all(&first))?;
            publish::recipe(context, recipe, precision, WriteMode::Temporary)?
        }
        Start::Scratch => {
            let graph = ensemble.graph().clone();
            let fresh = train::init(&graph, context.task.job.seed).map_err(TrainError::from)?;
            let (weights, file) = publish::model(context, &graph, &fresh, precision, WriteMode::Temporary)?;
            let provenance = Provenance { shares: Vec::new(), groups: Vec::new() };
            (Fused { graph, weights, provenance }, file)
        }
    };
    Ok(FusedFile::plain(fused, file))
}
