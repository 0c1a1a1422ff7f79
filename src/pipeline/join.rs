//! One network of several: units ranked and gathered, the layers behind them refitted.

use super::gradients;
use super::measure::Bench;
use super::phases::{Halt, Phases};
use super::publish;
use crate::fusion::calibration::Sampling;
use crate::fusion::compensate::{self, Compensated, Options};
use crate::fusion::importance::{self, Ranking};
use crate::fusion::{self, Ensemble, Fused, Recipe, Selection};
use crate::job::compensation::Compensation;
use crate::job::protocol::{OutputFile, Phase, Task};
use crate::job::request::{Calibration, Compensate, Order};
use crate::job::resolve::Network;
use crate::model::precision::Precision;
use crate::tensors::{Checkpoint, StateDict};

/// A fused network in a file, mapped.
#[derive(Debug)]
pub(super) struct FusedFile {
    pub(super) fused: Fused<Checkpoint>,
    /// The file as an artifact.
    pub(super) file: OutputFile,
    /// The network before compensation, if there was one.
    pub(super) uncompensated: Option<Checkpoint>,
    /// What compensation did to it.
    pub(super) compensation: Option<Compensation>,
}

/// How a network of kept rows is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Making {
    /// Whether it is the network of all members, in the types that they have; others are at least f32.
    pub(super) last: bool,
    /// Whether its file stays.
    pub(super) published: bool,
}

impl Making {
    /// The element types of its tensors.
    fn precision(self, network: &Network) -> Precision {
        if self.last { network.precision.clone() } else { network.precision.widened() }
    }

    pub(super) fn write(
        self,
        task: &Task,
        network: &Network,
        recipe: Recipe<'_>,
        phases: &mut Phases<'_>,
    ) -> Result<(Fused<Checkpoint>, OutputFile), Halt> {
        let path = task.scratch.join(if self.published { publish::MODEL } else { "intermediate.safetensors" });
        let precision = self.precision(network);
        let (fused, written) =
            recipe.write(&path, &publish::notes(), &precision, |done, all| phases.done(done, all))?;
        if !self.published {
            std::fs::remove_file(&path).map_err(|error| publish::unwritten(&path, &error))?;
        }
        Ok((fused, publish::model_file(path, written)))
    }
}

/// One of the steps in which members become one network.
#[derive(Clone, Copy)]
pub(super) struct Join<'a> {
    pub(super) task: &'a Task,
    pub(super) network: &'a Network,
    pub(super) bench: Option<&'a Bench<'a>>,
    pub(super) parts: &'a Ensemble<'a>,
    pub(super) targets: &'a [usize],
    /// Joins before this one, and all.
    pub(super) place: (usize, usize),
}

