//! Losses that look at each output by itself, of one example: means over its outputs, arithmetic in f64. A mean over a batch of them
//! is `PyTorch`'s mean over all elements.

use crate::kernels::Float;

/// 1 / (1 + exp(-x)), safe from overflow.
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    let small = (-x.abs()).exp();
    if x < 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) }
}

/// `ln(1 + exp(x))`, safe from overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Mean binary cross-entropy of the `logits` with `flags` of 0 and 1, in nats (`torch.nn.BCEWithLogitsLoss`); adds `scale` times its
/// gradient.
pub(super) fn binary_cross_entropy<T: Float>(logits: &[T], flags: &[f32], scale: f64, gradient: &mut [T]) -> f64 {
    let outputs = logits.len().max(1) as f64;
    let mut loss = 0.0;
    for ((gradient, logit), flag) in gradient.iter_mut().zip(logits).zip(flags) {
        let (logit, flag) = (logit.f64(), f64::from(*flag));
        loss += softplus(logit) - flag * logit;
        *gradient += T::of(scale * (sigmoid(logit) - flag) / outputs);
    }
    loss / outputs
}

/// `weight T²` times the mean Kullback-Leibler divergence of the Bernoulli distributions `sigmoid(s/T)` from `sigmoid(t/T)`; adds
/// `scale` times its gradient.
pub(super) fn binary_divergence<T: Float>(
    logits: &[T],
    teacher: &[T],
    temperature: f64,
    weight: f64,
    scale: f64,
    gradient: &mut [T],
) -> f64 {
    let outputs = logits.len().max(1) as f64;
    let mut loss = 0.0;
    for ((gradient, logit), teacher) in gradient.iter_mut().zip(logits).zip(teacher) {
        let (s, t) = (logit.f64() / temperature, teacher.f64() / temperature);
        let target = sigmoid(t);
        // With p = sigmoid(t): p (ln p - ln sigmoid(s)) + (1-p) (ln (1-p) - ln (1-sigmoid(s))).
        loss += softplus(s) - softplus(t) + target * (t - s);
        *gradient += T::of(scale * weight * temperature * (sigmoid(s) - target) / outputs);
    }
    weight * temperature * temperature * loss / outputs
}

/// Mean squared difference of the `outputs` from `numbers` (`torch.nn.MSELoss`); adds `scale` times its gradient.
pub(super) fn squared_error<T: Float, U: Float>(outputs: &[T], numbers: &[U], scale: f64, gradient: &mut [T]) -> f64 {
    let count = outputs.len().max(1) as f64;
    let mut loss = 0.0;
    for ((gradient, output), number) in gradient.iter_mut().zip(outputs).zip(numbers) {
        let off = output.f64() - number.f64();
        loss += off * off;
        *gradient += T::of(scale * 2.0 * off / count);
    }
    loss / count
}

/// Adds `share` times `sigmoid(t/T)` of one member's logits to the mean of all members'.
pub fn add_sigmoids(mean: &mut [f32], logits: &[f32], temperature: f64, share: f64) {
    for (mean, logit) in mean.iter_mut().zip(logits) {
        *mean += (share * sigmoid(f64::from(*logit) / temperature)) as f32;
    }
}

/// Turns probabilities into logits t whose `sigmoid(t/T)` they are.
pub fn binary_logits_of(probabilities: &mut [f32], temperature: f64) {
    for p in probabilities {
        let within = f64::from(*p).clamp(f64::from(f32::MIN_POSITIVE), 1.0 - f64::from(f32::EPSILON) / 2.0);
        *p = (temperature * (within.ln() - (-within).ln_1p())) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_of_sigmoids_is_reached_at_its_temperature() {
        let (temperature, members) = (2.0, [[1.0_f32, -30.0, 80.0], [-3.0, 4.0, 90.0]]);
        let mut mean = [0.0; 3];
        for logits in &members {
            add_sigmoids(&mut mean, logits, temperature, 0.5);
        }
        let mut logits = mean;
        binary_logits_of(&mut logits, temperature);
        for (logit, mean) in logits.into_iter().zip(mean) {
            assert!(logit.is_finite());
            assert!((sigmoid(f64::from(logit) / temperature) - f64::from(mean)).abs() < 1e-6, "{logit} for {mean}");
        }
        let expected = f64::midpoint(1.0 / (1.0 + (-0.5_f64).exp()), 1.0 / (1.0 + 1.5_f64.exp()));
        assert!((f64::from(mean[0]) - expected).abs() < 1e-6);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let mut gradient = [0.0_f32; 2];
        assert!(binary_cross_entropy(&[1e30, -1e30], &[1.0, 0.0], 1.0, &mut gradient).abs() < 1e-6);
        assert!(gradient == [0.0, 0.0]);
        let loss = binary_divergence(&[1e6_f32, -1e6], &[1e6, -1e6], 1.0, 1.0, 1.0, &mut gradient);
        assert!(loss.abs() < 1e-6 && gradient == [0.0, 0.0], "{loss}");
    }
}
