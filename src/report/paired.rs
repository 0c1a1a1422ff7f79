//! The published network beside another one on the same examples: by how much it is better, and whether that is chance.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::CandidateKind;

/// The level that a difference must reach after the correction for several comparisons.
const LEVEL: f64 = 0.05;

/// The published network beside another candidate, example by example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PairedTest {
    /// The other candidate.
    pub against: CandidateKind,
    /// Its name.
    pub name: String,
    /// Examples that both were measured on.
    pub examples: usize,
    /// Of these, only the published network is right; where nothing is right or wrong, its loss is the lower one.
    pub only_fused: usize,
    /// Only the other one is; or its loss is lower.
    pub only_other: usize,
    /// Whether losses were compared: the sign test.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_loss: bool,
    /// Probability of a difference as large where both are equally good: exact and two-sided (`McNemar` 1947; of losses the sign
    /// test, which counts examples and not by how much they differ).
    pub p: f64,
    /// The same, corrected for the number of comparisons (Holm 1979).
    pub adjusted_p: f64,
}

/// Where the published network stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairedOutcome {
    /// It is better, and not by chance.
    Above,
    /// Chance explains the difference.
    Level,
    /// It is worse, and not by chance.
    Below,
}

/// How a network does on each example.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcomes {
    /// Whether it is right.
    Right(Vec<bool>),
    /// Its loss, where nothing is right or wrong.
    Losses(Vec<f64>),
}

impl Outcomes {
    /// Number of examples.
    fn len(&self) -> usize {
        match self {
            Self::Right(right) => right.len(),
            Self::Losses(losses) => losses.len(),
        }
    }

    /// On how many examples each does better than the other.
    fn ahead(&self, other: &Self) -> [usize; 2] {
        match (self, other) {
            (Self::Right(own), Self::Right(other)) => discordant(own, other),
            (Self::Losses(own), Self::Losses(other)) => {
                let less = |a: &[f64], b: &[f64]| a.iter().zip(b).filter(|(a, b)| a < b).count();
                [less(own, other), less(other, own)]
            }
            _ => [0, 0],
        }
    }
}

impl PairedTest {
    /// Compares how both do on each example.
    #[must_use]
    pub fn of(against: CandidateKind, name: String, fused: &Outcomes, other: &Outcomes) -> Self {
        let [only_fused, only_other] = fused.ahead(other);
        let p = two_sided(only_fused.min(only_other), only_fused + only_other);
        let by_loss = matches!(fused, Outcomes::Losses(_));
        Self { against, name, examples: fused.len(), only_fused, only_other, by_loss, p, adjusted_p: p }
    }

    /// Corrects the probabilities of all comparisons of a report.
    pub fn adjust(tests: &mut [Self]) {
        let mut order: Vec<usize> = (0..tests.len()).collect();
        order.sort_by(|a, b| tests[*a].p.total_cmp(&tests[*b].p));
        let mut highest: f64 = 0.0;
        for (rank, index) in order.iter().enumerate() {
            highest = highest.max((tests[*index].p * (tests.len() - rank) as f64).min(1.0));
            tests[*index].adjusted_p = highest;
        }
    }

    /// Difference of the accuracies, or of the shares of examples on which each has less loss, in [-1, 1].
    #[must_use]
    pub fn difference(&self) -> f64 {
        (self.only_fused as f64 - self.only_other as f64) / self.examples.max(1) as f64
    }

    /// Standard error of that difference.
    #[must_use]
    pub fn standard_error(&self) -> f64 {
        let discordant = (self.only_fused + self.only_other) as f64 / self.examples.max(1) as f64;
        ((discordant - self.difference().powi(2)).max(0.0) / self.examples.max(1) as f64).sqrt()
    }

    /// Where the published network stands.
    #[must_use]
    pub fn standing(&self) -> PairedOutcome {
        match self.difference() {
            difference if self.adjusted_p >= LEVEL || difference == 0.0 => PairedOutcome::Level,
            difference if difference > 0.0 => PairedOutcome::Above,
            _ => PairedOutcome::Below,
        }
    }
}

