//! One network of several: units ranked and gathered, the layers behind them refitted.

use super::choice::{self, Inputs};
use super::gradients;
use super::measure::Bench;
use super::phases::{Halt, Phases};
use super::publish;
use crate::domain::progress::Phase;
use crate::fusion::calibration::Sampling;
use crate::fusion::compensate::{self, Compensated, Options};
use crate::fusion::select::{self, Ranking};
use crate::fusion::{self, Ensemble, Fused, Recipe, Selection};
use crate::model::precision::Precision;
use crate::model::refit::Compensation;
use crate::plan::network::Network;
use crate::process::protocol::{OutputFile, Task};
use crate::report::Choice;
use crate::settings::{Calibration, Compensate, Importance, Order};
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
    /// What it was chosen from.
    pub(super) choice: Option<Choice>,
}

impl FusedFile {
    /// A network whose layers were not refitted.
    pub(super) fn plain(fused: Fused<Checkpoint>, file: OutputFile) -> Self {
        Self { fused, file, uncompensated: None, compensation: None, choice: None }
    }
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

/// Units to keep, by one ranking.
struct Ranked {
    importance: Importance,
    selection: Selection,
}

impl Join<'_> {
    /// Keeps the best units of all parts, and refits the layers that read them.
    pub(super) fn make(&self, phases: &mut Phases<'_>) -> Result<FusedFile, Halt> {
        let inputs = self.bench.map(|bench| Inputs::of(bench, self.network.importance));
        let (ranked, same_units) = self.rank(inputs.as_ref(), phases)?;
        let (joined, joins) = self.place;
        let last = joined + 1 == joins;
        let publishes = last && self.task.job.finetune.is_none();
        if last {
            phases.begin(Phase::Prune)?;
        }
        let compensates = self.network.compensate != Compensate::None;
        let making = Making { last, published: publishes && !compensates };
        let mut plain = Vec::with_capacity(ranked.len());
        for ranked in &ranked {
            let recipe = fusion::gather(self.parts, &ranked.selection)?;
            plain.push(making.write(self.task, self.network, recipe, phases)?);
        }
        if !compensates {
            let (fused, file) = plain.swap_remove(0);
            return Ok(FusedFile::plain(fused, file));
        }
        if last {
            phases.begin(Phase::Compensate)?;
        }
        let plain: Vec<Fused<Checkpoint>> = plain.into_iter().map(|(fused, _)| fused).collect();
        let mut refitted = self.compensate(&ranked, &plain, inputs.as_ref(), phases)?;
        // All rankings leave out the same layers.
        for warning in refitted.first_mut().map(|first| std::mem::take(&mut first.warnings)).unwrap_or_default() {
            phases.warn(warning);
        }
        let (kept, choice) = self.choose(&ranked, &plain, &refitted, inputs.as_ref(), same_units, phases)?;
        // Without its refit it is the first ranking's, the paper's own.
        let which = kept.unwrap_or(0);
        let Compensated { mut weights, mut done, .. } = refitted.swap_remove(which);
        done.kept = kept.is_some();
        if !done.kept {
            weights = compensate::copy(&plain[0])?;
        }
        let write = if publishes { publish::model } else { publish::temporary };
        let (weights, file) = write(self.task, &weights, &making.precision(self.network))?;
        let (graph, provenance) = (plain[which].graph.clone(), plain[which].provenance.clone());
        let changed = !done.layers.is_empty();
        let uncompensated = plain.into_iter().next().filter(|_| changed).map(|plain| plain.weights);
        let fused = Fused { graph, weights, provenance };
        Ok(FusedFile { fused, file, uncompensated, compensation: changed.then_some(done), choice })
    }

    /// The units to keep, by every ranking that is tried, each set of units once; whether another ranking chose the same.
    fn rank(&self, inputs: Option<&Inputs>, phases: &mut Phases<'_>) -> Result<(Vec<Ranked>, bool), Halt> {
        let tried = match self.network.importance {
            Importance::Auto => vec![Importance::Magnitude, Importance::Css],
            other => vec![other],
        };
        let mut ranked: Vec<Ranked> = Vec::with_capacity(tried.len());
        let mut same_units = false;
        for importance in tried {
            let selection = match self.task.job.method.order {
                Order::PruneThenMerge => self.select_from_each(importance, inputs, phases)?,
                _ => self.select(importance, false, inputs, phases)?,
            };
            if ranked.iter().any(|earlier| earlier.selection == selection) {
                same_units = true;
            } else {
                ranked.push(Ranked { importance, selection });
            }
        }
        Ok((ranked, same_units))
    }

