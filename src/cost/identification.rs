//! What it takes to decide between the networks that fit.

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decider {
    /// A member's own logits for some inputs.
    Reference,
    /// The known accuracies of the members on the test split.
    Accuracies,
    /// The labels of the train split.
    Labels,
}

/// Inputs that a reference has at least.
pub const FEWEST_INPUTS: usize = 16;

/// Inputs of a reference on which all networks are tried; those that are far off are not run on the others.
pub const SCREENED_INPUTS: usize = 2;

/// Test examples of the first look at accuracies, in which networks drop out that are far off.
pub const FIRST_LOOK: usize = 1000;

/// Labelled examples of the rounds in which networks that are clearly behind drop out.
pub const ROUNDS: [usize; 4] = [48, 192, 768, 2048];

/// Networks that have dropped out and are run as the other members, too.
pub const RIVALS: usize = 5;

/// One network in so many is taken to stay from round to round.
const STAYS: usize = 3;

/// Forward passes of one example that deciding between `candidates` networks of `members` members takes, as far as it can be known
/// before: `train` and `test` examples are there.
#[must_use]
pub fn passes(decider: Decider, candidates: usize, members: usize, train: usize, test: usize) -> u64 {
    let stay = candidates.div_ceil(STAYS);
    let passes = match decider {
        Decider::Reference => candidates * SCREENED_INPUTS + stay * FEWEST_INPUTS,
        Decider::Accuracies => candidates * test.min(FIRST_LOOK) + stay * members * test,
        Decider::Labels => {
            let left = |round: usize| (0..round).fold(candidates, |left, _| left.div_ceil(STAYS));
            let rounds = ROUNDS.iter().enumerate().map(|(round, examples)| left(round) * train.min(*examples));
            let last = train.min(ROUNDS[ROUNDS.len() - 1]);
            rounds.sum::<usize>() + members * (left(ROUNDS.len()) + RIVALS) * last
        }
    };
    passes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_networks_and_more_examples_take_longer_up_to_the_last_round() {
        let labels = |candidates, train| passes(Decider::Labels, candidates, 2, train, 0);
        assert!(labels(100, 2048) > labels(10, 2048));
        assert!(labels(100, 500) < labels(100, 2048));
        assert_eq!(labels(100, 50_000), labels(100, 2048));
        assert_eq!(passes(Decider::Reference, 9, 2, 0, 0), 9 * 2 + 3 * 16);
        assert_eq!(passes(Decider::Accuracies, 9, 2, 0, 400), 9 * 400 + 3 * 2 * 400);
    }
}
