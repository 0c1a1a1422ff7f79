//! What the fused network keeps of what the ensemble gains over its members, in figures and in words.

use super::{CandidateKind, CandidateReport};
use crate::domain::score::significant;

/// How well networks do on the test split (on the validation split where there is no other), higher is better: accuracies in [0, 1] or,
/// of several labels and numbers, losses with a minus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// Mean of the members.
    pub member: f64,
    /// Of the mean of their logits.
    pub ensemble: f64,
    /// Of the published network.
    pub fused: f64,
    /// Standard error of the ensemble's figure: a smaller gain is chance.
    pub standard_error: f64,
    /// Whether these are losses.
    pub of_losses: bool,
}

impl Gain {
    /// Of these candidates, measured on so many examples; none where one is missing.
    #[must_use]
    pub fn of(candidates: &[CandidateReport], examples: usize) -> Option<Self> {
        let of_kind = |kind: CandidateKind| candidates.iter().filter(move |candidate| candidate.kind == kind);
        let score = |candidate: &CandidateReport| candidate.test.or(candidate.validation);
        let merits =
            |kind: CandidateKind| -> Vec<f64> { of_kind(kind).filter_map(score).map(|score| score.merit()).collect() };
        let members = merits(CandidateKind::Member);
        let (ensemble, fused) = (*merits(CandidateKind::Ensemble).first()?, *merits(CandidateKind::Fused).first()?);
        if members.is_empty() || examples == 0 {
            return None;
        }
        let member = members.iter().sum::<f64>() / members.len() as f64;
        let whole = of_kind(CandidateKind::Ensemble).next()?;
        let of_losses = score(whole)?.accuracy().is_none();
        let standard_error = if of_losses {
            whole.loss_standard_error.unwrap_or(0.0)
        } else {
            (ensemble * (1.0 - ensemble) / examples as f64).sqrt()
        };
        Some(Self { member, ensemble, fused, standard_error, of_losses })
    }

    /// (fused - mean member) / (ensemble - mean member); none where the ensemble's gain is within one standard error of its
    /// accuracy, so that the ratio would be noise.
    #[must_use]
    pub fn kept(&self) -> Option<f64> {
        let gain = self.ensemble - self.member;
        (gain > self.standard_error).then(|| (self.fused - self.member) / gain)
    }
}

impl std::fmt::Display for Gain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.of_losses {
            return self.fmt_losses(f);
        }
        let points = |from: f64, to: f64| format!("{:.2} points", (to - from).abs() * 100.0);
        let side = |from: f64, to: f64| if to < from { "below" } else { "above" };
        let (member, fused, ensemble) = (self.member, self.fused, self.ensemble);
        match self.kept() {
            None => write!(
                f,
                "There is no gain to keep: the ensemble is within chance of its mean member ({} {}). The fused model is {} {} the \
                 mean member.",
                points(member, ensemble),
                side(member, ensemble),
                points(member, fused),
                side(member, fused)
            ),
            Some(kept) if kept < 0.0 => write!(
                f,
                "The fused model keeps nothing of the ensemble's gain: it is {} below the mean member, the ensemble {} above.",
                points(member, fused),
                points(member, ensemble)
            ),
            Some(kept) if kept > 1.0 => write!(
                f,
                "The fused model keeps all of what the ensemble gains over a member ({}) and is {} above the ensemble.",
                points(member, ensemble),
                points(ensemble, fused)
            ),
            Some(kept) => write!(
                f,
                "The fused model keeps {:.0} % of what the ensemble gains over a member: {:.2} of {}.",
                kept * 100.0,
                (fused - member) * 100.0,
                points(member, ensemble)
            ),
        }
    }
}

impl Gain {
    /// In words, where figures are losses.
    fn fmt_losses(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [member, ensemble, fused] = [self.member, self.ensemble, self.fused].map(|merit| significant(-merit));
        let losses = format!("mean losses: member {member}, ensemble {ensemble}, fused {fused}");
        match self.kept() {
            None => write!(f, "There is no gain to keep: the ensemble is within chance of its mean member ({losses})."),
            Some(kept) if kept < 0.0 => {
                write!(
                    f,
                    "The fused model keeps nothing of the ensemble's gain: it does worse than the mean member ({losses})."
                )
            }
            Some(kept) if kept > 1.0 => write!(
                f,
                "The fused model keeps all of what the ensemble gains over a member, and does better than the ensemble ({losses})."
            ),
            Some(kept) => write!(
                f,
                "The fused model keeps {:.0} % of what the ensemble gains over a member ({losses}).",
                kept * 100.0
            ),
        }
    }
}

