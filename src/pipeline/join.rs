//! One network of several: the units that are kept gathered, the layers behind them refitted, the best of what was tried published.

use super::choice::{self, Inputs};
use super::context::Context;
use super::measure::Bench;
use super::member_base::{self, Based};
use super::phases::Halt;
use super::publish::{self, WriteMode};
use super::rank::{Join, Ranked, sampling};
use crate::domain::progress::Phase;
use crate::domain::score::significant;
use crate::fusion::compensate::{self, CompensateOptions, Compensated};
use crate::fusion::{self, Ensemble, Fused, Member, Selection};
use crate::model::refit::Compensation;
use crate::process::protocol::OutputFile;
use crate::report::{Choice, MemberBase};
use crate::settings::{Calibration, Compensate, Importance};
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
    /// What training starts from, where that is another network: one whose layers are all mixed learns more than a member as it is, which
    /// has been trained to its end.
    pub(super) start: Option<Fused<Checkpoint>>,
}

impl FusedFile {
    /// A network whose layers were not refitted.
    pub(super) fn plain(fused: Fused<Checkpoint>, file: OutputFile) -> Self {
        Self { fused, file, uncompensated: None, compensation: None, choice: None, start: None }
    }

    /// What training starts from.
    pub(super) fn start(&self) -> &Fused<Checkpoint> {
        self.start.as_ref().unwrap_or(&self.fused)
    }
}

/// Which of the networks that were tried is kept.
#[derive(Clone, Copy)]
enum Kept {
    /// One of those whose layers were refitted.
    Refitted(usize),
    /// The first ranking's without its refit, the paper's own.
    Plain,
    /// A member as it is.
    Member(usize),
}

