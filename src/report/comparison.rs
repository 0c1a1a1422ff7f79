//! Many runs side by side: methods, targets and seeds on one or several ensembles.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::figure::Figure;
use super::html::charts::{self, CLASSES, Dot, Series};
use super::html::parts::{self, escape, table};
use super::table::columns;
use super::{CandidateKind, Report};
use crate::domain::progress::Phase;
use crate::domain::score::significant;

/// One run of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ComparisonRun)]
pub struct Run {
    /// Which members.
    pub ensemble: String,
    /// Which method.
    pub method: String,
    /// Which target.
    pub target: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// From the first byte read to the last written.
    pub seconds: f64,
    /// What came of it.
    pub report: Option<Report>,
    /// Why nothing did.
    pub error: Option<String>,
}

/// All runs of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ComparisonReport)]
pub struct Comparison {
    /// The plan's title.
    pub title: String,
    /// Version of engraft that computed this.
    pub engraft_version: String,
    /// Whether this is the plan's short form.
    pub quick: bool,
    /// The runs, in the order of the plan.
    pub runs: Vec<Run>,
}

/// Mean and standard deviation over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    mean: f64,
    deviation: f64,
    count: usize,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        (count > 0).then_some(Self { mean, deviation, count })
    }
}

impl Spread {
    /// In words; shares in percent, without the sign.
    fn shown(&self, figure: Figure) -> String {
        let number = |value: f64| if figure.is_share() { format!("{:.2}", value * 100.0) } else { significant(value) };
        match self.count {
            0 | 1 => number(self.mean),
            _ => format!("{} ± {}", number(self.mean), number(self.deviation)),
        }
    }
}

/// All seeds of one method and target on one ensemble.
struct Cell<'a> {
    method: &'a str,
    target: &'a str,
    runs: Vec<&'a Run>,
}

/// Heads of the columns; shares are in percent.
const HEADS: [&str; 10] = [
    "method",
    "target",
    "uncompensated",
    "untrained",
    "fused",
    "as ensemble",
    "parameters",
    "fusing",
    "memory",
    "runs",
];

impl Cell<'_> {
    fn reports(&self) -> impl Iterator<Item = &Report> {
        self.runs.iter().filter_map(|run| run.report.as_ref())
    }

    /// Over the seeds, of the first of these kinds that a run has.
    fn figure(&self, kinds: &[CandidateKind], figure: Figure) -> Option<Spread> {
        let of_run = |report: &Report| kinds.iter().find_map(|kind| of_kind(report, *kind, figure));
        Spread::of(&self.reports().filter_map(of_run).collect::<Vec<_>>())
    }

    fn row(&self, figure: Figure) -> Vec<String> {
        let or_dash =
            |spread: Option<Spread>, figure: Figure| spread.map_or("-".to_owned(), |spread| spread.shown(figure));
        let of = |kinds: &[CandidateKind]| or_dash(self.figure(kinds, figure), figure);
        let fused = |report: &Report| report.candidates.iter().find(|row| row.kind == CandidateKind::Fused).cloned();
        let agreement: Vec<f64> = self.reports().filter_map(|report| fused(report)?.agreement).collect();
        let parameters = self.reports().find_map(|report| Some(fused(report)?.parameters));
        let seconds: Vec<f64> = self.reports().map(fusing).collect();
        let memory = self.reports().filter_map(fusing_memory).max();
        let done = self.reports().count();
        vec![
            self.method.to_owned(),
            self.target.to_owned(),
            of(&[CandidateKind::FusedUncompensated]),
            of(&[CandidateKind::FusedZeroShot, CandidateKind::Fused]),
            of(&[CandidateKind::Fused]),
            or_dash(Spread::of(&agreement), Figure::Accuracy),
            parameters.map_or("-".to_owned(), |count| super::scaled(count as f64, 1000.0, ["", " k", " M", " G"])),
            Spread::of(&seconds).map_or("-".to_owned(), |spread| format!("{:.2} s", spread.mean)),
            memory.map_or("-".to_owned(), |bytes| super::scaled(bytes as f64, 1024.0, [" B", " KiB", " MiB", " GiB"])),
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
    /// Without runs yet.
    #[must_use]
    pub fn new(title: String, quick: bool) -> Self {
        Self { title, engraft_version: env!("CARGO_PKG_VERSION").to_owned(), quick, runs: Vec::new() }
    }

    /// The ensembles' names, in order.
    fn ensembles(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !names.contains(&run.ensemble.as_str()) {
                names.push(&run.ensemble);
            }
        }
        names
    }

    /// What the runs of an ensemble are compared by.
    fn figure(&self, ensemble: &str) -> Figure {
        let mut reports = self.runs.iter().filter(|run| run.ensemble == ensemble).filter_map(|run| run.report.as_ref());
        Figure::of(reports.next().map(|report| report.task).unwrap_or_default())
    }

    /// The cells of one ensemble, in order.
    fn cells(&self, ensemble: &str) -> Vec<Cell<'_>> {
        let mut cells: Vec<Cell<'_>> = Vec::new();
        for run in self.runs.iter().filter(|run| run.ensemble == ensemble) {
            match cells.iter_mut().find(|cell| cell.method == run.method && cell.target == run.target) {
                Some(cell) => cell.runs.push(run),
                None => cells.push(Cell { method: &run.method, target: &run.target, runs: vec![run] }),
            }
        }
        cells
    }

    /// What there is to compare with, in words: members, ensemble and the other candidates, over all runs.
    fn yardsticks(&self, ensemble: &str, figure: Figure) -> Vec<(&'static str, Spread)> {
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
        ];
        for (name, kind) in others {
            let values: Vec<f64> = reports().filter_map(|report| of_kind(report, kind, figure)).collect();
            sticks.push((name, Spread::of(&values)));
        }
        sticks.into_iter().filter_map(|(name, spread)| Some((name, spread?))).collect()
    }

    /// The comparison as a page that needs nothing else.
    #[must_use]
    pub fn page(&self) -> String {
        let mut body = format!(
            "<p class=lead>{}</p><p class=facts>{} runs{} &middot; engraft {}</p>",
            escape(&self.title),
            self.runs.len(),
            if self.quick { ", the plan's short form" } else { "" },
            escape(&self.engraft_version)
        );
        let failed: Vec<String> = self.runs.iter().filter_map(failure).collect();
        if !failed.is_empty() {
            body += "<section class=warnings><h2>Failed</h2><ul>";
            body += &parts::items(&failed);
            body += "</ul></section>";
        }
        for ensemble in self.ensembles() {
            body += &self.section(ensemble);
        }
        parts::document("Comparison", &body)
    }

    fn section(&self, ensemble: &str) -> String {
        let (cells, figure) = (self.cells(ensemble), self.figure(ensemble));
        let dot = |name: String, Spread { mean, deviation, .. }: Spread, class| Dot {
            name,
            value: mean,
            range: [mean - deviation, mean + deviation],
            class,
        };
        let sticks = self.yardsticks(ensemble, figure).into_iter();
        let mut dots: Vec<Dot> = sticks.map(|(name, spread)| dot(name.to_owned(), spread, "member")).collect();
        for cell in &cells {
            let name = format!("{}, {}", cell.method, cell.target);
            dots.extend(cell.figure(&[CandidateKind::Fused], figure).map(|spread| dot(name, spread, "fused")));
        }
        let heads = HEADS.map(str::to_owned);
        let rows: Vec<Vec<String>> = cells.iter().map(|cell| cell.row(figure)).collect();
        let curves: Vec<Series> = cells.iter().zip(CLASSES).map(|(cell, class)| curve(cell, class, figure)).collect();
        let trained = curves.iter().any(|series| series.points.len() > 1);
        let curves = if trained {
            let chart = charts::lines(&curves, figure.is_share());
            format!("<figure><figcaption>{} by epoch</figcaption>{chart}</figure>", figure.title())
        } else {
            String::new()
        };
        format!(
            "<section><h2>{}</h2>{}<p class=note>{}; means over seeds, bars show one standard deviation.</p>{}{curves}</section>",
            escape(ensemble),
            charts::dots(&dots, figure),
            figure.title(),
            table(&heads, &rows, |_| false)
        )
    }
}

