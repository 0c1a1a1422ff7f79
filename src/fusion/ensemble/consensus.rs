//! How the members' logits become the ensemble's outputs.

use super::shares::Shares;
use crate::kernels::{element_loss, loss};

/// How strongly a member's uncertainty about an input counts against it: b in `exp(-b H)`, H in nats.
const SHARPNESS: f64 = 4.0;

/// What is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mixture {
    /// Logits: the concatenated network computes it.
    #[default]
    Logits,
    /// Probabilities.
    Probabilities,
    /// Probabilities of labels, each by the sigmoid of its logit.
    LabelProbabilities,
    /// Probabilities, each member's on an input by `exp(-b H)` of its entropy H there.
    Entropy,
}

/// The rule by which the outputs of several members become those of the ensemble.
#[derive(Debug, Clone, PartialEq)]
pub struct Consensus {
    /// What is added up.
    pub mixture: Mixture,
    /// How much each member counts.
    pub shares: Shares,
    /// Number of classes.
    pub classes: usize,
}

impl Consensus {
    /// Adds what a member's `logits` (examples x classes) contribute to the `sum`, from zeros when it is empty. Members come
    /// in any order, each once; [`Self::finish`] ends the sum.
    pub fn add(&self, sum: &mut Vec<f32>, member: usize, logits: &[f32], temperature: f64) {
        sum.resize(logits.len(), 0.0);
        self.add_to(sum, member, logits, temperature);
    }

    /// As [`Self::add`], to a sum that has its length.
    pub fn add_to(&self, sum: &mut [f32], member: usize, logits: &[f32], temperature: f64) {
        let share = self.shares.members()[member];
        match self.mixture {
            Mixture::Logits if self.shares.weigh_classes() => {
                let factors: Vec<f32> = (0..self.classes).map(|class| self.shares.of(member, class) as f32).collect();
                for (sum, logits) in sum.chunks_exact_mut(self.classes).zip(logits.chunks_exact(self.classes)) {
                    sum.iter_mut().zip(logits).zip(&factors).for_each(|((sum, logit), factor)| *sum += factor * logit);
                }
            }
            Mixture::Logits => {
                let share = share as f32;
                sum.iter_mut().zip(logits).for_each(|(sum, logit)| *sum += share * logit);
            }
            Mixture::Probabilities => loss::add_probabilities(sum, logits, self.classes, temperature, |_| share),
            Mixture::LabelProbabilities => element_loss::add_sigmoids(sum, logits, temperature, share),
            Mixture::Entropy => {
                let sure = |row: &[f32]| share * (-SHARPNESS * loss::entropy(row)).exp();
                loss::add_probabilities(sum, logits, self.classes, temperature, sure);
            }
        }
    }

    /// Makes logits t of the sum: `softmax(t / temperature)` are the ensemble's probabilities. Each is known up to a constant of its
    /// example. Of labels it is `sigmoid(t / temperature)`.
    pub fn finish(&self, sum: &mut [f32], temperature: f64) {
        match self.mixture {
            Mixture::Logits => {}
            Mixture::Probabilities | Mixture::Entropy => loss::logits_of(sum, temperature),
            Mixture::LabelProbabilities => element_loss::binary_logits_of(sum, temperature),
        }
    }

    /// The ensemble's logits from those of all members, at temperature 1.
    #[must_use]
    pub fn of(&self, members: &[Vec<f32>]) -> Vec<f32> {
        let mut sum = Vec::new();
        members.iter().enumerate().for_each(|(member, logits)| self.add(&mut sum, member, logits, 1.0));
        self.finish(&mut sum, 1.0);
        sum
    }
}

/// Least mean probability that a member's share of a class is computed with.
const LEAST: f64 = 1e-3;

/// The mean probability that each member (outer) gives each class (inner), at least [`LEAST`].
#[must_use]
pub fn mean_probabilities(members: &[Vec<f32>], classes: usize) -> Vec<Vec<f64>> {
    let of_member = |logits: &Vec<f32>| {
        let examples = logits.len() / classes.max(1);
        let mut sums = vec![0.0_f64; classes];
        for row in logits.chunks_exact(classes) {
            loss::probabilities(row, |class, probability| sums[class] += probability);
        }
        sums.into_iter().map(|sum| (sum / examples.max(1) as f64).max(LEAST)).collect()
    };
    members.iter().map(of_member).collect()
}

/// Each member's factor in each class: its part of the probability that all members give the class, `means` by member, by
/// their shares in general. Of sum 1 in each class.
#[must_use]
pub fn class_shares(means: &[Vec<f64>], shares: &[f64]) -> Vec<Vec<f64>> {
    let classes = means.first().map_or(0, Vec::len);
    let total = |class: usize| means.iter().zip(shares).map(|(own, share)| share * own[class]).sum::<f64>();
    let totals: Vec<f64> = (0..classes).map(total).collect();
    let of_member = |(own, share): (&Vec<f64>, &f64)| own.iter().zip(&totals).map(|(p, all)| share * p / all).collect();
    means.iter().zip(shares).map(of_member).collect()
}

