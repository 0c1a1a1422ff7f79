//! Which units of several networks are kept, by every ranking that is tried.

use super::choice::Inputs;
use super::context::Context;
use super::gradients;
use super::phases::Halt;
use crate::fusion::calibration::Sampling;
use crate::fusion::select::{self, Ranking};
use crate::fusion::{self, Ensemble, Selection};
use crate::process::protocol::Task;
use crate::report::MemberBase;
use crate::settings::{Calibration, Importance, Order};

/// The rankings that `auto` tries.
pub(super) const AUTO: [Importance; 2] = [Importance::Magnitude, Importance::Css];

/// One of the steps in which members become one network.
#[derive(Clone, Copy)]
pub(super) struct Join<'a> {
    pub(super) parts: &'a Ensemble<'a>,
    pub(super) targets: &'a [usize],
    /// Joins before this one, and all.
    pub(super) place: (usize, usize),
}

/// Units to keep, by one ranking.
pub(super) struct Ranked {
    pub(super) importance: Importance,
    /// Where only some layers are ranked.
    pub(super) base: Option<MemberBase>,
    pub(super) selection: Selection,
}

impl Join<'_> {
    /// The units to keep, by every ranking that is tried, each set of units once; whether another ranking chose the same.
    pub(super) fn rank(&self, context: &mut Context<'_>, inputs: Option<&Inputs>) -> Result<(Vec<Ranked>, bool), Halt> {
        let tried = match context.network().importance {
            Importance::Auto => AUTO.to_vec(),
            other => vec![other],
        };
        let mut ranked: Vec<Ranked> = Vec::with_capacity(tried.len());
        let mut same_units = false;
        for importance in tried {
            let selection = match context.method().order {
                Order::PruneThenMerge => {
                    let rates = context.method().rates.clone();
                    let rates = rates.unwrap_or_else(|| vec![1.0; self.parts.members().len()]);
                    self.select_from_each(context, importance, &rates, inputs)?
                }
                _ => self.select(context, importance, false, inputs)?,
            };
            if ranked.iter().any(|earlier| earlier.selection == selection) {
                same_units = true;
            } else {
                ranked.push(Ranked { importance, base: None, selection });
            }
        }
        Ok((ranked, same_units))
    }

    /// Prunes each part by itself to its share of the targets, by these rates.
    pub(super) fn select_from_each(
        &self,
        context: &mut Context<'_>,
        importance: Importance,
        rates: &[f64],
        inputs: Option<&Inputs>,
    ) -> Result<Selection, Halt> {
        let members = self.parts.members();
        let quotas = fusion::quotas(self.parts, self.targets, rates);
        let mut selections = Vec::with_capacity(members.len());
        for (index, member) in members.iter().enumerate() {
            let parts = Ensemble::new(vec![*member])?;
            let targets: Vec<usize> = quotas.iter().map(|quotas| quotas[index]).collect();
            if targets.iter().all(|target| *target == 0) {
                selections.push(Selection::nothing(&parts));
                continue;
            }
            let part = Join { parts: &parts, targets: &targets, place: (index, members.len()) };
            selections.push(part.select(context, importance, true, inputs)?);
        }
        Ok(Selection::beside(&selections))
    }

    /// Ranks and selects; a part of a larger network may keep nothing of a group.
    fn select(
        &self,
        context: &mut Context<'_>,
        importance: Importance,
        is_part: bool,
        inputs: Option<&Inputs>,
    ) -> Result<Selection, Halt> {
        let (joined, joins) = self.place;
        let statistics = match inputs {
            Some(inputs) if importance.needs_activations() => {
                let monitor = &mut |done: f64| context.phases.goes_on((joined as f64 + done) / joins as f64);
                let on = context.task.compute_options();
                Some(select::measure(self.parts, &inputs.fitted, &sampling(context.task), &on, monitor)?)
            }
            _ => None,
        };
        let saliencies = match context.bench {
            Some(bench) if importance.needs_gradients() => {
                let place = [joined, joined + 1].map(|join| join as f64 / joins as f64);
                Some(gradients::saliencies(context, self.parts, bench, place)?)
            }
            _ => None,
        };
        let ranking = Ranking {
            importance,
            seed: context.task.job.seed,
            statistics: statistics.as_ref(),
            saliencies: saliencies.as_deref(),
            targets: self.targets,
        };
        let score = |parts: &Ensemble<'_>, selection: &Selection, group| ranking.score(parts, selection, group);
        let progress = |groups: usize, all: usize| context.phases.done(joined * all + groups, joins * all);
        let selection = if is_part {
            fusion::select_part(self.parts, self.targets, score, progress)?
        } else {
            fusion::select(self.parts, self.targets, score, progress)?
        };
        context.phases.check_stop()?;
        Ok(selection)
    }
}

/// How calibration inputs are drawn.
pub(super) fn sampling(task: &Task) -> Sampling {
    let Calibration { samples, positions, .. } = task.job.method.calibration;
    Sampling { samples, positions, seed: task.job.seed }
}
