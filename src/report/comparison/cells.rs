//! Runs that differ in their seeds alone, as one row: figures with their spread, costs.

use super::{Comparison, Run};
use crate::domain::progress::Phase;
use crate::domain::score::significant;
use crate::report::figure::Figure;
use crate::report::table::scaled;
use crate::report::{CandidateKind, Report};

/// Mean and standard deviation over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) mean: f64,
    pub(super) deviation: f64,
    pub(super) count: usize,
}

impl Spread {
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        (count > 0).then_some(Self { mean, deviation, count })
    }
}

impl Spread {
    /// In words; shares in percent, without the sign.
    pub(super) fn shown(&self, figure: Figure) -> String {
        let number = |value: f64| if figure.is_share() { format!("{:.2}", value * 100.0) } else { significant(value) };
        match self.count {
            0 | 1 => number(self.mean),
            _ => format!("{} ± {}", number(self.mean), number(self.deviation)),
        }
    }
}

/// All seeds of one method and target on one ensemble.
pub(super) struct Cell<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) runs: Vec<&'a Run>,
}

/// Heads of the columns; shares are in percent.
pub(super) const HEADS: [&str; 11] = [
    "method",
    "target",
    "uncompensated",
    "untrained",
    "fused",
    "as ensemble",
    "parameters",
    "fusing",
    "whole job",
    "memory",
    "runs",
];

impl Cell<'_> {
    pub(super) fn reports(&self) -> impl Iterator<Item = &Report> {
        self.runs.iter().filter_map(|run| run.report.as_ref())
    }

    /// Over the seeds, of the first of these kinds that a run has.
    pub(super) fn figure(&self, kinds: &[CandidateKind], figure: Figure) -> Option<Spread> {
        let of_run = |report: &Report| kinds.iter().find_map(|kind| of_kind(report, *kind, figure));
        Spread::of(&self.reports().filter_map(of_run).collect::<Vec<_>>())
    }

    pub(super) fn row(&self, figure: Figure) -> Vec<String> {
        let or_dash =
            |spread: Option<Spread>, figure: Figure| spread.map_or("-".to_owned(), |spread| spread.shown(figure));
        let of = |kinds: &[CandidateKind]| or_dash(self.figure(kinds, figure), figure);
        let fused = |report: &Report| report.candidates.iter().find(|row| row.kind == CandidateKind::Fused).cloned();
        let agreement: Vec<f64> = self.reports().filter_map(|report| fused(report)?.agreement).collect();
        let parameters = self.reports().find_map(|report| Some(fused(report)?.parameters));
        let seconds: Vec<f64> = self.reports().map(fusing).collect();
        let whole: Vec<f64> = self.runs.iter().filter(|run| run.report.is_some()).map(|run| run.seconds).collect();
        let memory = self.reports().filter_map(fusing_memory).max();
        let done = self.reports().count();
        vec![
            self.method.to_owned(),
            self.target.to_owned(),
            of(&[CandidateKind::FusedUncompensated]),
            of(&[CandidateKind::FusedZeroShot, CandidateKind::Fused]),
            of(&[CandidateKind::Fused]),
            or_dash(Spread::of(&agreement), Figure::Accuracy),
            parameters.map_or("-".to_owned(), |count| scaled(count as f64, 1000.0, ["", " k", " M", " G"])),
            Spread::of(&seconds).map_or("-".to_owned(), |spread| format!("{:.2} s", spread.mean)),
            Spread::of(&whole).map_or("-".to_owned(), |spread| format!("{:.1} s", spread.mean)),
            memory.map_or("-".to_owned(), |bytes| scaled(bytes as f64, 1024.0, [" B", " KiB", " MiB", " GiB"])),
            if done == self.runs.len() { done.to_string() } else { format!("{done} of {}", self.runs.len()) },
        ]
    }
}

/// The figure of the first candidate of a kind, on the test split, else on the validation split.
fn of_kind(report: &Report, kind: CandidateKind, figure: Figure) -> Option<f64> {
    let row = report.candidates.iter().find(|row| row.kind == kind)?;
    figure.value(&row.test.or(row.validation)?)
}

/// Seconds of ranking, gathering and refitting.
fn fusing(report: &Report) -> f64 {
    report.seconds.iter().filter(|(phase, _)| fuses(*phase)).map(|(_, seconds)| seconds).sum()
}

