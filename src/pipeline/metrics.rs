//! Metrics of logits beside accuracy and loss.

use std::borrow::Cow;

use super::load::Subset;
use crate::kernels::loss::{argmax, is_right, truth_loss};
use crate::kernels::truth::Truth;
use crate::settings::PredictionTask;
use crate::train::Examples;

/// Bins of confidence in the calibration error.
const BINS: usize = 15;

/// What `of_example` says of each example of `part`, whose outputs are `outputs` (examples x outputs).
fn each<T>(outputs: &[f32], part: &Subset, of_example: fn(&[f32], Truth<'_>) -> T) -> Vec<T> {
    let width = outputs.len() / part.len().max(1);
    let examples = outputs.chunks_exact(width.max(1)).enumerate();
    examples.map(|(index, outputs)| of_example(outputs, part.truth(index))).collect()
}

/// On which examples of `part` the logits are right.
pub(super) fn right(logits: &[f32], part: &Subset) -> Vec<bool> {
    each(logits, part, is_right)
}

/// The loss on each example of `part`.
pub(super) fn losses(outputs: &[f32], part: &Subset) -> Vec<f64> {
    each(outputs, part, truth_loss)
}

/// Number of classes that a network of so many outputs tells apart: a single logit does with two.
pub(super) fn classes(task: PredictionTask, outputs: usize) -> usize {
    if task == PredictionTask::Binary { 2 } else { outputs }
}

/// Logits with one for each class: beside that of a single logit a 0.
pub(super) fn of_classes(logits: &[f32], task: PredictionTask) -> Cow<'_, [f32]> {
    match task {
        PredictionTask::Binary => Cow::Owned(logits.iter().flat_map(|logit| [0.0, *logit]).collect()),
        _ => Cow::Borrowed(logits),
    }
}

/// The other way round.
pub(super) fn outputs_of(logits: Vec<f32>, task: PredictionTask) -> Vec<f32> {
    match task {
        PredictionTask::Binary => logits.chunks_exact(2).map(|pair| pair[1] - pair[0]).collect(),
        _ => logits,
    }
}

/// Share of all labels that two networks set alike.
pub(super) fn label_agreement(a: &[f32], b: &[f32]) -> Option<f64> {
    let same = a.iter().zip(b).filter(|(a, b)| (**a > 0.0) == (**b > 0.0)).count();
    (a.len() == b.len() && !a.is_empty()).then(|| same as f64 / a.len() as f64)
}

/// Share of examples on which two networks name the same class.
pub(super) fn agreement(a: &[f32], b: &[f32], classes: usize) -> Option<f64> {
    let pairs = || a.chunks_exact(classes.max(1)).zip(b.chunks_exact(classes.max(1)));
    let same = pairs().filter(|(a, b)| argmax(a) == argmax(b)).count();
    (a.len() == b.len() && !a.is_empty()).then(|| same as f64 / pairs().count() as f64)
}

/// Expected calibration error (Guo et al., ICML 2017): the mean difference between confidence and accuracy over bins of
/// confidence, weighted by their sizes; in [0, 1].
pub(super) fn calibration_error(logits: &[f32], labels: impl Iterator<Item = u32>, classes: usize) -> f64 {
    let mut bins = [(0_usize, 0.0_f64, 0_usize); BINS];
    let mut count = 0_usize;
    for (logits, label) in logits.chunks_exact(classes.max(1)).zip(labels) {
        let class = argmax(logits);
        let most = f64::from(logits[class]);
        let confidence = 1.0 / logits.iter().map(|logit| (f64::from(*logit) - most).exp()).sum::<f64>();
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + usize::from(class == label as usize));
        count += 1;
    }
    let error = |(_, confidence, correct): &(usize, f64, usize)| (confidence - *correct as f64).abs();
    bins.iter().map(error).sum::<f64>() / count.max(1) as f64
}

/// How many of the highest logits count as guesses.
const GUESSES: usize = 5;

/// Share of examples whose label is among the five highest logits, the first ones among equals; none of five classes or
/// fewer, where it would always be.
pub(super) fn top5(logits: &[f32], labels: impl Iterator<Item = u32>, classes: usize) -> Option<f64> {
    let (mut right, mut count) = (0_usize, 0_usize);
    for (logits, label) in logits.chunks_exact(classes.max(1)).zip(labels) {
        let (label, own) = (label as usize, logits[label as usize]);
        let before = |(class, logit): (usize, &f32)| *logit > own || (class < label && *logit >= own);
        let ahead = logits.iter().enumerate().filter(|entry| before(*entry)).count();
        (right, count) = (right + usize::from(ahead < GUESSES), count + 1);
    }
    (classes > GUESSES && count > 0).then(|| right as f64 / count as f64)
}