    /// Prunes each part by itself to its share of the targets.
    fn select_from_each(
        &self,
        importance: Importance,
        inputs: Option<&Inputs>,
        phases: &mut Phases<'_>,
    ) -> Result<Selection, Halt> {
        let members = self.parts.members();
        let rates = self.task.job.method.rates.clone().unwrap_or_else(|| vec![1.0; members.len()]);
        let quotas = fusion::quotas(self.parts, self.targets, &rates);
        let mut selections = Vec::with_capacity(members.len());
        for (index, member) in members.iter().enumerate() {
            let parts = Ensemble::new(vec![*member])?;
            let targets: Vec<usize> = quotas.iter().map(|quotas| quotas[index]).collect();
            let part = Join { parts: &parts, targets: &targets, place: (index, members.len()), ..*self };
            selections.push(part.select(importance, true, inputs, phases)?);
        }
        Ok(Selection::beside(&selections))
    }

    /// Ranks and selects; a part of a larger network may keep nothing of a group.
    fn select(
        &self,
        importance: Importance,
        is_part: bool,
        inputs: Option<&Inputs>,
        phases: &mut Phases<'_>,
    ) -> Result<Selection, Halt> {
        let (joined, joins) = self.place;
        let statistics = match inputs {
            Some(inputs) if importance.needs_activations() => {
                let monitor = &mut |done: f64| phases.goes_on((joined as f64 + done) / joins as f64);
                Some(select::measure(self.parts, &inputs.fitted, &sampling(self.task), monitor)?)
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

    /// Refits the layers behind every selection.
    fn compensate(
        &self,
        ranked: &[Ranked],
        plain: &[Fused<Checkpoint>],
        inputs: Option<&Inputs>,
        phases: &mut Phases<'_>,
    ) -> Result<Vec<Compensated>, Halt> {
        let monitor = &mut |done| phases.goes_on(done);
        let pairs = ranked.iter().zip(plain).map(|(ranked, plain)| (&ranked.selection, plain));
        match inputs {
            Some(inputs) if self.network.compensate == Compensate::Calibration => {
                let Calibration { convolutions, ridge, .. } = self.task.job.method.calibration;
                let options = Options { sampling: sampling(self.task), convolutions, ridge };
                let pairs: Vec<_> = pairs.collect();
                Ok(compensate::calibrate_all(self.parts, &pairs, &inputs.fitted, &options, monitor)?)
            }
            _ => {
                let one = |(selection, plain)| compensate::data_free(self.parts, selection, plain, &mut *monitor);
                Ok(pairs.map(one).collect::<Result<_, _>>()?)
            }
        }
    }

    /// Which of the refitted networks is kept, if any, and what [`Importance::Auto`] chose from.
    fn choose(
        &self,
        ranked: &[Ranked],
        plain: &[Fused<Checkpoint>],
        refitted: &[Compensated],
        inputs: Option<&Inputs>,
        same_units: bool,
        phases: &mut Phases<'_>,
    ) -> Result<(Option<usize>, Option<Choice>), Halt> {
        let (Some(bench), Some(inputs)) = (self.bench, inputs) else { return Ok((Some(0), None)) };
        if refitted.iter().all(|refitted| refitted.done.layers.is_empty()) {
            return Ok((Some(0), None));
        }
        if self.network.importance != Importance::Auto {
            return Ok((self.is_better(&plain[0], &refitted[0].weights, phases)?.then_some(0), None));
        }
        let mut networks: Vec<choice::Network<'_>> = ranked
            .iter()
            .zip(plain)
            .zip(refitted)
            .map(|((ranked, plain), refitted)| choice::Network {
                importance: ranked.importance,
                compensated: true,
                graph: &plain.graph,
                weights: &refitted.weights,
            })
            .collect();
        networks.push(choice::Network {
            importance: ranked[0].importance,
            compensated: false,
            graph: &plain[0].graph,
            weights: &plain[0].weights,
        });
        let choice = choice::choose(bench, self.parts, inputs, &networks, same_units, phases)?;
        let kept = choice.as_ref().map_or(0, |choice| choice.kept);
        Ok(((kept < refitted.len()).then_some(kept), choice))
    }

    /// Whether the compensated network is at least as good as the plain one, as far as there is a validation split.
    fn is_better(
        &self,
        plain: &Fused<Checkpoint>,
        compensated: &StateDict,
        phases: &mut Phases<'_>,
    ) -> Result<bool, Halt> {
        let Some(bench) = self.bench else { return Ok(true) };
        let before = bench.validation_score(&plain.graph, &plain.weights)?;
        let after = bench.validation_score(&plain.graph, compensated)?;
        let (Some(before), Some(after)) = (before, after) else { return Ok(true) };
        if after.accuracy < before.accuracy {
            let (before, after) = (before.accuracy * 100.0, after.accuracy * 100.0);
            phases.warn(format!(
                "compensation lowered the validation accuracy from {before:.2} % to {after:.2} %: its result was dropped"
            ));
        }
        Ok(after.accuracy >= before.accuracy)
    }
}

/// How calibration inputs are drawn.
pub(super) fn sampling(task: &Task) -> Sampling {
    let Calibration { samples, positions, .. } = task.job.method.calibration;
    Sampling { samples, positions, seed: task.job.seed }
}