/// The mean figure by epoch over the seeds: on the test split, else on the validation split.
fn curve(cell: &Cell<'_>, class: &'static str, figure: Figure) -> Series {
    let epochs = cell.reports().map(|report| report.epochs.len()).min().unwrap_or(0);
    let at = |epoch: usize| {
        let values: Vec<f64> = cell
            .reports()
            .filter_map(|report| {
                let metrics = report.epochs.get(epoch)?;
                figure.value(&metrics.test.or(metrics.validation)?)
            })
            .collect();
        Some((epoch as f64, Spread::of(&values)?.mean))
    };
    Series { name: format!("{}, {}", cell.method, cell.target), class, points: (0..epochs).filter_map(at).collect() }
}

fn failure(run: &Run) -> Option<String> {
    let error = run.error.as_ref()?;
    Some(format!("{} / {} / {} / seed {}: {error}", run.ensemble, run.method, run.target, run.seed))
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}{}", self.title, if self.quick { " (short form)" } else { "" })?;
        for ensemble in self.ensembles() {
            let figure = self.figure(ensemble);
            let sticks = self.yardsticks(ensemble, figure).into_iter();
            let spreads: Vec<String> =
                sticks.map(|(name, spread)| format!("{name} {}", figure.shown(spread.mean))).collect();
            writeln!(f, "\n{ensemble}: {}\n", spreads.join(", "))?;
            let mut rows: Vec<Vec<String>> = self.cells(ensemble).iter().map(|cell| cell.row(figure)).collect();
            rows.insert(0, HEADS.iter().map(|head| (*head).to_owned()).collect());
            columns(f, &rows)?;
        }
        for failed in self.runs.iter().filter_map(failure) {
            writeln!(f, "failed: {failed}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(method: &str, seed: u64, error: Option<&str>) -> Run {
        Run {
            ensemble: "two <MLPs>".into(),
            method: method.into(),
            target: "half".into(),
            seed,
            seconds: 1.0,
            report: None,
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn spreads_are_of_the_sample() {
        let spread = Spread::of(&[0.5, 0.52, 0.54]).expect("three values");
        assert_eq!(spread.shown(Figure::Accuracy), "52.00 ± 2.00");
        assert_eq!(spread.shown(Figure::Rmse), "0.5200 ± 0.02000");
        assert_eq!(Spread::of(&[0.5]).expect("one value").shown(Figure::Accuracy), "50.00");
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn failures_are_told_and_the_rest_stands() {
        let mut comparison = Comparison::new("Title".into(), true);
        comparison.runs = vec![run("a", 0, None), run("a", 1, Some("no file")), run("b", 0, None)];
        let text = comparison.to_string();
        assert!(text.contains("failed: two <MLPs> / a / half / seed 1: no file"), "{text}");
        assert!(text.contains("0 of 2") && text.contains("(short form)"), "{text}");
        let page = comparison.page();
        assert!(page.contains("two &lt;MLPs&gt;") && page.contains("no file") && !page.contains("two <MLPs>"));
    }
}
