//! What training minimises, with its gradient; arithmetic in f64, means over the batch.

use rayon::prelude::*;

use crate::kernels::Float;
use crate::kernels::element_loss::{binary_cross_entropy, binary_divergence, squared_error};
use crate::kernels::truth::{Truth, Truths};

/// Soft targets for distillation.
#[derive(Debug, Clone, Copy)]
pub struct Soft<'a, T> {
    /// The teacher's logits (batch x classes), or outputs.
    pub teacher: &'a [T],
    /// T, above 0; of no meaning for numbers.
    pub temperature: f64,
    /// w, in [0, 1].
    pub weight: f64,
}

/// What the logits of a batch should be.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a, T> {
    /// What the data say.
    pub truths: Truths<'a>,
    /// Share of a label's weight that is spread over all classes, in [0, 1); of classes only.
    pub smoothing: f64,
    /// A teacher.
    pub soft: Option<Soft<'a, T>>,
}

impl<'a, T> Targets<'a, T> {
    /// The labels alone, one class per example.
    #[must_use]
    pub fn of(labels: &'a [u32]) -> Self {
        Self { truths: Truths::Classes(labels), smoothing: 0.0, soft: None }
    }
}

/// The mean loss of a batch of `examples`, the one that its truths have: of classes
/// `w T² CE(softmax(t/T), softmax(s/T)) + (1-w) CE(labels)`, of flags `w T² KL(sigmoid(t/T), sigmoid(s/T)) + (1-w) BCE(flags)`, of
/// numbers `w MSE(t, s) + (1-w) MSE(numbers)`, the last two as means over the outputs too; without a teacher the loss by the
/// truths alone. `gradient` gets its gradient by the logits s (batch x outputs); `rows` is scratch.
pub fn objective<T: Float>(
    logits: &[T],
    examples: usize,
    targets: Targets<T>,
    gradient: &mut [T],
    rows: &mut Vec<f64>,
) -> f64 {
    let Targets { truths, smoothing, soft } = targets;
    let outputs = logits.len() / examples;
    let scale = 1.0 / examples as f64;
    rows.clear();
    rows.resize(examples, 0.0);
    let each = rows.par_iter_mut().zip(gradient.par_chunks_mut(outputs)).enumerate().with_min_len(64);
    each.for_each(|(i, (loss, gradient))| {
        let example = i * outputs..(i + 1) * outputs;
        let logits = &logits[example.clone()];
        let hard = 1.0 - soft.map_or(0.0, |soft| soft.weight);
        let truth = truths.of(i, outputs);
        gradient.fill(T::ZERO);
        if hard > 0.0 {
            *loss += hard * by_truth(logits, truth, smoothing, hard * scale, gradient);
        }
        if let Some(soft) = soft.filter(|soft| soft.weight > 0.0) {
            *loss += by_teacher(logits, truth, Soft { teacher: &soft.teacher[example], ..soft }, scale, gradient);
        }
    });
    rows.iter().sum::<f64>() * scale
}

/// The loss of one example by what the data say; adds `scale` times its gradient.
fn by_truth<T: Float>(logits: &[T], truth: Truth<'_>, smoothing: f64, scale: f64, gradient: &mut [T]) -> f64 {
    match truth {
        Truth::Class(label) => cross_entropy(logits, label as usize, smoothing, scale, gradient),
        Truth::Flags(flags) => binary_cross_entropy(logits, flags, scale, gradient),
        Truth::Numbers(numbers) => squared_error(logits, numbers, scale, gradient),
    }
}

/// The loss of one example by its teacher, times its weight; adds `scale` times its gradient.
fn by_teacher<T: Float>(logits: &[T], truth: Truth<'_>, soft: Soft<'_, T>, scale: f64, gradient: &mut [T]) -> f64 {
    let Soft { teacher, temperature, weight } = soft;
    match truth {
        Truth::Class(_) => soft_cross_entropy(logits, teacher, temperature, weight, scale, gradient),
        Truth::Flags(_) => binary_divergence(logits, teacher, temperature, weight, scale, gradient),
        Truth::Numbers(_) => weight * squared_error(logits, teacher, scale * weight, gradient),
    }
}