impl Join<'_> {
    /// Keeps the best units of all parts, and refits the layers that read them.
    pub(super) fn make(&self, context: &mut Context<'_>) -> Result<FusedFile, Halt> {
        context.counts.joins += 1;
        let network = context.network();
        let inputs = context.bench.map(|bench| Inputs::of(bench, network.importance));
        let (mut ranked, same_units) = self.rank(context, inputs.as_ref())?;
        let (joined, joins) = self.place;
        let last = joined + 1 == joins;
        let publishes = last && !context.trains();
        if last {
            context.phases.begin(Phase::Prune)?;
        }
        let compensates = network.compensate != Compensate::None;
        let calibrates = network.compensate == Compensate::Calibration;
        let member = if calibrates { self.add_based(context, &mut ranked, inputs.as_ref())? } else { None };
        // The network of all members has the types that they have; others are at least f32.
        let precision = if last { network.precision.clone() } else { network.precision.widened() };
        let mut plain = Vec::with_capacity(ranked.len());
        for ranked in &ranked {
            let recipe = fusion::gather(self.parts, &ranked.selection)?;
            plain.push(publish::recipe(context, recipe, &precision, WriteMode::last(publishes && !compensates))?);
        }
        if !compensates {
            let (fused, file) = plain.swap_remove(0);
            return Ok(FusedFile::plain(fused, file));
        }
        if last {
            context.phases.begin(Phase::Compensate)?;
        }
        let plain: Vec<Fused<Checkpoint>> = plain.into_iter().map(|(fused, _)| fused).collect();
        let mut refitted = self.compensate(context, &ranked, &plain, inputs.as_ref())?;
        // All rankings leave out the same layers.
        for warning in refitted.first_mut().map(|first| std::mem::take(&mut first.warnings)).unwrap_or_default() {
            context.phases.warn(warning);
        }
        let tried = Contenders { ranked: &ranked, plain: &plain, refitted: &refitted, member };
        let (kept, mut choice) = self.choose(context, &tried, inputs.as_ref(), same_units)?;
        let mixed = choice.as_ref().map(|choice| tried.kept(choice.best_mixed())).filter(|_| !kept.can_learn(&ranked));
        let done = Compensation {
            kept: matches!(kept, Kept::Refitted(_)),
            ..refitted[if let Kept::Refitted(which) = kept { which } else { 0 }].done.clone()
        };
        let kept_network = self.network(kept, &plain, &mut refitted)?;
        let start = match mixed.filter(|_| context.trains()) {
            Some(mixed) => {
                let Fused { graph, weights, provenance } = self.network(mixed, &plain, &mut refitted)?;
                let (weights, _) = publish::model(context, &graph, &weights, &precision, WriteMode::Temporary)?;
                Some(Fused { graph, weights, provenance })
            }
            None => None,
        };
        if let Some(choice) = choice.as_mut().filter(|_| start.is_some()) {
            choice.started_from = Some(choice.best_mixed());
            context.phases.info(choice.start().unwrap_or_default());
        }
        let Fused { graph, weights, provenance } = kept_network;
        let (weights, file) = publish::model(context, &graph, &weights, &precision, WriteMode::last(publishes))?;
        let changed = !done.layers.is_empty();
        let uncompensated = plain.into_iter().next().filter(|_| changed).map(|plain| plain.weights);
        let fused = Fused { graph, weights, provenance };
        let compensation = changed.then_some(done).filter(|_| !matches!(kept, Kept::Member(_)));
        Ok(FusedFile { fused, file, uncompensated, compensation, choice, start })
    }

    /// Adds what may be made of the best member; returns its position where it may be kept as it is.
    fn add_based(
        &self,
        context: &mut Context<'_>,
        ranked: &mut Vec<Ranked>,
        inputs: Option<&Inputs>,
    ) -> Result<Option<usize>, Halt> {
        let Some(last) = ranked.last() else { return Ok(None) };
        let importance = last.importance;
        let Some(Based { networks, as_it_is }) = member_base::based(context, self, &last.selection, inputs)? else {
            return Ok(None);
        };
        let is_pruned = as_it_is.is_none();
        ranked.extend(
            networks.into_iter().map(|network| if is_pruned { network } else { Ranked { importance, ..network } }),
        );
        Ok(as_it_is)
    }

    /// One of the networks that were tried; the weights of a refitted one are taken.
    fn network(
        &self,
        kept: Kept,
        plain: &[Fused<Checkpoint>],
        refitted: &mut [Compensated],
    ) -> Result<Fused<StateDict>, Halt> {
        let of = |fused: &Fused<Checkpoint>, weights| Fused {
            graph: fused.graph.clone(),
            weights,
            provenance: fused.provenance.clone(),
        };
        Ok(match kept {
            Kept::Refitted(which) => of(&plain[which], std::mem::take(&mut refitted[which].weights)),
            Kept::Plain => of(&plain[0], compensate::copy(&plain[0])?),
            Kept::Member(member) => {
                let alone = Ensemble::new(vec![self.parts.members()[member]])?;
                let fused = fusion::gather(&alone, &Selection::all(&alone))?.build()?;
                let mut provenance = fused.provenance.through(&[(None, member)]);
                provenance.shares =
                    (0..self.parts.members().len()).map(|index| f32::from(u8::from(index == member))).collect();
                Fused { provenance, ..fused }
            }
        })
    }

    /// Refits the layers behind every selection.
    fn compensate(
        &self,
        context: &mut Context<'_>,
        ranked: &[Ranked],
        plain: &[Fused<Checkpoint>],
        inputs: Option<&Inputs>,
    ) -> Result<Vec<Compensated>, Halt> {
        let (task, compensate) = (context.task, context.network().compensate);
        let monitor = &mut |done| context.phases.goes_on(done);
        let pairs = ranked.iter().zip(plain).map(|(ranked, plain)| (&ranked.selection, plain));
        match inputs {
            Some(inputs) if compensate == Compensate::Calibration => {
                let Calibration { convolutions, ridge, output_layer, .. } = task.job.method.calibration;
                let options = CompensateOptions { sampling: sampling(task), convolutions, ridge, output_layer };
                let pairs: Vec<_> = pairs.collect();
                Ok(compensate::calibrate_all(
                    self.parts,
                    &pairs,
                    &inputs.fitted,
                    &options,
                    &task.compute_options(),
                    monitor,
                )?)
            }
            _ => {
                let one = |(selection, plain)| compensate::data_free(self.parts, selection, plain, &mut *monitor);
                Ok(pairs.map(one).collect::<Result<_, _>>()?)
            }
        }
    }

    /// Which network is kept, and what [`Importance::Auto`] chose from.
    fn choose(
        &self,
        context: &mut Context<'_>,
        tried: &Contenders<'_>,
        inputs: Option<&Inputs>,
        same_units: bool,
    ) -> Result<(Kept, Option<Choice>), Halt> {
        let Contenders { ranked, plain, refitted, member } = *tried;
        let (Some(bench), Some(inputs)) = (context.bench, inputs) else { return Ok((Kept::Refitted(0), None)) };
        if refitted.iter().all(|refitted| refitted.done.layers.is_empty()) {
            return Ok((Kept::Refitted(0), None));
        }
        if context.network().importance != Importance::Auto {
            let better = is_better(context, bench, &plain[0], &refitted[0].weights)?;
            return Ok((if better { Kept::Refitted(0) } else { Kept::Plain }, None));
        }
        let mut networks: Vec<choice::TriedNetwork<'_>> = ranked
            .iter()
            .zip(plain)
            .zip(refitted)
            .map(|((ranked, plain), refitted)| choice::TriedNetwork {
                importance: ranked.importance,
                compensated: true,
                base: ranked.base.clone(),
                graph: &plain.graph,
                weights: &refitted.weights,
            })
            .collect();
        networks.push(choice::TriedNetwork {
            importance: ranked[0].importance,
            compensated: false,
            base: None,
            graph: &plain[0].graph,
            weights: &plain[0].weights,
        });
        if let Some(member) = member {
            let Member { graph, weights } = self.parts.members()[member];
            let member_name = context.task.job.members[member].clone();
            let base = MemberBase { member: member_name, mixed: Vec::new(), is_pruned: false };
            networks.push(choice::TriedNetwork {
                importance: ranked[0].importance,
                compensated: false,
                base: Some(base),
                graph,
                weights,
            });
        }
        let choice = choice::choose(context, bench, self.parts, inputs, &networks, same_units)?;
        Ok((choice.as_ref().map_or(Kept::Refitted(0), |choice| tried.kept(choice.kept)), choice))
    }
}

