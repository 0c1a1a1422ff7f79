//! What a comparison comes to, in a sentence for each size: which method does best, and what is level with it.

use std::fmt::Write;

use super::Comparison;
use super::cells::{Cell, Spread};
use crate::domain::score::significant;
use crate::report::figure::Figure;
use crate::report::{CandidateKind, Report};

/// Standard errors that a difference must have to be more than chance.
const CLEAR: f64 = 2.0;

/// A figure and its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub(super) mean: f64,
    /// None where nothing says how far the figure may be off.
    pub(super) error: Option<f64>,
}

/// Where one figure stands beside another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Above,
    Level,
    Below,
}

impl Estimate {
    /// Of a mean over seeds on `examples` examples. Its error is the larger of two: the standard deviation over the seeds by the root of their
    /// number, where there are several, and that of a share of so many examples. Networks that are measured on the same examples
    /// differ by less than the latter, so what is found to be more than chance is.
    pub(super) fn of(spread: Spread, figure: Figure, examples: usize) -> Self {
        let seeds = (spread.count > 1).then(|| spread.deviation / (spread.count as f64).sqrt());
        let share = spread.mean.clamp(0.0, 1.0);
        let drawn =
            (figure == Figure::Accuracy && examples > 0).then(|| (share * (1.0 - share) / examples as f64).sqrt());
        Self { mean: spread.mean, error: seeds.into_iter().chain(drawn).reduce(f64::max) }
    }

    /// The difference to another, positive where this one does better.
    fn over(self, other: Self, figure: Figure) -> Self {
        let difference = if figure.is_gain() { self.mean - other.mean } else { other.mean - self.mean };
        Self { mean: difference, error: self.error.zip(other.error).map(|(a, b)| a.hypot(b)) }
    }

    /// Where a difference leaves this one.
    fn standing(self) -> Standing {
        match self.error {
            Some(error) if self.mean > CLEAR * error => Standing::Above,
            Some(error) if self.mean < -CLEAR * error => Standing::Below,
            _ => Standing::Level,
        }
    }

    /// A difference in words.
    fn difference(self, figure: Figure) -> String {
        let Self { mean, error } = self;
        let unit = if figure.is_share() { " points" } else { "" };
        let number = |value: f64| if figure.is_share() { format!("{:.2}", value * 100.0) } else { significant(value) };
        let sign = if mean >= 0.0 { "+" } else { "" };
        match error {
            Some(error) => format!("{sign}{} ± {}{unit}", number(mean), number(error)),
            None => format!("{sign}{}{unit}, error not known from one seed", number(mean)),
        }
    }
}

impl Comparison {
    /// A sentence for each target of the ensemble, in the order of the plan.
    pub(super) fn verdicts(&self, ensemble: &str) -> Vec<String> {
        let (ranked, figure) = (self.ranked(ensemble), self.figure(ensemble));
        let examples = ranked.iter().flat_map(Cell::reports).map(Report::measured).max().unwrap_or(0);
        let sticks = self.yardsticks(ensemble, figure);
        let best_member = sticks.iter().find(|(name, _)| *name == "best member").map(|(_, spread)| *spread);
        let best_member = best_member.map(|spread| Estimate::of(Spread { count: 1, ..spread }, figure, examples));
        let mut targets: Vec<&str> = Vec::new();
        for cell in self.cells(ensemble) {
            if !targets.contains(&cell.target) {
                targets.push(cell.target);
            }
        }
        let of_target = |target: &&str| {
            let measured = ranked.iter().filter(|cell| cell.target == *target).filter_map(|cell| {
                let spread = cell.figure(&[CandidateKind::Fused], figure)?;
                Some(Contender { method: cell.method, estimate: Estimate::of(spread, figure, examples) })
            });
            verdict(&format!("{ensemble}, {target}"), &measured.collect::<Vec<_>>(), best_member, figure)
        };
        targets.iter().filter_map(of_target).collect()
    }
}