impl fmt::Display for PairedTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stands = match self.standing() {
            PairedOutcome::Above => "above",
            PairedOutcome::Level => "level with",
            PairedOutcome::Below => "below",
        };
        if self.by_loss {
            let Self { name, examples, only_fused, only_other, .. } = self;
            let p = shown(self.adjusted_p);
            return write!(
                f,
                "{stands} {name} (less loss on {only_fused} of {examples} examples, more on {only_other}, p {p})"
            );
        }
        let (difference, error) = (self.difference() * 100.0, self.standard_error() * 100.0);
        write!(f, "{stands} {} ({difference:+.2} ± {error:.2} points, p {})", self.name, shown(self.adjusted_p))
    }
}

/// On how many examples only the first is right, and only the second.
#[must_use]
pub fn discordant(first: &[bool], second: &[bool]) -> [usize; 2] {
    let only = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && !**b).count();
    [only(first, second), only(second, first)]
}

/// A probability for a reader.
fn shown(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("= {p:.3}") }
}

/// The probability that, of `all` fair coins, no more than `fewer` or no fewer than `all - fewer` show heads.
fn two_sided(fewer: usize, all: usize) -> f64 {
    // Terms relative to the largest, in the logarithm: binomials of thousands exceed every float.
    let mut logarithm = -(all as f64) * std::f64::consts::LN_2;
    let mut sum = logarithm.exp();
    for k in 1..=fewer {
        logarithm += ((all - k + 1) as f64 / k as f64).ln();
        sum += logarithm.exp();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(only_fused: usize, only_other: usize) -> PairedTest {
        let flags = |count: usize, flag: bool| std::iter::repeat_n(flag, count);
        let fused: Vec<bool> =
            flags(only_fused, true).chain(flags(only_other, false)).chain(flags(900, true)).collect();
        let other: Vec<bool> =
            flags(only_fused, false).chain(flags(only_other, true)).chain(flags(900, true)).collect();
        let [fused, other] = [fused, other].map(Outcomes::Right);
        PairedTest::of(CandidateKind::BestMember, "the best member m1".to_owned(), &fused, &other)
    }

    #[test]
    fn losses_are_compared_by_their_signs() {
        let [fused, other] =
            [vec![0.5, 0.1, 0.3, 0.2, 0.0, 0.1], vec![0.6, 0.2, 0.3, 0.1, 0.2, 0.4]].map(Outcomes::Losses);
        let test = PairedTest::of(CandidateKind::BestMember, "m".to_owned(), &fused, &other);
        assert_eq!((test.only_fused, test.only_other, test.examples), (4, 1, 6));
        // scipy.stats.binomtest(1, 5).pvalue is 0.375.
        assert!((test.p - 0.375).abs() < 1e-12, "{}", test.p);
        assert_eq!(test.to_string(), "level with m (less loss on 4 of 6 examples, more on 1, p = 0.375)");
    }

    #[test]
    fn probabilities_are_those_of_the_binomial_distribution() {
        // P(X <= 1 | 10) = 11 / 1024.
        assert!((test(9, 1).p - 22.0 / 1024.0).abs() < 1e-12);
        assert_eq!((test(5, 5).p, test(0, 0).p), (1.0, 1.0));
        // scipy.stats.binomtest(240, 500).pvalue and binomtest(4800, 10000).pvalue.
        assert!((test(240, 260).p - 0.395_511).abs() < 1e-6, "{}", test(240, 260).p);
        assert!(two_sided(4_800, 10_000) < 7e-5 && two_sided(4_800, 10_000) > 6e-5);
    }

    #[test]
    fn several_comparisons_are_corrected() {
        let mut tests = [test(60, 30), test(30, 29), test(55, 32)];
        let p: Vec<f64> = tests.iter().map(|test| test.p).collect();
        PairedTest::adjust(&mut tests);
        assert!((tests[0].adjusted_p - 3.0 * p[0]).abs() < 1e-12 && (tests[2].adjusted_p - 2.0 * p[2]).abs() < 1e-12);
        assert!(tests[1].adjusted_p > 0.999);
        let standing = tests.each_ref().map(PairedTest::standing);
        assert_eq!(standing, [PairedOutcome::Above, PairedOutcome::Level, PairedOutcome::Above]);
        assert_eq!(test(10, 70).standing(), PairedOutcome::Below);
    }

    #[test]
    fn a_sentence_says_by_how_much() {
        assert_eq!(test(60, 20).to_string(), "above the best member m1 (+4.08 ± 0.90 points, p < 0.001)");
        assert_eq!(test(31, 29).to_string(), "level with the best member m1 (+0.21 ± 0.81 points, p = 0.897)");
    }
}