/// The networks that are judged: those refitted, the first one without its refit, and a member.
#[derive(Clone, Copy)]
struct Contenders<'a> {
    ranked: &'a [Ranked],
    plain: &'a [Fused<Checkpoint>],
    refitted: &'a [Compensated],
    member: Option<usize>,
}

impl Contenders<'_> {
    /// The network at this position.
    fn kept(&self, position: usize) -> Kept {
        match (position.checked_sub(self.refitted.len()), self.member) {
            (None, _) => Kept::Refitted(position),
            (Some(1), Some(member)) => Kept::Member(member),
            (Some(_), _) => Kept::Plain,
        }
    }
}

impl Kept {
    /// Whether training starts from it: it is no member that has been trained to its end already.
    fn can_learn(self, ranked: &[Ranked]) -> bool {
        match self {
            Self::Refitted(which) => ranked[which].base.as_ref().is_none_or(|base| base.is_pruned),
            Self::Plain => true,
            Self::Member(_) => false,
        }
    }
}

/// Whether the compensated network is at least as good as the plain one, as far as there is a validation split.
fn is_better(
    context: &mut Context<'_>,
    bench: Bench<'_>,
    plain: &Fused<Checkpoint>,
    compensated: &StateDict,
) -> Result<bool, Halt> {
    let before = bench.validation_score(&plain.graph, &plain.weights)?;
    let after = bench.validation_score(&plain.graph, compensated)?;
    let (Some(before), Some(after)) = (before, after) else { return Ok(true) };
    if after.merit() < before.merit() {
        context.phases.warn(match before.accuracy() {
            Some(_) => {
                format!("compensation lowered the validation accuracy from {before} to {after}: its result was dropped")
            }
            None => format!(
                "compensation raised the validation loss from {} to {}: its result was dropped",
                significant(before.loss),
                significant(after.loss)
            ),
        });
    }
    Ok(after.merit() >= before.merit())
}
