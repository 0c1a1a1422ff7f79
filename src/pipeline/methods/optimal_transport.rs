//! The mean after every member was carried over to the first.

use super::{MethodEntry, aligned};
use crate::fusion::Ensemble;
use crate::pipeline::context::Context;
use crate::pipeline::join::FusedFile;
use crate::pipeline::phases::Halt;
use crate::settings::MethodName;

pub(super) const METHOD: MethodEntry = MethodEntry {
    name: MethodName::OptimalTransport,
    source: "Singh and Jaggi, NeurIPS 2020, arXiv 1910.05653",
    parameters: &["alignment", "batch_norm", "member_weights", "calibration"],
    make,
};

fn make(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<FusedFile, Halt> {
    aligned::make(context, ensemble, aligned::Matching::Transport)
}