/// Cross-entropy of one example in nats, its label smoothed; adds `scale` times its gradient.
fn cross_entropy<T: Float>(logits: &[T], label: usize, smoothing: f64, scale: f64, gradient: &mut [T]) -> f64 {
    let log_sum = log_sum_exp(logits, 1.0);
    let share = smoothing / logits.len() as f64;
    let mut rest = 0.0;
    for (c, (gradient, logit)) in gradient.iter_mut().zip(logits).enumerate() {
        let log_p = logit.f64() - log_sum;
        let target = share + if c == label { 1.0 - smoothing } else { 0.0 };
        rest -= share * log_p;
        *gradient += T::of(scale * (log_p.exp() - target));
    }
    let hard = (1.0 - smoothing) * (log_sum - logits[label].f64());
    if smoothing > 0.0 { hard + rest } else { hard }
}

/// Adds `softmax(t/T)` of one member's logits to the mean of all members' (both examples x classes), each example's times the
/// `share` of its logits.
pub fn add_probabilities(
    mean: &mut [f32],
    logits: &[f32],
    classes: usize,
    temperature: f64,
    share: impl Fn(&[f32]) -> f64,
) {
    for (mean, logits) in mean.chunks_exact_mut(classes).zip(logits.chunks_exact(classes)) {
        let (log_sum, share) = (log_sum_exp(logits, temperature), share(logits));
        for (mean, logit) in mean.iter_mut().zip(logits) {
            *mean += (share * (logit.f64() / temperature - log_sum).exp()) as f32;
        }
    }
}

/// Gives every class with its probability.
pub fn probabilities<T: Float>(logits: &[T], mut visit: impl FnMut(usize, f64)) {
    log_probabilities(logits, |class, log_p| visit(class, log_p.exp()));
}

/// Gives every class with the logarithm of its probability.
pub fn log_probabilities<T: Float>(logits: &[T], mut visit: impl FnMut(usize, f64)) {
    let log_sum = log_sum_exp(logits, 1.0);
    logits.iter().enumerate().for_each(|(class, logit)| visit(class, logit.f64() - log_sum));
}

/// Entropy of the probabilities of one example, in nats.
#[must_use]
pub fn entropy<T: Float>(logits: &[T]) -> f64 {
    let log_sum = log_sum_exp(logits, 1.0);
    let of_class = |logit: &T| {
        let log_p = logit.f64() - log_sum;
        -log_p.exp() * log_p
    };
    logits.iter().map(of_class).sum()
}

/// Turns probabilities into logits t whose `softmax(t/T)` they are.
pub fn logits_of(probabilities: &mut [f32], temperature: f64) {
    for p in probabilities {
        let positive = if *p < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { *p };
        *p = (temperature * positive.f64().ln()) as f32;
    }
}

/// `weight T² CE(softmax(t/T), softmax(s/T))` of one example; adds `scale` times its gradient.
fn soft_cross_entropy<T: Float>(
    logits: &[T],
    teacher: &[T],
    temperature: f64,
    weight: f64,
    scale: f64,
    gradient: &mut [T],
) -> f64 {
    let (of_student, of_teacher) = (log_sum_exp(logits, temperature), log_sum_exp(teacher, temperature));
    let mut loss = 0.0;
    for ((gradient, logit), teacher) in gradient.iter_mut().zip(logits).zip(teacher) {
        let log_p = logit.f64() / temperature - of_student;
        let target = (teacher.f64() / temperature - of_teacher).exp();
        loss -= target * log_p;
        *gradient += T::of(scale * weight * temperature * (log_p.exp() - target));
    }
    weight * temperature * temperature * loss
}

/// `ln sum exp(x / temperature)`, safe from overflow.
fn log_sum_exp<T: Float>(logits: &[T], temperature: f64) -> f64 {
    let highest = logits.iter().fold(f64::NEG_INFINITY, |highest, x| highest.max(x.f64()));
    let sum: f64 = logits.iter().map(|x| ((x.f64() - highest) / temperature).exp()).sum();
    highest / temperature + sum.ln()
}

/// Cross-entropy of one example with its label, in nats.
#[must_use]
pub fn label_loss<T: Float>(logits: &[T], label: u32) -> f64 {
    log_sum_exp(logits, 1.0) - logits[label as usize].f64()
}