/// Accuracy on the examples of each class; none where a class has no example.
pub(super) fn per_class(logits: &[f32], labels: impl Iterator<Item = u32>, classes: usize) -> Vec<Option<f64>> {
    let mut counts = vec![(0_usize, 0_usize); classes];
    for (logits, label) in logits.chunks_exact(classes.max(1)).zip(labels) {
        let (right, all) = &mut counts[label as usize];
        *right += usize::from(argmax(logits) == label as usize);
        *all += 1;
    }
    counts.into_iter().map(|(right, all)| (all > 0).then(|| right as f64 / all as f64)).collect()
}

/// A majority vote as logits: of each class the logarithm of its share of the votes, with one vote spread evenly over all
/// classes. Where votes are equal, the higher sum of the members' logits decides.
pub(super) fn votes(members: &[&[f32]], classes: usize) -> Vec<f32> {
    let len = members.iter().map(|logits| logits.len()).min().unwrap_or(0);
    let mut all = Vec::with_capacity(len);
    for first in (0..len).step_by(classes.max(1)) {
        let rows: Vec<&[f32]> = members.iter().map(|logits| &logits[first..first + classes]).collect();
        let mut counts = vec![1.0 / classes as f64; classes];
        for row in &rows {
            counts[argmax(row)] += 1.0;
        }
        let sum = |class: usize| rows.iter().map(|row| f64::from(row[class])).sum::<f64>();
        let sums: Vec<f64> = (0..classes).map(sum).collect();
        // The order of the sums in steps far below a vote.
        let place = |class: usize| sums.iter().filter(|other| **other < sums[class]).count() as f64;
        let logit = |class: usize| (counts[class] / (rows.len() + 1) as f64).ln() + 1e-4 * place(class);
        all.extend((0..classes).map(|class| logit(class) as f32));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_wins_and_ties_go_to_the_surer() {
        let (a, b, c): (&[f32], &[f32], &[f32]) = (&[3.0, 0.0, 0.0], &[0.0, 9.0, 0.0], &[1.0, 0.5, 0.0]);
        assert_eq!(argmax(&votes(&[a, b, c], 3)), 0, "two of three");
        assert_eq!(argmax(&votes(&[a, b], 3)), 1, "one each, but b is surer");
        assert_eq!(argmax(&votes(&[b, a], 3)), 1);
    }

    #[test]
    fn confidence_that_is_right_as_often_as_it_says_has_no_error() {
        let sure = [20.0_f32, 0.0, 20.0, 0.0];
        assert!(calibration_error(&sure, [0, 0].into_iter(), 2) < 1e-6);
        assert!(
            (calibration_error(&sure, [0, 1].into_iter(), 2) - 0.5).abs() < 1e-6,
            "sure, and right half of the time"
        );
        let torn = [0.0_f32, 0.0, 0.0, 0.0];
        assert!(calibration_error(&torn, [0, 1].into_iter(), 2) < 1e-6);
    }

    #[test]
    fn five_guesses_count_and_each_class_for_itself() {
        let logits = [[9.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [5.0; 7], [5.0; 7]];
        let labels = || [0, 1, 4, 5].into_iter();
        assert_eq!(
            top5(logits.as_flattened(), labels(), 7),
            Some(0.5),
            "1 is the sixth of seven, 5 the sixth of equals"
        );
        assert_eq!(top5(&logits[0][..5], [0].into_iter(), 5), None);
        let half = [Some(1.0), Some(0.0), None, None, Some(0.0), Some(0.0), None];
        assert_eq!(per_class(logits.as_flattened(), labels(), 7), half);
        assert_eq!(per_class(&[1.0, 0.0, 0.0, 1.0], [0, 0].into_iter(), 2), [Some(0.5), None]);
    }

    #[test]
    fn a_single_logit_tells_two_classes_apart() {
        let logits = [0.5_f32, 0.0, -2.0];
        let pairs = of_classes(&logits, PredictionTask::Binary);
        assert_eq!(pairs.chunks(2).map(argmax).collect::<Vec<_>>(), [1, 0, 0]);
        assert_eq!(outputs_of(pairs.into_owned(), PredictionTask::Binary), logits);
        assert_eq!(of_classes(&logits, PredictionTask::Classification), &logits[..]);
        assert_eq!((classes(PredictionTask::Binary, 1), classes(PredictionTask::MultiLabel, 3)), (2, 3));
        assert_eq!(label_agreement(&[1.0, -1.0, 0.0, 3.0], &[2.0, 1.0, -1.0, 0.5]), Some(0.75));
    }

    #[test]
    fn agreement_is_a_share_of_examples() {
        let (a, b) = ([1.0_f32, 0.0, 0.0, 1.0], [2.0_f32, 0.0, 5.0, 1.0]);
        assert_eq!(agreement(&a, &b, 2), Some(0.5));
        assert_eq!(agreement(&a, &b[..2], 2), None);
    }
}