/// See [`Gain::kept`].
#[must_use]
pub fn gain_kept(candidates: &[CandidateReport], examples: usize) -> Option<f64> {
    Gain::of(candidates, examples)?.kept()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::score::{Measures, Score};

    fn candidate(kind: CandidateKind, accuracy: f64) -> CandidateReport {
        CandidateReport {
            name: "x".into(),
            kind,
            validation: None,
            test: Some(Score::of_classes(accuracy, 1.0)),
            interval: None,
            loss_standard_error: None,
            per_output: None,
            calibration_error: None,
            agreement: None,
            parameters: 1,
            macs: 1,
            bytes: 4,
            top5_accuracy: None,
            per_class_accuracy: None,
            latency_ms: None,
            latency: None,
        }
    }

    fn rows(ensemble: f64, fused: f64) -> [CandidateReport; 4] {
        [
            candidate(CandidateKind::Member, 0.80),
            candidate(CandidateKind::Member, 0.82),
            candidate(CandidateKind::Ensemble, ensemble),
            candidate(CandidateKind::Fused, fused),
        ]
    }

    #[test]
    fn the_share_of_the_gain_is_told_only_where_it_means_something() {
        let kept = gain_kept(&rows(0.85, 0.84), 10_000).expect("a clear gain");
        assert!((kept - 0.75).abs() < 1e-9, "{kept}");
        assert_eq!(
            gain_kept(&rows(0.812, 0.84), 10_000),
            None,
            "a gain of 0.2 points is within one standard error of 0.4"
        );
        assert_eq!(gain_kept(&rows(0.85, 0.84), 0), None);
        assert_eq!(gain_kept(&rows(0.85, 0.84)[2..], 10_000), None, "no members");
    }

    #[test]
    fn of_numbers_the_loss_is_what_is_gained() {
        let rows = |fused: f64, standard_error: f64| {
            let row = |kind: CandidateKind, loss: f64| CandidateReport {
                test: Some(Score { measures: Measures::Numbers { rmse: loss.sqrt(), r2: None }, loss }),
                loss_standard_error: Some(standard_error),
                ..candidate(kind, 0.0)
            };
            [row(CandidateKind::Member, 0.5), row(CandidateKind::Ensemble, 0.3), row(CandidateKind::Fused, fused)]
        };
        let sentence = |fused, error| Gain::of(&rows(fused, error), 100).expect("figures").to_string();
        assert_eq!(
            sentence(0.35, 0.1),
            "The fused model keeps 75 % of what the ensemble gains over a member (mean losses: member 0.5000, ensemble 0.3000, fused \
             0.3500)."
        );
        assert!(sentence(0.6, 0.1).contains("does worse than the mean member"));
        assert!(sentence(0.2, 0.1).contains("does better than the ensemble"));
        assert!(sentence(0.35, 0.3).contains("within chance"));
    }

    #[test]
    fn every_outcome_reads_well() {
        let sentence = |ensemble, fused| Gain::of(&rows(ensemble, fused), 10_000).expect("figures").to_string();
        assert_eq!(
            sentence(0.85, 0.84),
            "The fused model keeps 75 % of what the ensemble gains over a member: 3.00 of 4.00 points."
        );
        assert!(
            sentence(0.85, 0.78)
                .contains("keeps nothing of the ensemble's gain: it is 3.00 points below the mean member")
        );
        assert!(
            sentence(0.85, 0.86)
                .contains("keeps all of what the ensemble gains over a member (4.00 points) and is 1.00 points")
        );
        assert!(
            sentence(0.812, 0.80).contains("(0.20 points above). The fused model is 1.00 points below the mean member")
        );
        assert!(sentence(0.812, 0.83).contains("is 2.00 points above the mean member"));
    }
}
