//! What the ranking `auto` tried, and why it kept what it kept.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::score::Score;
use crate::settings::Importance;

/// Several fusions of the same members to the same size, and the one that was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Choice {
    /// What they were judged by.
    pub by: Yardstick,
    /// On how many examples.
    pub examples: usize,
    /// All of them, the earlier one before its equals.
    pub tried: Vec<Tried>,
    /// Position of the one that was kept.
    pub kept: usize,
    /// Whether `css` chose the same units as `magnitude`, and was not tried by itself.
    pub same_units: bool,
    /// Position of the network that training started from, where that is another than the kept one: one whose layers are all mixed learns
    /// more than a member, which has been trained to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 1)]
    pub started_from: Option<usize>,
}

/// What fusions are judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Yardstick {
    /// Accuracy on the validation split, among equals the loss; of several labels and numbers the loss alone.
    Validation,
    /// Divergence from the ensemble's probabilities on inputs that nothing was fitted to, where there is no validation split.
    Divergence,
    /// Distance of the only output from the ensemble's, where there are no classes.
    Distance,
}

/// One fusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Tried {
    /// How units were ranked.
    pub importance: Importance,
    /// Whether the layers behind them were refitted; magnitude without is the paper's own method.
    pub compensated: bool,
    /// The member that it is but for some layers; none where all layers are mixed.
    #[serde(default)]
    pub base: Option<MemberBase>,
    /// On the validation split.
    pub validation: Option<Score>,
    /// Mean Kullback-Leibler divergence from the ensemble's probabilities in nats, or mean squared difference of the logits over the
    /// mean square of the ensemble's.
    pub distance: Option<f64>,
}

/// A network that is one member in its first layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MemberBase {
    /// The member.
    pub member: String,
    /// The groups whose units come from all members; with none of them at most the output layer is another.
    pub mixed: Vec<String>,
    /// Whether it is the member alone, pruned to the size of the fused network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_pruned: bool,
}

impl Choice {
    /// Whether the loss on the validation split is what was judged, where nothing is right or wrong.
    #[must_use]
    pub fn judges_loss(&self) -> bool {
        self.tried.iter().filter_map(|tried| tried.validation).any(|score| score.accuracy().is_none())
    }

    /// Whether a member was kept as it is.
    #[must_use]
    pub fn keeps_a_member(&self) -> bool {
        self.tried.get(self.kept).is_some_and(|kept| kept.base.is_some() && !kept.compensated)
    }

    /// The best of those whose layers are all mixed.
    #[must_use]
    pub fn best_mixed(&self) -> usize {
        let mixed = self.tried.iter().enumerate().filter(|(_, tried)| tried.base.is_none());
        let best = mixed.reduce(|best, other| if best.1.rank().lt(&other.1.rank()) { other } else { best });
        best.map_or(self.kept, |(index, _)| index)
    }

    /// Judges what was tried: the first of the best is kept. A figure that is not a number is the worst.
    #[must_use]
    pub fn new(by: Yardstick, examples: usize, tried: Vec<Tried>, same_units: bool) -> Self {
        let mut kept = 0;
        for (index, other) in tried.iter().enumerate() {
            if tried[kept].rank().lt(&other.rank()) {
                kept = index;
            }
        }
        Self { by, examples, tried, kept, same_units, started_from: None }
    }

    /// From which network training starts, where that is another than the kept one.
    #[must_use]
    pub fn start(&self) -> Option<String> {
        let (start, kept) = (self.tried.get(self.started_from?)?, self.tried.get(self.kept)?);
        Some(format!(
            "training starts from another network: {}, {}, whose layers are all mixed and learn more than those of {}, the best without \
             training",
            start.name(),
            self.figure(start),
            kept.name()
        ))
    }

    /// The figure that one was judged by, for a reader.
    #[must_use]
    pub fn figure(&self, tried: &Tried) -> String {
        match (self.by, tried.validation, tried.distance) {
            (Yardstick::Validation, Some(score), _) => format!("{score} (loss {:.4})", score.loss),
            (_, _, Some(distance)) => format!("{distance:.4}"),
            _ => "not measured".to_owned(),
        }
    }
}

