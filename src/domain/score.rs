//! How well a network does on one split.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::PartialSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

/// Accuracy, or R², that a network may lose before it counts as led away.
pub const MOST_LOST: f64 = 0.1;

/// How well a network does on one split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What it is judged by.
    #[serde(flatten)]
    pub measures: Measures,
    /// Mean loss: cross-entropy in nats (of several labels the mean over them), or mean squared error.
    pub loss: f64,
}

/// What a network is judged by, beside its loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Measures {
    /// Of classes, or of one label.
    Classes {
        /// Share of examples whose highest logit is the label's, or whose logit is on the right side of 0, in [0, 1].
        accuracy: f64,
    },
    /// Of several labels, each set where its logit is above 0.
    Labels {
        /// Share of all labels of all examples that are right, in [0, 1].
        label_accuracy: f64,
        /// Share of examples whose labels are all right, in [0, 1].
        exact_match: f64,
        /// Mean of the labels' F1, in [0, 1]; that of a label that neither is nor is predicted is 0.
        macro_f1: f64,
    },
    /// Of numbers.
    Numbers {
        /// Root of the mean squared error over all examples and outputs, in the unit of the numbers.
        rmse: f64,
        /// Mean of the outputs' coefficients of determination; none where no output's numbers differ.
        r2: Option<f64>,
    },
}

/// How well one output of several does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum OutputScore {
    /// A label's.
    Label {
        /// Share of examples on which it is right, in [0, 1].
        accuracy: f64,
        /// Its F1, in [0, 1]; 0 where it neither is nor is predicted.
        f1: f64,
    },
    /// A number's.
    Number {
        /// Root of the mean squared error, in the unit of the number.
        rmse: f64,
        /// Coefficient of determination; none where the number is always the same.
        r2: Option<f64>,
    },
}

/// How well a network does on one split: its loss, and what its task is judged by.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "stands for a score in the description, where generators of clients want plain objects; never made"
)]
struct ScoreFields {
    /// Mean loss: cross-entropy in nats (of several labels the mean over them), or mean squared error.
    loss: f64,
    /// Share of examples that are right, in [0, 1]; of classes, or of one label.
    accuracy: Option<f64>,
    /// Share of all labels of all examples that are right, in [0, 1]; of several labels.
    label_accuracy: Option<f64>,
    /// Share of examples whose labels are all right, in [0, 1]; of several labels.
    exact_match: Option<f64>,
    /// Mean of the labels' F1, in [0, 1]; of several labels.
    macro_f1: Option<f64>,
    /// Root of the mean squared error over all examples and outputs, in the unit of the numbers.
    rmse: Option<f64>,
    /// Mean of the outputs' coefficients of determination; null where no output's numbers differ.
    r2: Option<f64>,
}

impl PartialSchema for Score {
    fn schema() -> RefOr<Schema> {
        ScoreFields::schema()
    }
}

impl utoipa::ToSchema for Score {}

impl Score {
    /// Of a network that decides.
    #[must_use]
    pub fn of_classes(accuracy: f64, loss: f64) -> Self {
        Self { measures: Measures::Classes { accuracy }, loss }
    }