/// The loss of one example by what the data say, without its gradient: cross-entropy in nats, or a mean over its outputs.
#[must_use]
pub fn truth_loss<T: Float>(logits: &[T], truth: Truth<'_>) -> f64 {
    match truth {
        Truth::Class(label) => label_loss(logits, label),
        truth => by_truth(logits, truth, 0.0, 0.0, &mut vec![T::ZERO; logits.len()]),
    }
}

/// Whether the outputs decide as the data do: the class has the highest, or those above 0 are those of the flags that are set. About
/// numbers nothing is decided.
#[must_use]
pub fn is_right<T: Float>(logits: &[T], truth: Truth<'_>) -> bool {
    match truth {
        Truth::Class(label) => argmax(logits) == label as usize,
        Truth::Flags(flags) => logits.iter().zip(flags).all(|(logit, flag)| (logit.f64() > 0.0) == (*flag > 0.5)),
        Truth::Numbers(_) => false,
    }
}

/// Position of the highest logit, the first among equals.
#[must_use]
pub fn argmax<T: Float>(logits: &[T]) -> usize {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, sample};

    #[test]
    fn gradients_equal_finite_differences() {
        let (logits, teacher) = (sample(12, 1), sample(12, 2));
        let labels = [2, 0, 3];
        for (temperature, weight, smoothing) in [(2.0, 0.9, 0.0), (1.0, 1.0, 0.3), (4.0, 0.0, 0.1), (0.5, 0.3, 0.2)] {
            let soft = Some(Soft { teacher: &teacher[..], temperature, weight });
            for (truths, smoothing) in
                [(Truths::Classes(&labels), smoothing), (Truths::Flags(&FLAGS), 0.0), (Truths::Numbers(&NUMBERS), 0.0)]
            {
                let targets = Targets { truths, smoothing, soft };
                let mut gradient = vec![5.0; 12];
                objective(&logits, 3, targets, &mut gradient, &mut Vec::new());
                let loss = |x: &[f64]| objective(x, 3, targets, &mut [0.0; 12], &mut Vec::new());
                assert_gradient("logits", &logits, &gradient, loss);
            }
        }
    }

    const FLAGS: [f32; 12] = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
    const NUMBERS: [f32; 12] = [0.5, -2.0, 3.0, 0.25, 1.0, 0.0, -0.125, 4.0, 2.0, 1.0, -1.0, 0.0];

    /// ```python
    /// import torch, torch.nn.functional as F
    /// s, t = torch.tensor([[1., 2, -3], [0, -1, 1]]).double(), torch.tensor([[2., 0, 1], [1, 1, -1]]).double()
    /// y, n = torch.tensor([[1., 0, 0], [1, 1, 0]]).double(), torch.tensor([[.5, 2, 1], [-1, 0, 2]]).double()
    /// bce, mse = F.binary_cross_entropy_with_logits(s, y).item(), F.mse_loss(s, n).item()
    /// p, q = torch.sigmoid(t / 2), torch.sigmoid(s / 2)
    /// kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    /// print(bce, .9 * 4 * kl.mean().item() + .1 * bce)  # 0.9680746009552216 0.6331670042111184
    /// print(mse, .9 * F.mse_loss(s, t).item() + .1 * mse)  # 3.2083333333333335 4.820833333333334
    /// ```
    #[test]
    fn losses_of_flags_and_numbers_equal_those_of_pytorch() {
        let (s, t) = ([1.0, 2.0, -3.0, 0.0, -1.0, 1.0], [2.0, 0.0, 1.0, 1.0, 1.0, -1.0]);
        let soft = Some(Soft { teacher: &t[..], temperature: 2.0, weight: 0.9 });
        for (truths, by_data, both) in [
            (Truths::Flags(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0]), 0.968_074_600_955_221_6, 0.633_167_004_211_118_4),
            (Truths::Numbers(&[0.5, 2.0, 1.0, -1.0, 0.0, 2.0]), 3.208_333_333_333_333_5, 4.820_833_333_333_334),
        ] {
            let mut gradient = [0.0_f64; 6];
            let targets = Targets { truths, smoothing: 0.0, soft: None };
            let hard = objective(&s, 2, targets, &mut gradient, &mut Vec::new());
            let mixed = objective(&s, 2, Targets { soft, ..targets }, &mut gradient, &mut Vec::new());
            assert!((hard - by_data).abs() < 1e-12 && (mixed - both).abs() < 1e-12, "{hard} {mixed}");
            let each = (0..2).map(|i| truth_loss(&s[i * 3..i * 3 + 3], truths.of(i, 3)));
            assert!((each.sum::<f64>() / 2.0 - hard).abs() < 1e-12);
        }
    }

    #[test]
    fn outputs_are_right_where_they_decide_as_the_data_do() {
        assert!(is_right(&[0.0_f32, 2.0], Truth::Class(1)) && !is_right(&[0.0_f32, 2.0], Truth::Class(0)));
        assert!(is_right(&[-0.5_f32, 2.0], Truth::Flags(&[0.0, 1.0])) && !is_right(&[0.0_f32], Truth::Flags(&[1.0])));
        assert!(!is_right(&[1.0_f32], Truth::Numbers(&[1.0])));
    }

    /// ```python
    /// import numpy as np
    /// s, t = np.array([[1., 2, 3], [0, -1, 1]]), np.array([[2., 0, 1], [1, 1, -1]]); y = [2, 0]
    /// logp = lambda x: x - np.log(np.exp(x).sum(1, keepdims=True))
    /// hard = -logp(s)[[0, 1], y].mean(); soft = -(np.exp(logp(t / 2)) * logp(s / 2)).sum(1).mean()
    /// print(hard, .9 * 4 * soft + .1 * hard)  # 0.9076059644443802 4.759348220837222
    /// print(.8 * hard - .2 * logp(s).mean())  # 1.0076059644443802
    /// ```
    #[test]
    fn equals_the_formula() {
        let (s, t) = ([1.0, 2.0, 3.0, 0.0, -1.0, 1.0], [2.0, 0.0, 1.0, 1.0, 1.0, -1.0]);
        let mut gradient = [0.0_f64; 6];
        let hard = objective(&s, 2, Targets::of(&[2, 0]), &mut gradient, &mut Vec::new());
        assert!((hard - 0.907_605_964_444_380_2).abs() < 1e-12, "{hard}");
        let smoothing = Targets { smoothing: 0.2, ..Targets::of(&[2, 0]) };
        let smoothed = objective(&s, 2, smoothing, &mut gradient, &mut Vec::new());
        assert!((smoothed - 1.007_605_964_444_380_2).abs() < 1e-12, "{smoothed}");
        let soft = Some(Soft { teacher: &t[..], temperature: 2.0, weight: 0.9 });
        let both = objective(&s, 2, Targets { soft, ..Targets::of(&[2, 0]) }, &mut gradient, &mut Vec::new());
        assert!((both - 4.759_348_220_837_222).abs() < 1e-12, "{both}");
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let mut gradient = [0.0_f32; 2];
        let loss = objective(&[1e30, 0.0], 1, Targets::of(&[0]), &mut gradient, &mut Vec::new());
        assert!(loss.abs() < 1e-6 && gradient == [0.0, 0.0]);
        assert_eq!(argmax(&[1.0_f32, 3.0, 3.0]), 1);
    }

    #[test]
    fn a_mean_of_probabilities_is_reached_at_its_temperature() {
        let (temperature, members) = (2.0, [[1.0_f32, 2.0, 3.0], [-40.0, 4.0, 0.0]]);
        let mut mean = [0.0; 3];
        for logits in &members {
            add_probabilities(&mut mean, logits, 3, temperature, |_| 0.5);
        }
        let mut logits = mean;
        logits_of(&mut logits, temperature);
        let mut again = [0.0; 3];
        add_probabilities(&mut again, &logits, 3, temperature, |_| 1.0);
        for (again, mean) in again.iter().zip(mean) {
            assert!((again - mean).abs() < 1e-6, "{again} for {mean}");
        }
        let softmax = |x: [f32; 3]| x.map(|v| (v / 2.0).exp() / x.iter().map(|u| (u / 2.0).exp()).sum::<f32>());
        let expected = f32::midpoint(softmax(members[0])[1], softmax(members[1])[1]);
        assert!((mean[1] - expected).abs() < 1e-6);
    }
}
