//! The learning rate over time.

use crate::settings::Schedule;

/// How long a training is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Steps of an epoch.
    pub steps: usize,
    /// Epochs.
    pub epochs: usize,
    /// Epochs in which the learning rate rises; need not be whole.
    pub warmup_epochs: f32,
}

/// Factor of the learning rate at `step` (from 0, through all epochs). While warming up it rises in equal steps to 1, which it
/// reaches with the last of them; cosine and line fall over the rest, milestones stay where they are.
#[must_use]
pub fn factor(schedule: &Schedule, step: usize, span: Span) -> f64 {
    let warmup = (f64::from(span.warmup_epochs) * span.steps as f64).round() as usize;
    if step < warmup {
        return (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / (span.steps * span.epochs).saturating_sub(warmup).max(1) as f64;
    match schedule {
        Schedule::Cosine => f64::midpoint(1.0, (std::f64::consts::PI * progress).cos()),
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - progress,
        Schedule::Multistep { milestones, gamma } => {
            let passed = milestones.iter().filter(|milestone| step / span.steps.max(1) >= **milestone).count();
            f64::from(*gamma).powi(passed as i32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<const N: usize>(schedule: &Schedule, warmup_epochs: f32, steps: [usize; N]) -> [f64; N] {
        steps.map(|step| factor(schedule, step, Span { steps: 10, epochs: 4, warmup_epochs }))
    }

    fn assert_near<const N: usize>(got: [f64; N], expected: [f64; N]) {
        assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-6), "{got:?}");
    }

    #[test]
    fn factors_fall_from_one_to_zero() {
        let multistep = Schedule::Multistep { milestones: vec![1, 3], gamma: 0.1 };
        let table = [
            (Schedule::Cosine, [1.0, 0.853_553, 0.5, 0.0]),
            (Schedule::Constant, [1.0, 1.0, 1.0, 1.0]),
            (Schedule::Linear, [1.0, 0.75, 0.5, 0.0]),
            (multistep, [1.0, 0.1, 0.1, 0.01]),
        ];
        for (schedule, expected) in table {
            assert_near(at(&schedule, 0.0, [0, 10, 20, 40]), expected);
        }
    }

    #[test]
    fn a_warm_up_comes_before_the_fall() {
        assert_near(at(&Schedule::Cosine, 0.5, [0, 4, 5, 40]), [0.2, 1.0, 1.0, 0.0]);
        assert_near(at(&Schedule::Linear, 2.0, [0, 19, 20, 30]), [0.05, 1.0, 1.0, 0.5]);
        let multistep = Schedule::Multistep { milestones: vec![1, 3], gamma: 0.1 };
        assert_near(at(&multistep, 1.0, [4, 9, 10, 30]), [0.5, 1.0, 0.1, 0.01]);
    }
}
