//! What every step of a job works with.

use super::load::Loaded;
use super::measure::Bench;
use super::phases::Phases;
use crate::cost::Counts;
use crate::domain::epoch_choice::EpochChoice;
use crate::domain::score::Score;
use crate::model::header::SHARDS_KEY;
use crate::plan::held_out::{self, Validation};
use crate::plan::network::Network;
use crate::plan::recovery::Recovery;
use crate::plan::resolve::Planned;
use crate::process::protocol::Task;
use crate::report::MemberChecks;
use crate::settings::{Finetune, HeldOut, Method, OwnValidation, ValidationSource};

/// A job, its data, and its way to the listener.
pub(super) struct Context<'a> {
    pub(super) task: &'a Task,
    /// The networks, and what becomes of them.
    pub(super) planned: &'a Planned,
    /// What networks run on; none without a dataset.
    pub(super) bench: Option<Bench<'a>>,
    pub(super) phases: Phases<'a>,
    /// What it has done so far.
    pub(super) counts: Counts,
    /// Of each member on the validation split, once it is known.
    pub(super) member_scores: Option<Vec<Score>>,
    /// What is known of the validation split.
    pub(super) validation: Validation,
    /// What the dataset brings for one.
    own_validation: OwnValidation,
    /// What the first look at the members has shown; none without data.
    pub(super) checks: Option<MemberChecks>,
    /// The shards that the first member came in, as its file notes them, where all came in some.
    pub(super) shards: Option<String>,
    /// The recovery with another rate than the planned one, once that has turned out too high.
    pub(super) lowered: Option<Recovery>,
}

impl<'a> Context<'a> {
    pub(super) fn new(task: &'a Task, planned: &'a Planned, loaded: &'a Loaded, phases: Phases<'a>) -> Self {
        let bench = loaded.data.as_ref().map(|data| Bench::new(data, task, phases.stop_flag()));
        let known = loaded.known(task);
        let validation = held_out::validation(&task.job, &loaded.headers(), known);
        Self {
            task,
            planned,
            bench,
            phases,
            counts: Counts::default(),
            member_scores: None,
            validation,
            own_validation: known.own,
            checks: None,
            shards: shards(loaded),
            lowered: None,
        }
    }

    /// What neither the members nor the fused network have been trained on of the dataset, where that is known.
    pub(super) fn held_out(&self) -> Option<HeldOut> {
        let (request, file) = (self.task.job.dataset.as_ref()?, self.task.dataset.as_ref()?);
        HeldOut::of(request, &file.sha256, self.own_validation).filter(|_| self.validation == Validation::Unseen)
    }

    /// What networks are chosen by; none without a dataset.
    pub(super) fn validation_source(&self) -> Option<ValidationSource> {
        self.task.job.dataset.as_ref().map(|request| request.validates_on(self.own_validation))
    }

    /// Which epoch counts of a training of what the members are made of.
    pub(super) fn epoch_choice(&self) -> EpochChoice {
        match self.validation {
            Validation::None | Validation::Unseen => EpochChoice::Best,
            Validation::Unknown | Validation::Seen(_) => EpochChoice::Last,
        }
    }

    /// The context with another plan for the same networks.
    pub(super) fn replanned(self, planned: &'a Planned) -> Self {
        Self { planned, ..self }
    }

    pub(super) fn network(&self) -> &'a Network {
        &self.planned.network
    }

    /// How the members become one network.
    pub(super) fn method(&self) -> &'a Method {
        &self.task.job.method
    }

    /// How the fused network is trained, if it is.
    pub(super) fn finetune(&self) -> Option<&Finetune> {
        self.recovery().map(|recovery| &recovery.finetune)
    }

    /// The same with what was decided about it, and why.
    pub(super) fn recovery(&self) -> Option<&Recovery> {
        self.lowered.as_ref().or(self.network().recovery.as_ref())
    }

    /// Whether the fused network is trained before it is published.
    pub(super) fn trains(&self) -> bool {
        self.task.job.finetune.is_some()
    }
}

/// What the first member's file notes of its shards, where all members came in some.
fn shards(loaded: &Loaded) -> Option<String> {
    let notes = loaded.members.iter().map(|member| member.metadata().get(SHARDS_KEY));
    let notes: Vec<&String> = notes.collect::<Option<_>>()?;
    notes.first().map(|first| (*first).clone())
}