/// Most bytes that were allocated meanwhile.
fn fusing_memory(report: &Report) -> Option<u64> {
    report.memory_peak_bytes.iter().filter(|(phase, _)| fuses(*phase)).map(|(_, bytes)| *bytes).max()
}

fn fuses(phase: Phase) -> bool {
    matches!(phase, Phase::Score | Phase::Prune | Phase::Compensate)
}

impl Comparison {
    /// The ensembles' names, in order.
    pub(super) fn ensembles(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !names.contains(&run.ensemble.as_str()) {
                names.push(&run.ensemble);
            }
        }
        names
    }

    /// What the runs of an ensemble are compared by.
    pub(super) fn figure(&self, ensemble: &str) -> Figure {
        let mut reports = self.runs.iter().filter(|run| run.ensemble == ensemble).filter_map(|run| run.report.as_ref());
        Figure::of(reports.next().map(|report| report.task).unwrap_or_default())
    }

    /// The cells of one ensemble, in order.
    pub(super) fn cells(&self, ensemble: &str) -> Vec<Cell<'_>> {
        let mut cells: Vec<Cell<'_>> = Vec::new();
        for run in self.runs.iter().filter(|run| run.ensemble == ensemble) {
            match cells.iter_mut().find(|cell| cell.method == run.method && cell.target == run.target) {
                Some(cell) => cell.runs.push(run),
                None => cells.push(Cell { method: &run.method, target: &run.target, runs: vec![run] }),
            }
        }
        cells
    }

    /// The cells of one ensemble, the best first; those without a figure last.
    pub(super) fn ranked(&self, ensemble: &str) -> Vec<Cell<'_>> {
        let figure = self.figure(ensemble);
        let merit = |cell: &Cell<'_>| {
            let mean = cell.figure(&[CandidateKind::Fused], figure).map(|spread| spread.mean);
            mean.map_or(f64::NEG_INFINITY, |mean| if figure.is_gain() { mean } else { -mean })
        };
        let mut cells = self.cells(ensemble);
        cells.sort_by(|a, b| merit(b).total_cmp(&merit(a)));
        cells
    }

    /// What there is to compare with, in words: members, ensemble and the other candidates, over all runs.
    pub(super) fn yardsticks(&self, ensemble: &str, figure: Figure) -> Vec<(&'static str, Spread)> {
        let reports = || self.runs.iter().filter(|run| run.ensemble == ensemble).filter_map(|run| run.report.as_ref());
        let members = |report: &Report| -> Vec<f64> {
            let members = report.candidates.iter().filter(|row| row.kind == CandidateKind::Member);
            members.filter_map(|row| figure.value(&row.test.or(row.validation)?)).collect()
        };
        let better = if figure.is_gain() { f64::max } else { f64::min };
        let best = |report: &Report| members(report).into_iter().reduce(better);
        let mut sticks = vec![
            (
                "mean member",
                Spread::of(&reports().flat_map(members).collect::<Vec<_>>()).map(|s| Spread { count: 1, ..s }),
            ),
            ("best member", Spread::of(&reports().filter_map(best).collect::<Vec<_>>())),
        ];
        let others = [
            ("ensemble", CandidateKind::Ensemble),
            ("ensemble by vote", CandidateKind::Vote),
            ("average of weights", CandidateKind::Average),
            ("optimal transport", CandidateKind::OptimalTransport),
            ("permutation alignment", CandidateKind::PermutationAlignment),
            ("neuron interpolation", CandidateKind::NeuronInterpolation),
            ("best member, trained on", CandidateKind::TrainedOn),
            ("best member, distilled", CandidateKind::Distilled),
            ("transplanted", CandidateKind::Transplanted),
        ];
        for (name, kind) in others {
            let values: Vec<f64> = reports().filter_map(|report| of_kind(report, kind, figure)).collect();
            sticks.push((name, Spread::of(&values)));
        }
        sticks.into_iter().filter_map(|(name, spread)| Some((name, spread?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_of_the_sample() {
        let spread = Spread::of(&[0.5, 0.52, 0.54]).expect("three values");
        assert_eq!(spread.shown(Figure::Accuracy), "52.00 ± 2.00");
        assert_eq!(spread.shown(Figure::Rmse), "0.5200 ± 0.02000");
        assert_eq!(Spread::of(&[0.5]).expect("one value").shown(Figure::Accuracy), "50.00");
        assert_eq!(Spread::of(&[]), None);
    }
}
