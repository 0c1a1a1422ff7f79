//! Scores, counted up example by example.

use crate::domain::score::{Measures, OutputScore, Score};
use crate::kernels::loss::{is_right, truth_loss};
use crate::kernels::truth::Truth;

/// Standard errors on each side of an estimate that hold 95 % of a normal distribution.
const NORMAL_95: f64 = 1.96;

/// A running score.
#[derive(Debug, Default)]
pub struct RunningScore {
    loss: f64,
    losses: Moments,
    counts: Counts,
}

/// What is counted of the outputs, by the kind of what they should be.
#[derive(Debug, Default)]
enum Counts {
    #[default]
    None,
    Right(usize),
    Labels {
        exact: usize,
        /// Share of labels that are right, by example.
        shares: Moments,
        labels: Vec<Confusion>,
    },
    Numbers(Vec<NumberCounts>),
}

/// Of one label, how often it was there and was predicted.
#[derive(Debug, Clone, Copy, Default)]
struct Confusion {
    both: usize,
    only_there: usize,
    only_predicted: usize,
}

/// Of one output.
#[derive(Debug, Clone, Copy, Default)]
struct NumberCounts {
    squared_error: f64,
    truths: Moments,
}

/// Mean and spread of a stream of values (Welford 1962).
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: usize,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let off = value - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (value - self.mean);
    }

    /// Of the mean; none of fewer than two values.
    fn standard_error(&self) -> Option<f64> {
        let count = self.count as f64;
        (self.count > 1).then(|| (self.squares / (count - 1.0) / count).sqrt())
    }
}

impl Confusion {
    fn f1(self) -> f64 {
        let of = 2 * self.both + self.only_there + self.only_predicted;
        if of == 0 { 0.0 } else { (2 * self.both) as f64 / of as f64 }
    }
}

impl NumberCounts {
    fn r2(&self) -> Option<f64> {
        (self.truths.squares > 0.0).then(|| 1.0 - self.squared_error / self.truths.squares)
    }
}

impl RunningScore {
    /// Counts an example. What it should be has a value for each of `outputs`.
    pub fn add(&mut self, outputs: &[f32], truth: Truth<'_>) {
        let loss = truth_loss(outputs, truth);
        self.loss += loss;
        self.losses.add(loss);
        match truth {
            Truth::Class(_) | Truth::Flags([_]) => {
                let right = usize::from(is_right(outputs, truth));
                match &mut self.counts {
                    Counts::Right(count) => *count += right,
                    other => *other = Counts::Right(right),
                }
            }
            Truth::Flags(flags) => self.add_flags(outputs, flags),
            Truth::Numbers(numbers) => self.add_numbers(outputs, numbers),
        }
    }

    fn add_flags(&mut self, outputs: &[f32], flags: &[f32]) {
        if !matches!(self.counts, Counts::Labels { .. }) {
            let labels = vec![Confusion::default(); flags.len()];
            self.counts = Counts::Labels { exact: 0, shares: Moments::default(), labels };
        }
        let Counts::Labels { exact, shares, labels } = &mut self.counts else { return };
        let mut wrong = 0;
        for ((label, output), flag) in labels.iter_mut().zip(outputs).zip(flags) {
            match (*output > 0.0, *flag > 0.5) {
                (true, true) => label.both += 1,
                (true, false) => label.only_predicted += 1,
                (false, true) => label.only_there += 1,
                (false, false) => {}
            }
            wrong += usize::from((*output > 0.0) != (*flag > 0.5));
        }
        *exact += usize::from(wrong == 0);
        shares.add(1.0 - wrong as f64 / flags.len().max(1) as f64);
    }

    fn add_numbers(&mut self, outputs: &[f32], numbers: &[f32]) {
        if !matches!(self.counts, Counts::Numbers(_)) {
            self.counts = Counts::Numbers(vec![NumberCounts::default(); numbers.len()]);
        }
        let Counts::Numbers(counts) = &mut self.counts else { return };
        for ((counts, output), number) in counts.iter_mut().zip(outputs).zip(numbers) {
            let (output, number) = (f64::from(*output), f64::from(*number));
            counts.squared_error += (output - number).powi(2);
            counts.truths.add(number);
        }
    }

    fn examples(&self) -> f64 {
        self.losses.count as f64
    }

    /// The score so far.
    #[must_use]
    pub fn score(&self) -> Score {
        let examples = self.examples();
        let loss = self.loss / examples;
        let measures = match &self.counts {
            Counts::None => Measures::Classes { accuracy: 0.0 },
            Counts::Right(correct) => Measures::Classes { accuracy: *correct as f64 / examples },
            Counts::Labels { exact, shares, labels } => Measures::Labels {
                label_accuracy: shares.mean,
                exact_match: *exact as f64 / examples,
                macro_f1: labels.iter().map(|label| label.f1()).sum::<f64>() / labels.len().max(1) as f64,
            },
            Counts::Numbers(counts) => {
                let known: Vec<f64> = counts.iter().filter_map(NumberCounts::r2).collect();
                let r2 = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
                Measures::Numbers { rmse: loss.sqrt(), r2 }
            }
        };
        Score { measures, loss }
    }

