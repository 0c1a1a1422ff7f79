//! The report as text for a terminal.

use std::fmt::{self, Write};

use super::figure::Figure;
use super::usage::Usage;
use super::{CandidateKind, CandidateReport, Choice, Computation, Gain, PairedTest, Report};
use crate::domain::epoch_choice::EpochChoice;
use crate::domain::score::Score;

/// Heads of the comparison's columns.
pub(super) const HEADS: [&str; 9] =
    ["", "validation", "test", "calibration error", "as ensemble", "parameters", "MACs", "size", "latency"];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = self.identity.to_string();
        if !identity.is_empty() {
            writeln!(f, "{identity}")?;
        }
        if let Some(evidence) = self.evidence.as_ref().filter(|evidence| evidence.degree.is_doubtful()) {
            writeln!(f, "the network is {}, not certain: {}\n", evidence.degree.name(), evidence.why)?;
        }
        if let Some(headline) = self.headline() {
            writeln!(f, "{headline}\n")?;
        }
        if let Some(reason) = self.unmeasured() {
            writeln!(f, "{reason}\n")?;
        }
        if !self.candidates.is_empty() {
            columns(f, &filled(&self.candidates.iter().map(|row| cells(row, self)).collect::<Vec<_>>()))?;
        }
        if let Some(gain) = Gain::of(&self.candidates, self.measured()) {
            writeln!(f, "\n{gain}")?;
        }
        if let Some(ensemble) = &self.ensemble {
            writeln!(f, "\n{ensemble}")?;
        }
        if let Some(choice) = &self.choice {
            writeln!(f, "\n{choice}")?;
        }
        if let Some(recovery) = &self.recovery {
            writeln!(f, "\n{recovery}")?;
        }
        if let Some(published) = &self.published {
            writeln!(f, "\n{published}")?;
        }
        if let Some(computation) = self.on_gpu() {
            writeln!(f, "\n{computation}")?;
        }
        self.origin(f)?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        if let Some(usage) = Usage::of(self) {
            writeln!(f, "\nto use it:")?;
            let commands = usage.commands.iter().map(|command| format!("  $ {command}"));
            let python = usage.python.lines().map(|line| format!("  {line}"));
            for line in commands.chain(python) {
                writeln!(f, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }
}

/// What a report comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Headline {
    /// Beside the best member.
    pub(super) first: String,
    /// Beside what as much training makes of that member; none where nothing was trained.
    pub(super) controls: Option<String>,
}

impl fmt::Display for Headline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first)?;
        self.controls.as_ref().map_or(Ok(()), |controls| write!(f, " {controls}"))
    }
}

impl Report {
    /// What it was computed with, where that was a GPU.
    pub(super) fn on_gpu(&self) -> Option<&Computation> {
        self.computation.as_ref().filter(|computation| computation.versions.is_some())
    }

    /// Where the published network stands beside the best member, which comes first, and the controls; none where it was not
    /// compared with them.
    pub(super) fn headline(&self) -> Option<Headline> {
        let tests: Vec<String> = self.paired.iter().map(PairedTest::to_string).collect();
        let (first, others) = tests.split_first()?;
        let nothing = self.choice.as_ref().is_some_and(Choice::keeps_a_member);
        let lead = match &self.published {
            Some(published) => format!(
                "The fused model is {}, {}: transplanting brought less on examples that no member has seen. ",
                published.member,
                published.how()
            ),
            None if nothing => "Fusion brought nothing without training. ".to_owned(),
            None => String::new(),
        };
        let controls = others.split_last().map(|(last, others)| {
            let all = if others.is_empty() { last.clone() } else { format!("{}, and {last}", others.join(", ")) };
            format!("It is {all}.")
        });
        Some(Headline { first: format!("{lead}The fused model is {first}."), controls })
    }

    /// Why there are no figures of how well networks do, where there are none.
    pub(super) fn unmeasured(&self) -> Option<&'static str> {
        match (self.measured(), self.examples.train) {
            (0, 0) => Some("Not measured: the job had no dataset."),
            (0, _) => Some(
                "Not measured: there were no labelled examples to measure on, so nothing says how well the fused model does. Name some as \
                 `dataset.test`.",
            ),
            _ => None,
        }
    }

    /// Examples of the split that figures are judged by.
    pub(super) fn measured(&self) -> usize {
        if self.examples.test > 0 { self.examples.test } else { self.examples.validation }
    }

    /// Which member the kept units of each group came from.
    fn origin(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.origins();
        let members = groups.first().map_or(0, |(_, kept)| kept.len());
        if members < 2 {
            return Ok(());
        }
        let mut rows =
            vec![std::iter::once("kept units".to_owned()).chain((0..members).map(|i| format!("m{i}"))).collect()];
        rows.extend(groups.iter().map(|(name, kept)| {
            std::iter::once((*name).to_owned()).chain(kept.iter().map(usize::to_string)).collect::<Vec<_>>()
        }));
        writeln!(f)?;
        columns(f, &rows)
    }

    /// Why the published epoch was chosen, after a comma; empty without training.
    pub(super) fn epoch_reason(&self) -> String {
        if self.examples.validation == 0 && self.best_epoch.is_some() {
            return ", the last one, since there is no validation split".to_owned();
        }
        let last = self.epochs.len().saturating_sub(1);
        let reason = |(epoch, choice): (usize, EpochChoice)| format!(", {}", choice.reason(epoch, last));
        self.best_epoch.zip(self.epoch_choice).map_or_else(String::new, reason)
    }

    /// Every coupling group once, with the number of units that it took from each member; none where units were averaged.
    pub(super) fn origins(&self) -> Vec<(&str, &[usize])> {
        let mut groups: Vec<(&str, &[usize])> = Vec::new();
        for layer in &self.layers {
            let Some(group) = layer.plan.group.as_deref() else { continue };
            if !layer.kept_per_member.is_empty() && groups.iter().all(|(name, _)| *name != group) {
                groups.push((group, &layer.kept_per_member));
            }
        }
        groups
    }
}

