//! The plain mean of the members' weights, tensor by tensor.

use super::MethodEntry;
use crate::domain::progress::Phase;
use crate::fusion::{self, Ensemble};
use crate::pipeline::context::Context;
use crate::pipeline::join::FusedFile;
use crate::pipeline::phases::Halt;
use crate::pipeline::publish::{self, WriteMode};
use crate::settings::{BatchNorm, MethodName};

pub(super) const METHOD: MethodEntry = MethodEntry {
    name: MethodName::Average,
    source: "the mean of weights, without any order of units",
    parameters: &["batch_norm", "member_weights"],
    make,
};

fn make(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<FusedFile, Halt> {
    context.phases.begin(Phase::Prune)?;
    let network = context.network();
    let mode = WriteMode::last(!context.trains() && network.batch_norm != BatchNorm::Reset);
    let (fused, file) = publish::recipe(context, fusion::average(ensemble)?, &network.precision, mode)?;
    Ok(FusedFile::plain(fused, file))
}