/// How differently the members spread their probability: the median over the classes of the highest mean probability over the
/// lowest. Members that were trained on like data have about 1.1, members that each saw some classes more than others 1.4 and
/// above.
#[must_use]
pub fn spread(means: &[Vec<f64>]) -> f64 {
    let classes = means.first().map_or(0, Vec::len);
    let ratio = |class: usize| {
        let of_class = || means.iter().map(|own| own[class]);
        of_class().fold(0.0, f64::max) / of_class().fold(f64::INFINITY, f64::min)
    };
    let mut ratios: Vec<f64> = (0..classes).map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    match ratios.len() {
        0 => 1.0,
        count if count % 2 == 1 => ratios[count / 2],
        count => f64::midpoint(ratios[count / 2 - 1], ratios[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consensus(mixture: Mixture, shares: Shares) -> Consensus {
        Consensus { mixture, shares, classes: 3 }
    }

    fn softmax(row: &[f32]) -> Vec<f64> {
        let mut all = vec![0.0; row.len()];
        loss::probabilities(row, |class, p| all[class] = p);
        all
    }

    /// Two members, one sure and one not, on two inputs.
    fn members() -> Vec<Vec<f32>> {
        vec![vec![4.0, 0.0, -1.0, 0.1, 0.2, 0.3], vec![0.2, 0.5, 0.1, -3.0, 5.0, 0.0]]
    }

    #[test]
    fn logits_are_added_by_member_or_by_class() {
        let members = members();
        let mean = consensus(Mixture::Logits, Shares::of_members(vec![0.25, 0.75])).of(&members);
        assert!((mean[0] - (0.25 * 4.0 + 0.75 * 0.2)).abs() < 1e-6);
        let by_class = Shares::of_classes(vec![vec![1.0, 0.0, 0.5], vec![0.0, 1.0, 0.5]]);
        let sum = consensus(Mixture::Logits, by_class).of(&members);
        assert_eq!(sum[..3], [4.0, 0.5, -0.45]);
    }

    #[test]
    fn by_entropy_the_surer_member_counts_more() {
        let members = members();
        let equal = || Shares::of_members(vec![0.5, 0.5]);
        for (mixture, b) in [(Mixture::Probabilities, 0.0), (Mixture::Entropy, SHARPNESS)] {
            let got = consensus(mixture, equal()).of(&members);
            for (example, got) in got.chunks(3).enumerate() {
                let rows: Vec<Vec<f64>> =
                    members.iter().map(|logits| softmax(&logits[example * 3..example * 3 + 3])).collect();
                let entropy = |p: &[f64]| -p.iter().map(|p| p * p.ln()).sum::<f64>();
                let weights: Vec<f64> = rows.iter().map(|row| (-b * entropy(row)).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (class, got) in softmax(got).into_iter().enumerate() {
                    let expected: f64 = rows.iter().zip(&weights).map(|(row, w)| w / total * row[class]).sum();
                    assert!((got - expected).abs() < 1e-6, "{mixture:?}: {got} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_teacher_is_softened_after_its_members_are_weighed() {
        let (members, t) = (members(), 2.0);
        let rule = consensus(Mixture::Entropy, Shares::of_members(vec![0.5, 0.5]));
        let mut sum = Vec::new();
        members.iter().enumerate().for_each(|(index, logits)| rule.add(&mut sum, index, logits, t));
        rule.finish(&mut sum, t);
        let soft = |row: &[f32]| softmax(&row.iter().map(|x| x / 2.0).collect::<Vec<_>>());
        let weight = |row: &[f32]| (-SHARPNESS * loss::entropy(row)).exp();
        let (a, b) = (&members[0][..3], &members[1][..3]);
        let (wa, wb) = (weight(a), weight(b));
        for (class, got) in soft(&sum[..3]).into_iter().enumerate() {
            let expected = (wa * soft(a)[class] + wb * soft(b)[class]) / (wa + wb);
            assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        }
    }

    #[test]
    fn shares_of_classes_follow_the_probability_that_members_give_them() {
        // One member that only ever names class 0, and one that names 1 and 2.
        let members = vec![vec![9.0, 0.0, 0.0, 8.0, 0.0, 0.0], vec![0.0, 9.0, 0.0, 0.0, 0.0, 9.0]];
        let means = mean_probabilities(&members, 3);
        let shares = class_shares(&means, &[0.5, 0.5]);
        assert!(shares[0][0] > 0.99 && shares[1][1] > 0.99);
        (0..3).for_each(|class| assert!((shares[0][class] + shares[1][class] - 1.0).abs() < 1e-12));
        assert!(spread(&means) > 100.0);
        let alike = spread(&mean_probabilities(&[members[0].clone(), members[0].clone()], 3));
        assert!((alike - 1.0).abs() < 1e-12);
    }
}