    /// How well each output does; none where they decide together.
    #[must_use]
    pub fn outputs(&self) -> Option<Vec<OutputScore>> {
        let examples = self.examples();
        let label = |counts: &Confusion| OutputScore::Label {
            accuracy: 1.0 - (counts.only_there + counts.only_predicted) as f64 / examples,
            f1: counts.f1(),
        };
        let number = |counts: &NumberCounts| OutputScore::Number {
            rmse: (counts.squared_error / examples).sqrt(),
            r2: counts.r2(),
        };
        match &self.counts {
            Counts::None | Counts::Right(_) => None,
            Counts::Labels { labels, .. } => Some(labels.iter().map(label).collect()),
            Counts::Numbers(counts) => Some(counts.iter().map(number).collect()),
        }
    }

    /// Standard error of the mean loss; none of fewer than two examples.
    #[must_use]
    pub fn loss_standard_error(&self) -> Option<f64> {
        self.losses.standard_error()
    }

    /// The 95 % interval of the share of right labels, or of the RMSE, whose squared errors are taken as normal; none where examples are
    /// right or wrong.
    #[must_use]
    pub fn interval(&self) -> Option<[f64; 2]> {
        let around = |mean: f64, error: f64| [mean - NORMAL_95 * error, mean + NORMAL_95 * error];
        match &self.counts {
            Counts::None | Counts::Right(_) => None,
            Counts::Labels { shares, .. } => {
                Some(around(shares.mean, shares.standard_error()?).map(|end| end.clamp(0.0, 1.0)))
            }
            Counts::Numbers(_) => {
                Some(around(self.losses.mean, self.losses.standard_error()?).map(|end| end.max(0.0).sqrt()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-6, "{got} for {expected}");
    }

    /// ```python
    /// import numpy as np
    /// from sklearn.metrics import r2_score
    /// y, p = np.array([[1, 2], [2, 0], [4, 1.]]), np.array([[1.5, 2], [2, 1], [3, 1]])
    /// e = ((p - y) ** 2).mean(1)
    /// print(np.sqrt(e.mean()), r2_score(y, p), r2_score(y, p, multioutput="raw_values"))
    /// h = 1.96 * e.std(ddof=1) / np.sqrt(3); print(np.sqrt(max(0, e.mean() - h)), np.sqrt(e.mean() + h))
    /// ```
    #[test]
    fn numbers_are_scored_as_scikit_learn_does() {
        let mut running = RunningScore::default();
        for (outputs, numbers) in [([1.5, 2.0], [1.0, 2.0]), ([2.0, 1.0], [2.0, 0.0]), ([3.0, 1.0], [4.0, 1.0])] {
            running.add(&outputs, Truth::Numbers(&numbers));
        }
        let Measures::Numbers { rmse, r2 } = running.score().measures else { panic!("numbers") };
        close(rmse, 0.612_372_435_7);
        close(r2.expect("a spread"), 0.616_071_428_6);
        let outputs = running.outputs().expect("two outputs");
        let [OutputScore::Number { r2: Some(first), .. }, OutputScore::Number { r2: Some(second), .. }] = outputs[..]
        else {
            panic!("{outputs:?}")
        };
        close(first, 0.732_142_857_1);
        close(second, 0.5);
        let [low, high] = running.interval().expect("three examples");
        close(low, 0.360_555_127_5);
        close(high, 0.787_400_787_4);
        let mut same = RunningScore::default();
        same.add(&[1.0], Truth::Numbers(&[2.0]));
        assert_eq!(same.score().measures, Measures::Numbers { rmse: 1.0, r2: None });
    }

    /// `sklearn.metrics.f1_score([[1, 0, 0], [1, 1, 0], [0, 1, 0]], [[1, 1, 0], [1, 0, 0], [0, 1, 0]], average="macro")` is 0.5.
    #[test]
    fn labels_are_scored_as_scikit_learn_does() {
        let mut running = RunningScore::default();
        for (outputs, flags) in [
            ([2.0, 1.0, -1.0], [1.0, 0.0, 0.0]),
            ([0.5, -1.0, -1.0], [1.0, 1.0, 0.0]),
            ([-0.5, 1.0, 0.0], [0.0, 1.0, 0.0]),
        ] {
            running.add(&outputs, Truth::Flags(&flags));
        }
        let Measures::Labels { label_accuracy, exact_match, macro_f1 } = running.score().measures else {
            panic!("labels")
        };
        close(label_accuracy, 7.0 / 9.0);
        close(exact_match, 1.0 / 3.0);
        close(macro_f1, 0.5);
        let outputs = running.outputs().expect("three labels");
        assert_eq!(outputs[2], OutputScore::Label { accuracy: 1.0, f1: 0.0 });
        let mut binary = RunningScore::default();
        binary.add(&[0.0], Truth::Flags(&[0.0]));
        binary.add(&[-1.0], Truth::Flags(&[1.0]));
        assert_eq!(binary.score().accuracy(), Some(0.5));
    }
}
