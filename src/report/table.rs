//! The report as text for a terminal.

use std::fmt;

use super::{CandidateReport, Kind, Report};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 7]> = self.candidates.iter().map(row).collect();
        let head = ["", "validation", "test", "parameters", "MACs", "size", "latency"].map(str::to_owned);
        let widths: [usize; 7] =
            std::array::from_fn(|i| rows.iter().chain([&head]).map(|row| row[i].chars().count()).max().unwrap_or(0));
        for row in std::iter::once(&head).chain(&rows) {
            write!(f, "{:<1$}", row[0], widths[0])?;
            for (cell, width) in row.iter().zip(widths).skip(1) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        if let Some(kept) = self.ensemble_gain_kept {
            writeln!(f, "\nThe fused model keeps {:.0} % of what the ensemble gains over a member.", kept * 100.0)?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

fn row(candidate: &CandidateReport) -> [String; 7] {
    let percent = |score: Option<crate::job::protocol::Score>| {
        score.map_or("-".to_owned(), |score| format!("{:.2} %", score.accuracy * 100.0))
    };
    let name = match candidate.kind {
        Kind::Member => candidate.name.clone(),
        Kind::Ensemble => "ensemble".to_owned(),
        Kind::Average => "average of weights".to_owned(),
        Kind::FusedUncompensated => "fused, uncompensated".to_owned(),
        Kind::FusedZeroShot => "fused, untrained".to_owned(),
        Kind::Fused => "fused".to_owned(),
    };
    [
        name,
        percent(candidate.validation),
        percent(candidate.test),
        scaled(candidate.parameters as f64, 1000.0, ["", " k", " M", " G"]),
        scaled(candidate.macs as f64, 1000.0, ["", " k", " M", " G"]),
        scaled(candidate.bytes as f64, 1024.0, [" B", " KiB", " MiB", " GiB"]),
        candidate.latency_ms.map_or("-".to_owned(), |latency| format!("{latency:.3} ms")),
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
