//! Measures every candidate that the report compares.

mod baselines;
mod work;

use super::context::Context;
use super::load::Subset;
use super::measure::{Bench, Measured};
use super::metrics;
use super::phases::Halt;
use super::recover;
use super::rivals::{Rivals, Successor};
use super::splits::{Logits, Splits};
use crate::cost::evaluation::measures_members;
use crate::domain::progress::Phase;
use crate::fusion::{Ensemble, Member};
use crate::model::costs::Costs;
use crate::model::graph::Graph;
use crate::plan::NetworkFigures;
use crate::report::{CandidateKind, CandidateReport, Latency, Outcomes, PairedTest};
use crate::settings::{Finetune, Objective, PredictionTask, ReportCandidate};
use crate::tensors::{Checkpoint, Weights};
use crate::train::{self, RunningScore};

use work::EvaluationWork;

/// The fused network in all its states.
pub(super) struct FusedNetworks<'a> {
    pub(super) graph: &'a Graph,
    /// Before compensation; none where there was none.
    pub(super) uncompensated: Option<&'a Checkpoint>,
    /// Before recovery.
    pub(super) zero_shot: &'a Checkpoint,
    /// None where nothing was trained.
    pub(super) recovered: Option<&'a Checkpoint>,
}

/// What the comparison has shown.
#[derive(Default)]
pub(super) struct Evaluated {
    pub(super) rows: Vec<CandidateReport>,
    /// The published network beside those that it has to beat.
    pub(super) paired: Vec<PairedTest>,
    /// What is published in the place of the fused network.
    pub(super) successor: Option<Successor>,
}

/// Every candidate that the job names, in the order of the report, and the published one beside those that it has to beat.
pub(super) fn candidates(
    context: &mut Context<'_>,
    bench: Bench<'_>,
    ensemble: &Ensemble<'_>,
    fused: &FusedNetworks<'_>,
) -> Result<Evaluated, Halt> {
    context.phases.begin(Phase::Evaluate)?;
    let work = EvaluationWork::of(context, bench, ensemble);
    let mut comparer = Comparer {
        context,
        bench,
        ensemble,
        whole: Logits::NONE,
        rows: Vec::new(),
        controls: Vec::new(),
        rivals: Rivals::default(),
        best: 0,
        work,
    };
    if measures_members(&comparer.context.task.job.evaluate) {
        comparer.members()?;
    }
    comparer.baselines()?;
    comparer.controls()?;
    let (mut paired, mut successor) = (Vec::new(), None);
    if comparer.wants(ReportCandidate::Fused) {
        (paired, successor) = comparer.fused(fused)?;
    }
    Ok(Evaluated { rows: comparer.rows, paired, successor })
}

/// The comparison so far.
struct Comparer<'a, 'c> {
    context: &'a mut Context<'c>,
    bench: Bench<'a>,
    ensemble: &'a Ensemble<'a>,
    /// The ensemble's logits, once they are known.
    whole: Logits,
    rows: Vec<CandidateReport>,
    /// What the published network has to beat: how each does on every example.
    controls: Vec<Control>,
    /// Those that may be published instead.
    rivals: Rivals,
    /// The member that does best on the validation split, the first among equals; the first where there is no such split.
    best: usize,
    work: EvaluationWork,
}

/// A network that fusion has to beat.
struct Control {
    kind: CandidateKind,
    name: String,
    outcomes: Outcomes,
}

impl Comparer<'_, '_> {
    fn wants(&self, candidate: ReportCandidate) -> bool {
        self.context.task.job.evaluate.contains(&candidate)
    }