    /// Share of examples that are right, in [0, 1]; none where several labels or numbers are predicted.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        if let Measures::Classes { accuracy } = self.measures { Some(accuracy) } else { None }
    }

    /// Mean of the outputs' coefficients of determination; none of other tasks than numbers.
    #[must_use]
    pub fn r2(&self) -> Option<f64> {
        if let Measures::Numbers { r2, .. } = self.measures { r2 } else { None }
    }

    /// What networks are chosen by, higher is better, value by value: accuracy, then loss; of several labels and of numbers the loss
    /// alone.
    #[must_use]
    pub fn rank(&self) -> [f64; 2] {
        match self.measures {
            Measures::Classes { accuracy } => [accuracy, -self.loss],
            Measures::Labels { .. } | Measures::Numbers { .. } => [-self.loss, 0.0],
        }
    }

    /// The first of what networks are chosen by.
    #[must_use]
    pub fn merit(&self) -> f64 {
        self.rank()[0]
    }

    /// Whether it beats `other`.
    #[must_use]
    pub fn is_better_than(&self, other: &Self) -> bool {
        let ([first, second], [other_first, other_second]) = (self.rank(), other.rank());
        first > other_first || first >= other_first && second > other_second
    }

    /// Whether more was lost against `best` than what is forgotten on examples that were learned from: [`MOST_LOST`] of accuracy (of
    /// several labels that of all labels) or of R².
    #[must_use]
    pub fn is_led_away_from(&self, best: &Self) -> bool {
        let share = |score: &Self| match score.measures {
            Measures::Classes { accuracy } => Some(accuracy),
            Measures::Labels { label_accuracy, .. } => Some(label_accuracy),
            Measures::Numbers { r2, .. } => r2,
        };
        share(self).zip(share(best)).is_some_and(|(own, best)| own < best - MOST_LOST)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.measures {
            Measures::Classes { accuracy } => write!(f, "{:.2} %", accuracy * 100.0),
            Measures::Labels { label_accuracy, macro_f1, .. } => {
                write!(f, "{:.2} % of labels, macro F1 {macro_f1:.3}", label_accuracy * 100.0)
            }
            Measures::Numbers { rmse, r2 } => {
                write!(f, "RMSE {}", significant(rmse))?;
                r2.map_or(Ok(()), |r2| write!(f, ", R² {r2:.3}"))
            }
        }
    }
}

/// A figure of unknown size with four digits that count.
#[must_use]
pub fn significant(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if (1e-4..1e7).contains(&size) => {
            let digits = (3 - size.log10().floor() as i32).max(0) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(rmse: f64, r2: f64) -> Score {
        Score { measures: Measures::Numbers { rmse, r2: Some(r2) }, loss: rmse * rmse }
    }

    #[test]
    fn each_task_has_its_words_and_its_order() {
        let labels = |label_accuracy: f64, loss: f64| Score {
            measures: Measures::Labels { label_accuracy, exact_match: 0.25, macro_f1: 0.5 },
            loss,
        };
        assert_eq!(Score::of_classes(0.545, 1.0).to_string(), "54.50 %");
        assert_eq!(numbers(0.123_456, 0.91).to_string(), "RMSE 0.1235, R² 0.910");
        assert_eq!(labels(0.9, 0.1).to_string(), "90.00 % of labels, macro F1 0.500");
        assert!(Score::of_classes(0.6, 9.0).is_better_than(&Score::of_classes(0.5, 0.1)));
        assert!(Score::of_classes(0.5, 0.1).is_better_than(&Score::of_classes(0.5, 0.2)));
        assert!(!Score::of_classes(0.5, 0.1).is_better_than(&Score::of_classes(0.5, 0.1)));
        assert!(
            labels(0.8, 0.1).is_better_than(&labels(0.9, 0.2)) && numbers(1.0, 0.1).is_better_than(&numbers(2.0, 0.5))
        );
        assert!(
            numbers(2.0, 0.7).is_led_away_from(&numbers(1.0, 0.9))
                && !numbers(2.0, 0.85).is_led_away_from(&numbers(1.0, 0.9))
        );
    }

    #[test]
    fn classifiers_keep_their_json() {
        let text = serde_json::to_string(&Score::of_classes(0.5, 2.25)).expect("JSON");
        assert_eq!(text, r#"{"accuracy":0.5,"loss":2.25}"#);
        for score in [Score::of_classes(0.5, 2.25), numbers(0.5, 0.25)] {
            let json = serde_json::to_value(score).expect("JSON");
            assert_eq!(serde_json::from_value::<Score>(json).expect("a score"), score);
        }
    }

    #[test]
    fn figures_keep_four_digits() {
        let shown = [123_456.7, 1234.5, 0.123_45, 0.000_012_345, 0.0, -2.0].map(significant);
        assert_eq!(shown, ["123457", "1234", "0.1235", "1.234e-5", "0", "-2.000"]);
    }
}