/// A method with its figure.
#[derive(Debug, Clone, Copy)]
struct Contender<'a> {
    method: &'a str,
    estimate: Estimate,
}

/// What methods, the best first, come to beside each other and beside the best member; none where nothing was measured.
fn verdict(place: &str, ranked: &[Contender<'_>], best_member: Option<Estimate>, figure: Figure) -> Option<String> {
    let (best, others) = ranked.split_first()?;
    let mut text =
        format!("{place}: {} has the best {}, {}", best.method, figure.name(), figure.shown(best.estimate.mean));
    let level = |other: &&Contender<'_>| best.estimate.over(other.estimate, figure).standing() == Standing::Level;
    let level: Vec<&str> = others.iter().filter(level).map(|other| other.method).collect();
    if let Some(second) = others.first().filter(|_| level.is_empty()) {
        let difference = best.estimate.over(second.estimate, figure).difference(figure);
        let _infallible = write!(text, ", above {} ({difference})", second.method);
    } else if !level.is_empty() {
        text.extend([", level with ", &level.join(", ")]);
    }
    if let Some(member) = best_member {
        let over = best.estimate.over(member, figure);
        let stands = match over.standing() {
            Standing::Above => "above",
            Standing::Level => "level with",
            Standing::Below => "below",
        };
        let _infallible = write!(text, "; {stands} the best member ({})", over.difference(figure));
    }
    Some(text + ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(method: &str, mean: f64, error: Option<f64>) -> Contender<'_> {
        Contender { method, estimate: Estimate { mean, error } }
    }

    #[test]
    fn an_error_is_the_larger_of_that_of_seeds_and_of_examples() {
        let spread = Spread { mean: 0.5, deviation: 0.04, count: 4 };
        let error = |spread, figure, examples| Estimate::of(spread, figure, examples).error;
        assert_eq!(error(spread, Figure::Accuracy, 10_000), Some(0.02));
        assert_eq!(error(spread, Figure::Accuracy, 100), Some(0.05));
        let single = Spread { count: 1, ..spread };
        assert_eq!(error(single, Figure::Accuracy, 100), Some(0.05));
        assert_eq!(error(single, Figure::Rmse, 100), None);
    }

    #[test]
    fn the_best_is_above_only_what_it_clearly_beats() {
        let member = Some(Estimate { mean: 0.90, error: Some(0.01) });
        let clear = [contender("ours", 0.95, Some(0.01)), contender("paper", 0.91, Some(0.01))];
        assert_eq!(
            verdict("two, half", &clear, member, Figure::Accuracy).as_deref(),
            Some(
                "two, half: ours has the best accuracy, 95.00 %, above paper (+4.00 ± 1.41 points); above the best member (+5.00 ± 1.41 points)."
            )
        );
        let close = [contender("ours", 0.92, Some(0.01)), contender("paper", 0.91, Some(0.01))];
        let text = verdict("two, half", &close, member, Figure::Accuracy).expect("figures");
        assert!(text.contains("level with paper; level with the best member (+2.00"), "{text}");
        let worse = [contender("ours", 0.80, Some(0.01))];
        let text = verdict("two, half", &worse, member, Figure::Accuracy).expect("figures");
        assert!(text.contains("; below the best member (-10.00 ± 1.41 points)"), "{text}");
        assert_eq!(verdict("two", &[], member, Figure::Accuracy), None);
    }

    #[test]
    fn errors_of_numbers_are_better_where_they_are_lower() {
        let runs = [contender("ours", 0.1, Some(0.01)), contender("paper", 0.2, Some(0.01))];
        let text = verdict("two", &runs, None, Figure::Rmse).expect("figures");
        assert!(text.contains("above paper (+0.1"), "{text}");
        let single = [contender("ours", 0.1, None), contender("paper", 0.2, None)];
        let text = verdict("two", &single, None, Figure::Rmse).expect("figures");
        assert!(text.ends_with("level with paper."), "{text}");
    }
}