    /// Each member, and from their logits the ensemble in both forms.
    fn members(&mut self) -> Result<(), Halt> {
        let classes = self.ensemble.graph().classes();
        let mut measured: Vec<Measured> = Vec::new();
        let consensus = self.ensemble.consensus();
        for (index, member) in self.ensemble.members().iter().enumerate() {
            let own = self.bench.measure(member.graph, member.weights)?;
            self.whole.add(consensus, index, &own.logits);
            self.context.counts.members += 1;
            self.context.counts.examples += own.logits.len() / classes;
            measured.push(own);
            self.measured();
            self.context.phases.check_stop()?;
        }
        self.whole.finish(consensus);
        let plan = &self.context.planned.plan;
        let costs = |index: usize| {
            let of = |figure: &NetworkFigures| figure.members[index];
            Costs { parameters: of(&plan.parameters), macs: of(&plan.macs), bytes: of(&plan.bytes) }
        };
        let mut rows = Vec::new();
        for (index, own) in measured.iter().enumerate() {
            let name = &self.context.task.job.members[index];
            rows.push(self.row(name, CandidateKind::Member, costs(index), &own.logits, Some(own.latency))?);
        }
        let merit = |row: &CandidateReport| row.validation.map_or(f64::NEG_INFINITY, |score| score.merit());
        self.best = (0..rows.len()).rev().max_by(|a, b| merit(&rows[*a]).total_cmp(&merit(&rows[*b]))).unwrap_or(0);
        let best = rows.get(self.best).filter(|best| best.validation.is_some()).cloned();
        self.controls.extend(self.best_member(&rows, &measured));
        if self.wants(ReportCandidate::Members) {
            self.rows.append(&mut rows);
        }
        if let Some(best) = best.filter(|_| self.wants(ReportCandidate::BestMember)) {
            self.rows.push(CandidateReport { kind: CandidateKind::BestMember, ..best });
        }
        let all = (0..measured.len()).map(costs).sum::<Costs>();
        let latency = Some(measured.iter().map(|own| own.latency).sum());
        if self.wants(ReportCandidate::Ensemble) {
            let row = self.row("ensemble", CandidateKind::Ensemble, all, &self.whole, latency)?;
            self.rows.push(row);
        }
        if self.wants(ReportCandidate::Vote) {
            let (task, count) = (self.task(), metrics::classes(self.task(), classes));
            let votes = |logits: fn(&Logits) -> Option<&Vec<f32>>| {
                let members: Option<Vec<_>> = measured
                    .iter()
                    .map(|own| logits(&own.logits).map(|logits| metrics::of_classes(logits, task)))
                    .collect();
                let members = members?;
                let members: Vec<&[f32]> = members.iter().map(AsRef::as_ref).collect();
                Some(metrics::outputs_of(metrics::votes(&members, count), task))
            };
            let votes = Splits {
                validation: votes(|logits| logits.validation.as_ref()),
                test: votes(|logits| logits.test.as_ref()),
            };
            let row = self.row("vote", CandidateKind::Vote, all, &votes, latency)?;
            // Shares of votes are no probabilities that could be calibrated.
            self.rows.push(CandidateReport { calibration_error: None, ..row });
        }
        Ok(())
    }

    /// The member that the published network has to beat: the best on the validation split or, where there is none, on the test split
    /// itself, which favours that member.
    fn best_member(&self, rows: &[CandidateReport], measured: &[Measured]) -> Option<Control> {
        let chosen = rows.get(self.best).is_some_and(|best| best.validation.is_some());
        if rows.iter().all(|row| row.validation.is_none() && row.test.is_none()) {
            return None;
        }
        let merit = |row: &CandidateReport| row.test.map_or(f64::NEG_INFINITY, |score| score.merit());
        let index = if chosen {
            self.best
        } else {
            (0..rows.len()).rev().max_by(|a, b| merit(&rows[*a]).total_cmp(&merit(&rows[*b])))?
        };
        let outcomes = self.outcomes(&measured[index].logits);
        let by = if chosen { "" } else { ", the best by these very examples" };
        let name = format!("the best member {}{by}", rows[index].name);
        Some(Control { kind: CandidateKind::BestMember, name, outcomes })
    }

    /// The best member after as much training as the fused network had.
    fn controls(&mut self) -> Result<(), Halt> {
        let wanted = [
            (ReportCandidate::TrainedOn, CandidateKind::TrainedOn, "trained on"),
            (ReportCandidate::Distilled, CandidateKind::Distilled, "distilled"),
        ];
        let Some(finetune) = self.context.finetune().cloned() else {
            if wanted.iter().any(|(candidate, ..)| self.wants(*candidate)) {
                let untrained =
                    "`trained_on` and `distilled` are trained for as long as the fused network, and `finetune` is null";
                self.context.phases.warn(untrained);
            }
            return Ok(());
        };
        for (candidate, kind, how) in wanted {
            if !self.wants(candidate) {
                continue;
            }
            let objective = match (kind, finetune.objective) {
                (CandidateKind::TrainedOn, _) => Objective::CrossEntropy,
                (_, objective @ Objective::Distill { .. }) => objective,
                (_, Objective::CrossEntropy) => Finetune::default().objective,
            };
            let settings = Finetune { objective, ..finetune.clone() };
            let student @ Member { graph, .. } = self.ensemble.members()[self.best];
            let name = self.context.task.job.members[self.best].clone();
            let log = format!("{name}, {how}");
            let part = self.work.train();
            let trained =
                recover::train_beside(self.context, &settings, self.bench, self.ensemble, student, &log, part)?;
            let logits = self.network(&name, kind, graph, &trained.weights)?;
            let control = Control { kind, name: format!("that member {how}"), outcomes: self.outcomes(&logits) };
            self.controls.push(control);
            if let Some(row) = self.rows.last() {
                self.rivals.consider(self.context, row, graph, trained);
            }
        }
        Ok(())
    }

