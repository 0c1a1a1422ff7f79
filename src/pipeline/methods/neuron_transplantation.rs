//! Neuron Transplantation: concatenate, prune, recover.

use super::MethodEntry;
use crate::cost::joins;
use crate::domain::problem::{Code, Problem};
use crate::fusion::{self, Ensemble, Member, Selection};
use crate::pipeline::context::Context;
use crate::pipeline::join::FusedFile;
use crate::pipeline::phases::Halt;
use crate::pipeline::publish::{self, WriteMode};
use crate::pipeline::rank::Join;
use crate::pipeline::recover;
use crate::settings::{Finetune, MethodName, Objective, Order};

pub(super) const METHOD: MethodEntry = MethodEntry {
    name: MethodName::NeuronTransplantation,
    source: "Öz et al., ECML-PKDD 2024, arXiv 2502.06849",
    parameters: &[
        "order",
        "importance",
        "compensate",
        "calibration",
        "batch_norm",
        "member_weights",
        "rates",
        "merge_epochs",
    ],
    make,
};

fn make(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<FusedFile, Halt> {
    match context.method().order {
        Order::MergeFinetunePrune => merge_finetune_prune(context, ensemble),
        Order::Joint | Order::Iterative | Order::Hierarchical | Order::PruneThenMerge => in_order(context, ensemble),
    }
}

/// Joins the members in the job's order.
fn in_order(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<FusedFile, Halt> {
    let (method, targets) = (context.method(), &context.network().fusion.targets);
    let joins = joins(method.order, ensemble.members().len());
    if joins == 1 {
        return Join { parts: ensemble, targets, place: (0, 1) }.make(context);
    }
    let mut joined = 0;
    let mut last = None;
    let fused = fusion::in_order(method.order, ensemble.members(), targets, &mut |parts, targets| {
        let parts = Ensemble::new(parts.to_vec())?;
        let join = Join { parts: &parts, targets, place: (joined, joins) };
        joined += 1;
        let FusedFile { fused, file, uncompensated, compensation, choice, start } = join.make(context)?;
        last = Some((file, uncompensated, compensation, choice, start));
        Ok::<_, Halt>(fused)
    })?;
    let last = last.ok_or_else(|| Problem::new(Code::Internal, "nothing was fused"))?;
    let (file, uncompensated, compensation, choice, start) = last;
    Ok(FusedFile { fused, file, uncompensated, compensation, choice, start })
}

/// Trains the concatenated network on the labels, then prunes it.
fn merge_finetune_prune(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<FusedFile, Halt> {
    let (Some(finetune), Some(bench)) = (context.finetune().cloned(), context.bench) else {
        return Err(Problem::new(Code::InvalidRequest, "merging before pruning needs `finetune` and a dataset").into());
    };
    let everything = fusion::gather(ensemble, &Selection::all(ensemble))?;
    let precision = context.network().precision.widened();
    let (merged, _) = publish::recipe(context, everything, &precision, WriteMode::Temporary)?;
    // It computes what the ensemble does: from that teacher it would learn nothing.
    let settings = Finetune {
        epochs: context.method().merge_epochs.unwrap_or(finetune.epochs),
        objective: Objective::CrossEntropy,
        ..finetune
    };
    let trained =
        recover::train_beside(context, &settings, bench, ensemble, merged.as_member(), "all members merged", 0.0..1.0)?;
    let parts = Ensemble::new(vec![Member { graph: &merged.graph, weights: &trained.weights }])?;
    let targets = &context.network().fusion.targets;
    let mut made = Join { parts: &parts, targets, place: (0, 1) }.make(context)?;
    made.fused.provenance = made.fused.provenance.through(&[(Some(&merged.provenance), 0)]);
    Ok(made)
}