impl Tried {
    /// What was done, in words.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.base {
            Some(MemberBase { member, mixed, .. }) if !mixed.is_empty() => {
                format!("{member}, mixed in {}", mixed.join(", "))
            }
            Some(MemberBase { member, is_pruned: true, .. }) => {
                format!("{member} alone, pruned by {}, refitted", self.importance.as_str())
            }
            Some(MemberBase { member, .. }) if self.compensated => format!("{member}, its output layer refitted"),
            Some(MemberBase { member, .. }) => format!("{member} as it is"),
            None if self.compensated => format!("{}, refitted", self.importance.as_str()),
            None => format!("{}, as in the paper", self.importance.as_str()),
        }
    }

    /// Higher is better, value by value.
    fn rank(&self) -> [f64; 2] {
        let orderly = |value: f64| if value.is_nan() { f64::NEG_INFINITY } else { value };
        match (self.validation, self.distance) {
            (Some(score), _) => score.rank().map(orderly),
            (None, distance) => [orderly(-distance.unwrap_or(f64::NAN)), 0.0],
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(best) = self.tried.get(self.kept) else { return Ok(()) };
        let (what, better) = match self.by {
            Yardstick::Validation if self.judges_loss() => ("loss on the validation split", "least"),
            Yardstick::Validation => ("accuracy on the validation split", "highest"),
            Yardstick::Divergence => ("divergence from the ensemble's probabilities", "least"),
            Yardstick::Distance => ("distance of the logits from the ensemble's", "least"),
        };
        write!(
            f,
            "`auto` kept {}: {}, the {better} {what} ({} examples)",
            best.name(),
            self.figure(best),
            self.examples
        )?;
        for other in self.tried.iter().enumerate().filter(|(index, _)| *index != self.kept).map(|(_, other)| other) {
            write!(f, "; {}: {}", other.name(), self.figure(other))?;
        }
        if self.same_units {
            write!(f, "; css chose the same units")?;
        }
        self.start().map_or(Ok(()), |start| write!(f, ". {}{}", start[..1].to_uppercase(), &start[1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(importance: Importance, compensated: bool, figures: (f64, f64)) -> Tried {
        let validation = Some(Score::of_classes(figures.0, figures.1));
        Tried { importance, compensated, base: None, validation, distance: None }
    }

    #[test]
    fn the_highest_accuracy_is_kept_then_the_lowest_loss_then_the_first() {
        let kept = |figures: [(f64, f64); 3]| {
            let [a, b, c] = figures;
            let all = vec![
                tried(Importance::Magnitude, true, a),
                tried(Importance::Css, true, b),
                tried(Importance::Magnitude, false, c),
            ];
            Choice::new(Yardstick::Validation, 100, all, false).kept
        };
        assert_eq!(kept([(0.5, 1.0), (0.6, 9.0), (0.4, 0.1)]), 1);
        assert_eq!(kept([(0.5, 1.0), (0.5, 0.9), (0.5, 0.8)]), 2);
        assert_eq!(kept([(0.5, 1.0), (0.5, 1.0), (0.5, 1.0)]), 0);
        assert_eq!(kept([(0.5, f64::NAN), (0.5, 7.0), (f64::NAN, 0.1)]), 1);
        assert_eq!(kept([(f64::NAN, 1.0), (f64::NAN, 1.0), (0.1, f64::NAN)]), 2);
    }

    #[test]
    fn a_member_may_win_and_training_still_starts_from_the_mixed_ones() {
        let member = |compensated, mixed: &[&str], accuracy| Tried {
            base: Some(MemberBase {
                member: "m1".to_owned(),
                mixed: mixed.iter().map(|name| (*name).to_owned()).collect(),
                is_pruned: false,
            }),
            ..tried(Importance::Css, compensated, (accuracy, 1.0))
        };
        let mixed = || [tried(Importance::Magnitude, true, (0.5, 1.0)), tried(Importance::Css, true, (0.55, 1.0))];
        let of = |others: Vec<Tried>| {
            Choice::new(Yardstick::Validation, 100, mixed().into_iter().chain(others).collect(), false)
        };
        let won = of(vec![member(true, &[], 0.6), member(true, &["fc2"], 0.61), member(false, &[], 0.62)]);
        assert_eq!((won.kept, won.best_mixed(), won.keeps_a_member()), (4, 1, true));
        let text = won.to_string();
        assert!(text.contains("kept m1 as it is: 62.00 %") && text.contains("m1, mixed in fc2: 61.00 %"), "{text}");
        assert!(text.contains("m1, its output layer refitted"), "{text}");
        let trained = Choice { started_from: Some(1), ..won };
        let start = "Training starts from another network: css, refitted, 55.00 % (loss 1.0000), whose layers are all mixed and learn more \
                     than those of m1 as it is, the best without training";
        assert!(trained.to_string().ends_with(start), "{trained}");
        let lost = of(vec![member(true, &["fc2"], 0.61), member(false, &[], 0.5)]);
        assert_eq!((lost.kept, lost.best_mixed(), lost.keeps_a_member()), (2, 1, false));
    }

    #[test]
    fn without_labels_the_least_distance_is_kept_and_the_reason_is_told() {
        let tried = |importance, compensated, distance| Tried {
            importance,
            compensated,
            base: None,
            validation: None,
            distance: Some(distance),
        };
        let all = vec![tried(Importance::Magnitude, true, 0.25), tried(Importance::Css, true, 0.125)];
        let choice = Choice::new(Yardstick::Distance, 50, all, false);
        assert_eq!(
            choice.to_string(),
            "`auto` kept css, refitted: 0.1250, the least distance of the logits from the ensemble's (50 examples); \
             magnitude, refitted: 0.2500"
        );
    }
}