    /// The fused network, in every state that differs from the next; what is published beside what it has to beat.
    fn fused(&mut self, fused: &FusedNetworks<'_>) -> Result<(Vec<PairedTest>, Option<Successor>), Halt> {
        let graph = fused.graph;
        if let Some(plain) = fused.uncompensated {
            self.network("fused, uncompensated", CandidateKind::FusedUncompensated, graph, plain)?;
        }
        if fused.recovered.is_some() {
            self.network("fused, untrained", CandidateKind::FusedZeroShot, graph, fused.zero_shot)?;
        }
        let published = fused.recovered.unwrap_or(fused.zero_shot);
        let logits = self.network("fused", CandidateKind::Fused, graph, published)?;
        let mut own = self.outcomes(&logits);
        let successor = std::mem::take(&mut self.rivals).succeed(self.context, &mut self.rows, self.best);
        if let Some(Successor { published, .. }) = &successor {
            // What is published is itself no more to beat, and what it beat is.
            if let Some(control) = self.controls.iter_mut().find(|control| control.kind == published.kind) {
                std::mem::swap(&mut own, &mut control.outcomes);
                (control.kind, control.name) = (CandidateKind::Transplanted, "the transplanted network".to_owned());
            }
        }
        let against = |control: Control| PairedTest::of(control.kind, control.name, &own, &control.outcomes);
        let mut tests: Vec<PairedTest> = self.controls.drain(..).map(against).collect();
        PairedTest::adjust(&mut tests);
        Ok((tests, successor))
    }

    /// Tells that one more network is measured.
    fn measured(&mut self) {
        let part = self.work.measure();
        self.context.phases.goes_on(part);
    }

    /// What the networks predict.
    fn task(&self) -> PredictionTask {
        self.context.network().task
    }

    /// How a network does on every example of the split that is judged by.
    fn outcomes(&self, logits: &Logits) -> Outcomes {
        let judged = self.bench.splits().judged().zip(logits.as_ref().judged());
        if self.task().decides() {
            Outcomes::Right(judged.map_or_else(Vec::new, |(split, logits)| metrics::right(logits, split)))
        } else {
            Outcomes::Losses(judged.map_or_else(Vec::new, |(split, logits)| metrics::losses(logits, split)))
        }
    }

    /// Measures a network and adds its row.
    fn network(
        &mut self,
        name: &str,
        kind: CandidateKind,
        graph: &Graph,
        weights: &dyn Weights,
    ) -> Result<Logits, Halt> {
        let Measured { logits, latency } = self.bench.measure(graph, weights)?;
        self.context.counts.candidates += 1;
        self.context.counts.examples += logits.len() / graph.classes().max(1);
        let costs = Costs::of(graph, &self.context.network().precision);
        let row = self.row(name, kind, costs, &logits, Some(latency))?;
        self.rows.push(row);
        self.measured();
        self.context.phases.check_stop()?;
        Ok(logits)
    }

    fn row(
        &self,
        name: &str,
        kind: CandidateKind,
        costs: Costs,
        logits: &Logits,
        latency: Option<Latency>,
    ) -> Result<CandidateReport, Halt> {
        let Splits { validation, test } = self.bench.scores(logits)?;
        let (task, classes) = (self.task(), metrics::classes(self.task(), self.ensemble.graph().classes()));
        // On the test split, or on the validation split where there is no other.
        let split = self.bench.splits().judged();
        let judged = logits.as_ref().judged();
        let known = split.filter(|_| task.decides()).and_then(Subset::labels).unwrap_or_default();
        let labels = || known.iter().copied();
        let of_classes = judged.filter(|_| task.decides()).map(|logits| metrics::of_classes(logits, task));
        let own = of_classes.as_deref();
        let agrees = |(own, whole): (&Vec<f32>, &Vec<f32>)| match task {
            PredictionTask::Classification => metrics::agreement(own, whole, classes),
            PredictionTask::Binary | PredictionTask::MultiLabel => metrics::label_agreement(own, whole),
            PredictionTask::Regression => None,
        };
        let counted = split.zip(judged).filter(|_| !task.decides());
        let counted = counted.map(|(split, outputs)| train::running_score(outputs, split)).transpose()?;
        Ok(CandidateReport {
            name: name.to_owned(),
            kind,
            validation,
            test,
            interval: counted.as_ref().and_then(RunningScore::interval),
            loss_standard_error: counted.as_ref().and_then(RunningScore::loss_standard_error),
            per_output: counted.as_ref().and_then(RunningScore::outputs),
            calibration_error: own.map(|own| metrics::calibration_error(own, labels(), classes)),
            top5_accuracy: own.and_then(|own| metrics::top5(own, labels(), classes)),
            per_class_accuracy: own.map(|own| metrics::per_class(own, labels(), classes)),
            agreement: logits.as_ref().zip(self.whole.as_ref()).judged().and_then(agrees),
            parameters: costs.parameters,
            macs: costs.macs,
            bytes: costs.bytes,
            latency_ms: latency.map(|latency| latency.batch_1.median_ms),
            latency,
        })
    }
}