impl Join<'_> {
    /// Keeps the best units of all parts, and refits the layers that read them.
    pub(super) fn make(&self, phases: &mut Phases<'_>) -> Result<FusedFile, Halt> {
        let selection = match self.task.job.method.order {
            Order::PruneThenMerge => self.select_from_each(phases)?,
            _ => self.select(false, phases)?,
        };
        let (joined, joins) = self.place;
        let last = joined + 1 == joins;
        let publishes = last && self.task.job.finetune.is_none();
        if last {
            phases.begin(Phase::Prune)?;
        }
        let compensates = self.network.compensate != Compensate::None;
        let making = Making { last, published: publishes && !compensates };
        let recipe = fusion::gather(self.parts, &selection)?;
        let (plain, file) = making.write(self.task, self.network, recipe, phases)?;
        if !compensates {
            return Ok(FusedFile { fused: plain, file, uncompensated: None, compensation: None });
        }
        if last {
            phases.begin(Phase::Compensate)?;
        }
        let Compensated { mut weights, mut done, warnings } = self.compensate(&selection, &plain, phases)?;
        for warning in warnings {
            phases.warn(warning);
        }
        done.kept = self.is_better(&plain, &weights, phases)?;
        if !done.kept {
            weights = compensate::copy(&plain)?;
        }
        let write = if publishes { publish::model } else { publish::temporary };
        let (weights, file) = write(self.task, &weights, &making.precision(self.network))?;
        let fused = Fused { graph: plain.graph, weights, provenance: plain.provenance };
        let changed = !done.layers.is_empty();
        let uncompensated = changed.then_some(plain.weights);
        Ok(FusedFile { fused, file, uncompensated, compensation: changed.then_some(done) })
    }

    /// Prunes each part by itself to its share of the targets.
    fn select_from_each(&self, phases: &mut Phases<'_>) -> Result<Selection, Halt> {
        let members = self.parts.members();
        let rates = self.task.job.method.rates.clone().unwrap_or_else(|| vec![1.0; members.len()]);
        let quotas = fusion::quotas(self.parts, self.targets, &rates);
        let mut selections = Vec::with_capacity(members.len());
        for (index, member) in members.iter().enumerate() {
            let parts = Ensemble::new(vec![*member])?;
            let targets: Vec<usize> = quotas.iter().map(|quotas| quotas[index]).collect();
            let part = Join { parts: &parts, targets: &targets, place: (index, members.len()), ..*self };
            selections.push(part.select(true, phases)?);
        }
        Ok(Selection::beside(&selections))
    }

    /// Ranks and selects; a part of a larger network may keep nothing of a group.
    fn select(&self, is_part: bool, phases: &mut Phases<'_>) -> Result<Selection, Halt> {
        let importance = self.task.job.method.importance;
        let (joined, joins) = self.place;
        let statistics = match self.bench {
            Some(bench) if importance.needs_activations() => {
                let monitor = &mut |done: f64| phases.goes_on((joined as f64 + done) / joins as f64);
                Some(importance::measure(self.parts, &bench.data().train, &sampling(self.task), monitor)?)
            }
            _ => None,
        };
        let saliencies = match self.bench {
            Some(bench) if importance.needs_gradients() => {
                let place = [joined, joined + 1].map(|join| join as f64 / joins as f64);
                Some(gradients::saliencies(self.task, self.parts, bench, place, phases)?)
            }
            _ => None,
        };
        let ranking = Ranking {
            importance,
            seed: self.task.job.seed,
            statistics: statistics.as_ref(),
            saliencies: saliencies.as_deref(),
            targets: self.targets,
        };
        let score = |parts: &Ensemble<'_>, selection: &Selection, group| ranking.score(parts, selection, group);
        let progress = |groups: usize, all: usize| phases.done(joined * all + groups, joins * all);
        let selection = if is_part {
            fusion::select_part(self.parts, self.targets, score, progress)?
        } else {
            fusion::select(self.parts, self.targets, score, progress)?
        };
        phases.go_on()?;
        Ok(selection)
    }

    /// Refits the layers behind the selection.
    fn compensate(
        &self,
        selection: &Selection,
        plain: &Fused<Checkpoint>,
        phases: &mut Phases<'_>,
    ) -> Result<Compensated, Halt> {
        let monitor = &mut |done| phases.goes_on(done);
        Ok(match self.bench {
            Some(bench) if self.network.compensate == Compensate::Calibration => {
                let Calibration { convolutions, ridge, .. } = self.task.job.method.calibration;
                let options = Options { sampling: sampling(self.task), convolutions, ridge };
                compensate::calibrate(self.parts, selection, plain, &bench.data().train, &options, monitor)?
            }
            _ => compensate::data_free(self.parts, selection, plain, monitor)?,
        })
    }

    /// Whether the compensated network is at least as good as the plain one, as far as there is a validation split.
    fn is_better(
        &self,
        plain: &Fused<Checkpoint>,
        compensated: &StateDict,
        phases: &mut Phases<'_>,
    ) -> Result<bool, Halt> {
        let Some(bench) = self.bench else { return Ok(true) };
        let before = bench.validation_accuracy(&plain.graph, &plain.weights)?;
        let after = bench.validation_accuracy(&plain.graph, compensated)?;
        let (Some(before), Some(after)) = (before, after) else { return Ok(true) };
        if after < before {
            let (before, after) = (before * 100.0, after * 100.0);
            phases.warn(format!(
                "compensation lowered the validation accuracy from {before:.2} % to {after:.2} %: its result was dropped"
            ));
        }
        Ok(after >= before)
    }
}

/// How calibration inputs are drawn.
pub(super) fn sampling(task: &Task) -> Sampling {
    let Calibration { samples, positions, .. } = task.job.method.calibration;
    Sampling { samples, positions, seed: task.job.seed }
}
