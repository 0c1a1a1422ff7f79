//! Many runs side by side: methods, targets and seeds on one or several ensembles.

mod cells;
mod page;
mod verdict;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Report;
use super::table::columns;

/// One run of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ComparisonRun)]
pub struct Run {
    /// Its job; none without a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    pub job: Option<String>,
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

impl Comparison {
    /// Without runs yet.
    #[must_use]
    pub fn new(title: String, quick: bool) -> Self {
        Self { title, engraft_version: env!("CARGO_PKG_VERSION").to_owned(), quick, runs: Vec::new() }
    }
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
            writeln!(f, "\n{ensemble}: {}", spreads.join(", "))?;
            for verdict in self.verdicts(ensemble) {
                writeln!(f, "{verdict}")?;
            }
            writeln!(f)?;
            let mut rows: Vec<Vec<String>> = self.ranked(ensemble).iter().map(|cell| cell.row(figure)).collect();
            rows.insert(0, cells::HEADS.iter().map(|head| (*head).to_owned()).collect());
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
            job: None,
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
    fn failures_are_told_and_the_rest_stands() {
        let mut comparison = Comparison::new("Title".into(), true);
        comparison.runs = vec![run("a", 0, None), run("a", 1, Some("no file")), run("b", 0, None)];
        let text = comparison.to_string();
        assert!(text.contains("failed: two <MLPs> / a / half / seed 1: no file"), "{text}");
        assert!(text.contains("0 of 2") && text.contains("(short form)"), "{text}");
        comparison.runs[2].job = Some("job_1".to_owned());
        let page = comparison.page();
        assert!(
            page.contains("<a href=\"../../jobs/job_1\">0</a>") && page.contains("<title>Comparison: Title</title>")
        );
        assert!(page.contains("two &lt;MLPs&gt;") && page.contains("no file") && !page.contains("two <MLPs>"));
    }
}
