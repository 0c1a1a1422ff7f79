//! Which epoch's weights a training ends with.

use serde::{Deserialize, Serialize};

use crate::domain::progress::EpochMetrics;

/// Which epoch's weights a training ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EpochChoice {
    /// The best on the validation split: highest accuracy, then lowest loss (of several labels and numbers the loss alone), then the
    /// earliest. Without a split, the last one.
    Best,
    /// The last one, or the best where the last one lost more than [`crate::domain::score::MOST_LOST`] against it: for a validation
    /// split of which the network may have seen the examples before its training. It remembers them best before its first
    /// step: it forgets more than it learns there while it gets better on all others, and loses as much as that only where
    /// training led away.
    Last,
}

impl EpochChoice {
    /// The epoch that counts of a training with this `history`, whose best one on the validation split is `best`.
    #[must_use]
    pub fn epoch(self, history: &[EpochMetrics], best: usize) -> usize {
        let last = history.len().saturating_sub(1);
        let score = |epoch: usize| history.get(epoch)?.validation;
        match (self, score(last), score(best)) {
            (Self::Best, ..) => best,
            (Self::Last, Some(end), Some(top)) if end.is_led_away_from(&top) => best,
            (Self::Last, ..) => last,
        }
    }

    /// Why `epoch` counts of a training that ended with the epoch `last`.
    #[must_use]
    pub fn reason(self, epoch: usize, last: usize) -> &'static str {
        match self {
            Self::Best => "the best on the validation split",
            Self::Last if epoch == last => {
                "the last one, since the members may have seen the validation split, which then favours the network before training"
            }
            Self::Last => "the best on the validation split, since training lost more than ten points there",
        }
    }
}

/// Whether an epoch beats the best one of `history` on the validation split.
#[must_use]
pub fn is_better(metrics: &EpochMetrics, history: &[EpochMetrics], best: usize) -> bool {
    let best = history.get(best).and_then(|best| best.validation);
    match (metrics.validation, best) {
        (Some(new), Some(best)) => new.is_better_than(&best),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::score::Score;

    /// A training whose validation split gave these accuracies, epoch by epoch.
    fn history(accuracies: &[f64]) -> Vec<EpochMetrics> {
        let epoch = |(epoch, accuracy): (usize, &f64)| EpochMetrics {
            epoch,
            train_loss: None,
            train_accuracy: None,
            validation: Some(Score::of_classes(*accuracy, 1.0 - accuracy)),
            test: None,
            lr: None,
            images_per_s: None,
        };
        accuracies.iter().enumerate().map(epoch).collect()
    }

    #[test]
    fn the_last_epoch_counts_unless_training_led_away() {
        for (accuracies, best, chosen) in [
            (&[0.99, 0.97, 0.98][..], 0, [0, 2]),
            (&[0.99, 0.98, 0.88], 0, [0, 0]),
            (&[0.50, 0.70, 0.60], 1, [1, 2]),
            (&[0.50], 0, [0, 0]),
        ] {
            let history = history(accuracies);
            assert_eq!([EpochChoice::Best, EpochChoice::Last].map(|choice| choice.epoch(&history, best)), chosen);
        }
    }
}
