//! A comparison as a page that needs nothing else.

use std::fmt::Write;

use super::cells::{Cell, HEADS, Spread};
use super::{Comparison, Run, failure};
use crate::report::CandidateKind;
use crate::report::figure::Figure;
use crate::report::html::charts::{self, CLASSES, Dot, Series};
use crate::report::html::parts::{self, escape, html_table};

/// Place of the column of links, behind what tells rows apart.
const LINKS: usize = 2;

impl Comparison {
    /// The comparison as a page that needs nothing else.
    #[must_use]
    pub fn page(&self) -> String {
        let mut body = String::new();
        for ensemble in self.ensembles() {
            for verdict in self.verdicts(ensemble) {
                body.extend(["<p class=lead>", &escape(&verdict), "</p>"]);
            }
        }
        let runs = self.runs.len();
        let form = if self.quick { ", the plan's short form" } else { "" };
        let version = escape(&self.engraft_version);
        let _infallible = write!(body, "<p class=facts>{runs} runs{form} &middot; engraft {version}</p>");
        let failed: Vec<String> = self.runs.iter().filter_map(failure).collect();
        if !failed.is_empty() {
            body += "<section class=warnings><h2>Failed</h2><ul>";
            body += &parts::items(&failed);
            body += "</ul></section>";
        }
        for ensemble in self.ensembles() {
            body += &self.section(ensemble);
        }
        parts::document(&format!("Comparison: {}", self.title), &body)
    }

    fn section(&self, ensemble: &str) -> String {
        let (cells, figure) = (self.ranked(ensemble), self.figure(ensemble));
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
        let mut heads = HEADS.map(str::to_owned).to_vec();
        let is_on_a_server = cells.iter().flat_map(|cell| &cell.runs).any(|run| run.job.is_some());
        if is_on_a_server {
            heads.insert(LINKS, "jobs by seed".to_owned());
        }
        let row = |cell: &Cell<'_>| {
            let mut row: Vec<String> = cell.row(figure).iter().map(|text| escape(text)).collect();
            if is_on_a_server {
                row.insert(LINKS, links(&cell.runs));
            }
            row
        };
        let rows: Vec<Vec<String>> = cells.iter().map(row).collect();
        let curves: Vec<Series> = cells.iter().zip(CLASSES).map(|(cell, class)| curve(cell, class, figure)).collect();
        let trained = curves.iter().any(|series| series.points.len() > 1);
        let curves = if trained {
            let chart = charts::lines(&curves, figure.is_share());
            format!("<figure><figcaption>{} by epoch</figcaption>{chart}</figure>", figure.title())
        } else {
            String::new()
        };
        format!(
            "<section><h2>{}</h2>{}{}<p class=note>{}{}; means over seeds, bars show one standard deviation. The best comes first; where there are several, its figure is rather too high.</p>{}{curves}\
             </section>",
            escape(&format!("{} of the ensemble \u{201c}{ensemble}\u{201d}", figure.title())),
            self.members(ensemble),
            charts::dots(&dots, figure),
            figure.title(),
            if figure.is_share() { " in percent" } else { "" },
            html_table(&heads, &rows, |row| row == 0)
        )
    }

    /// Whom the ensemble is of.
    fn members(&self, ensemble: &str) -> String {
        let mut reports = self.runs.iter().filter(|run| run.ensemble == ensemble).filter_map(|run| run.report.as_ref());
        let Some(report) = reports.next() else { return String::new() };
        let data = report.identity.dataset.as_ref().map_or_else(String::new, |file| format!("; data: {}", file.name));
        format!("<p class=note>{}</p>", escape(&format!("Members: {}{data}", report.members.join(", "))))
    }
}

/// The reports of the runs' jobs, by their addresses beside the page.
fn links(runs: &[&Run]) -> String {
    let link = |run: &&Run| {
        let job = escape(run.job.as_ref()?);
        let page = if run.report.is_some() { "/report.html" } else { "" };
        Some(format!("<a href=\"../../jobs/{job}{page}\">{}</a>", run.seed))
    };
    runs.iter().filter_map(link).collect::<Vec<_>>().join(" ")
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
