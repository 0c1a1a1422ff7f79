//! What training minimises, with its gradient; arithmetic in f64, means over the batch.

use rayon::prelude::*;

use crate::kernels::Float;

/// Soft targets for distillation.
#[derive(Debug, Clone, Copy)]
pub struct Soft<'a, T> {
    /// The teacher's logits (batch x classes).
    pub teacher: &'a [T],
    /// T, above 0.
    pub temperature: f64,
    /// w, in [0, 1].
    pub weight: f64,
}

/// `w T² CE(softmax(t/T), softmax(s/T)) + (1-w) CE(labels)` of one batch; without `soft` the cross-entropy alone.
/// Returns the mean over the batch; `gradient` gets its gradient by the logits s (batch x classes); `rows` is scratch.
pub fn objective<T: Float>(
    logits: &[T],
    labels: &[u32],
    soft: Option<Soft<T>>,
    gradient: &mut [T],
    rows: &mut Vec<f64>,
) -> f64 {
    let classes = logits.len() / labels.len();
    let scale = 1.0 / labels.len() as f64;
    rows.clear();
    rows.resize(labels.len(), 0.0);
    let each = rows.par_iter_mut().zip(gradient.par_chunks_mut(classes)).enumerate().with_min_len(64);
    each.for_each(|(i, (loss, gradient))| {
        let example = i * classes..(i + 1) * classes;
        let logits = &logits[example.clone()];
        let hard = 1.0 - soft.map_or(0.0, |soft| soft.weight);
        gradient.fill(T::ZERO);
        if hard > 0.0 {
            *loss += hard * cross_entropy(logits, labels[i] as usize, hard * scale, gradient);
        }
        if let Some(soft) = soft.filter(|soft| soft.weight > 0.0) {
            let teacher = &soft.teacher[example];
            *loss += soft_cross_entropy(logits, teacher, soft.temperature, soft.weight, scale, gradient);
        }
    });
    rows.iter().sum::<f64>() * scale
}

/// Cross-entropy of one example in nats; adds `scale` times its gradient.
fn cross_entropy<T: Float>(logits: &[T], label: usize, scale: f64, gradient: &mut [T]) -> f64 {
    let log_sum = log_sum_exp(logits, 1.0);
    for (c, (gradient, logit)) in gradient.iter_mut().zip(logits).enumerate() {
        let target = if c == label { 1.0 } else { 0.0 };
        *gradient += T::of(scale * ((logit.f64() - log_sum).exp() - target));
    }
    log_sum - logits[label].f64()
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
        for (temperature, weight) in [(2.0, 0.9), (1.0, 1.0), (4.0, 0.0), (0.5, 0.3)] {
            let soft = Some(Soft { teacher: &teacher, temperature, weight });
            let mut gradient = vec![5.0; 12];
            objective(&logits, &labels, soft, &mut gradient, &mut Vec::new());
            let loss = |x: &[f64]| objective(x, &labels, soft, &mut [0.0; 12], &mut Vec::new());
            assert_gradient("logits", &logits, &gradient, loss);
        }
    }

    /// ```python
    /// import numpy as np
    /// s, t = np.array([[1., 2, 3], [0, -1, 1]]), np.array([[2., 0, 1], [1, 1, -1]]); y = [2, 0]
    /// logp = lambda x: x - np.log(np.exp(x).sum(1, keepdims=True))
    /// hard = -logp(s)[[0, 1], y].mean(); soft = -(np.exp(logp(t / 2)) * logp(s / 2)).sum(1).mean()
    /// print(hard, .9 * 4 * soft + .1 * hard)  # 0.9076059644443802 4.759348220837222
    /// ```
    #[test]
    fn equals_the_formula() {
        let (s, t) = ([1.0, 2.0, 3.0, 0.0, -1.0, 1.0], [2.0, 0.0, 1.0, 1.0, 1.0, -1.0]);
        let mut gradient = [0.0_f64; 6];
        let hard = objective(&s, &[2, 0], None, &mut gradient, &mut Vec::new());
        assert!((hard - 0.907_605_964_444_380_2).abs() < 1e-12, "{hard}");
        let soft = Soft { teacher: &t[..], temperature: 2.0, weight: 0.9 };
        let both = objective(&s, &[2, 0], Some(soft), &mut gradient, &mut Vec::new());
        assert!((both - 4.759_348_220_837_222).abs() < 1e-12, "{both}");
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let mut gradient = [0.0_f32; 2];
        let loss = objective(&[1e30, 0.0], &[0], None, &mut gradient, &mut Vec::new());
        assert!(loss.abs() < 1e-6 && gradient == [0.0, 0.0]);
        assert_eq!(argmax(&[1.0_f32, 3.0, 3.0]), 1);
    }
}