/// The rows below their heads, without the columns in which no row has anything.
pub(super) fn filled(rows: &[[String; 9]]) -> Vec<Vec<String>> {
    let is_filled = |column: usize| column == 0 || rows.iter().any(|row| row[column] != "-");
    let kept: Vec<usize> = (0..HEADS.len()).filter(|column| is_filled(*column)).collect();
    let heads = HEADS.map(str::to_owned);
    let all = std::iter::once(&heads).chain(rows);
    all.map(|row| kept.iter().map(|column| row[*column].clone()).collect()).collect()
}

/// A table whose first column is aligned to the left, the others to the right.
pub(super) fn columns(f: &mut impl fmt::Write, rows: &[impl AsRef<[String]>]) -> fmt::Result {
    let count = rows.first().map_or(0, |row| row.as_ref().len());
    let width = |i: usize| rows.iter().map(|row| row.as_ref()[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    for row in rows {
        let row = row.as_ref();
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            write!(line, "  {cell:>width$}")?;
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A candidate in words.
pub(super) fn title(candidate: &CandidateReport) -> String {
    match candidate.kind {
        CandidateKind::Member => candidate.name.clone(),
        CandidateKind::BestMember => format!("best member ({})", candidate.name),
        CandidateKind::Ensemble => "ensemble".to_owned(),
        CandidateKind::Vote => "ensemble by vote".to_owned(),
        CandidateKind::Average => "average of weights".to_owned(),
        CandidateKind::OptimalTransport => "optimal transport".to_owned(),
        CandidateKind::PermutationAlignment => "permutation alignment".to_owned(),
        CandidateKind::NeuronInterpolation => "neuron interpolation".to_owned(),
        CandidateKind::TrainedOn => format!("{}, trained on", candidate.name),
        CandidateKind::Distilled => format!("{}, distilled", candidate.name),
        CandidateKind::FusedUncompensated => "fused, uncompensated".to_owned(),
        CandidateKind::FusedZeroShot => "fused, untrained".to_owned(),
        CandidateKind::Transplanted => "transplanted".to_owned(),
        CandidateKind::Fused => "fused".to_owned(),
    }
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// The cells of a row, as [`HEADS`] says.
pub(super) fn cells(candidate: &CandidateReport, report: &Report) -> [String; 9] {
    let (examples, figure) = (report.examples, Figure::of(report.task));
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
    let shown = |score: Option<Score>, count| or_dash(score.map(|score| figure.estimate(&score, count)));
    [
        title(candidate),
        shown(candidate.validation, examples.validation),
        shown(candidate.test, examples.test),
        or_dash(candidate.calibration_error.map(percent)),
        or_dash(candidate.agreement.map(percent)),
        scaled(candidate.parameters as f64, 1000.0, ["", " k", " M", " G"]),
        scaled(candidate.macs as f64, 1000.0, ["", " k", " M", " G"]),
        scaled(candidate.bytes as f64, 1024.0, [" B", " KiB", " MiB", " GiB"]),
        or_dash(candidate.latency_ms.map(|latency| format!("{latency:.3} ms"))),
    ]
}

/// Three significant digits and a unit.
pub(crate) fn scaled(value: f64, step: f64, units: [&str; 4]) -> String {
    let mut value = value;
    let mut units = units.iter();
    let mut unit = units.next().unwrap_or(&"");
    while value >= step {
        let Some(larger) = units.next() else { break };
        (value, unit) = (value / step, larger);
    }
    let digits = match value {
        value if value >= 100.0 || value.fract() == 0.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::scaled;

    #[test]
    fn numbers_keep_three_digits() {
        let units = ["", " k", " M", " G"];
        assert_eq!(scaled(512.0, 1000.0, units), "512");
        assert_eq!(scaled(933_888.0, 1000.0, units), "934 k");
        assert_eq!(scaled(1_234_567.0, 1000.0, units), "1.23 M");
        assert_eq!(scaled(5e13, 1000.0, units), "50000 G");
    }
}
