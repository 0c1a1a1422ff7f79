//! The mean after the members' units were put in the orders in which they agree most.

use super::{MethodEntry, aligned};
use crate::fusion::Ensemble;
use crate::pipeline::context::Context;
use crate::pipeline::join::FusedFile;
use crate::pipeline::phases::Halt;
use crate::settings::MethodName;

pub(super) const METHOD: MethodEntry = MethodEntry {
    name: MethodName::PermutationAlignment,
    source: "Ainsworth, Hayase and Srinivasa, Git Re-Basin, ICLR 2023, arXiv 2209.04836",
    parameters: &["alignment", "batch_norm", "member_weights", "calibration"],
    make,
};

fn make(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<FusedFile, Halt> {
    aligned::make(context, ensemble, aligned::Matching::Permutation)
}
