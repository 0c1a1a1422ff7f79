//! What every step of a job works with.

use super::load::Data;
use super::measure::Bench;
use super::phases::Phases;
use crate::cost::Counts;
use crate::plan::network::Network;
use crate::plan::resolve::Planned;
use crate::process::protocol::Task;
use crate::settings::Method;

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
}

impl<'a> Context<'a> {
    pub(super) fn new(task: &'a Task, planned: &'a Planned, data: Option<&'a Data>, phases: Phases<'a>) -> Self {
        let bench = data.map(|data| Bench::new(data, task, phases.stop_flag()));
        Self { task, planned, bench, phases, counts: Counts::default() }
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

    /// Whether the fused network is trained before it is published.
    pub(super) fn trains(&self) -> bool {
        self.task.job.finetune.is_some()
    }
}
