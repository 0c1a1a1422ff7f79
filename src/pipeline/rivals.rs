//! Controls that may be published in the place of the transplanted network: the best member after as much training, where it does better on
//! examples that no member has been trained on.

use super::context::Context;
use crate::domain::score::Score;
use crate::model::graph::Graph;
use crate::plan::held_out::Validation;
use crate::report::{CandidateKind, CandidateReport, PublishedControl};
use crate::settings::{MethodName, PublishRule};
use crate::tensors::StateDict;
use crate::train::Trained;

/// The best of them so far.
#[derive(Default)]
pub(super) struct Rivals(Option<Rival>);

/// A trained control.
struct Rival {
    row: CandidateReport,
    validation: Score,
    trained: Trained,
}

/// What is published in the place of the transplanted network.
pub(super) struct Successor {
    pub(super) published: PublishedControl,
    /// The index of the member that it was.
    pub(super) member: usize,
    pub(super) weights: StateDict,
}

impl Rivals {
    /// Keeps a control, whose `row` says how it does, if it may be published and is the best of them.
    pub(super) fn consider(&mut self, context: &Context<'_>, row: &CandidateReport, graph: &Graph, trained: Trained) {
        let rule = context.finetune().map(|finetune| finetune.publish);
        let transplants = context.method().name == MethodName::NeuronTransplantation;
        let decides = transplants && rule == Some(PublishRule::Auto) && context.validation == Validation::Unseen;
        let Some(validation) = row.validation.filter(|_| decides && *graph == context.network().fusion.fused) else {
            return;
        };
        if self.0.as_ref().is_none_or(|best| validation.merit() > best.validation.merit()) {
            self.0 = Some(Rival { row: row.clone(), validation, trained });
        }
    }

    /// The best of them, once `member` of the job, if it beats the transplanted network, which is the last of `rows`; among these it becomes the
    /// fused one then.
    pub(super) fn succeed(
        self,
        context: &mut Context<'_>,
        rows: &mut Vec<CandidateReport>,
        member: usize,
    ) -> Option<Successor> {
        let beaten = rows.last_mut()?;
        let transplanted = beaten.validation?;
        let Rival { row, validation, trained } =
            self.0.filter(|best| best.validation.merit() > transplanted.merit())?;
        (beaten.kind, beaten.name) = (CandidateKind::Transplanted, "transplanted".to_owned());
        let published = PublishedControl {
            kind: row.kind,
            member: row.name.clone(),
            epoch: trained.epoch,
            validation,
            transplanted,
        };
        context.phases.info(published.to_string());
        rows.push(CandidateReport { kind: CandidateKind::Fused, name: "fused".to_owned(), ..row });
        Some(Successor { published, member, weights: trained.weights })
    }
}
