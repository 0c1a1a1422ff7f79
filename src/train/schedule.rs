//! The learning rate over time.

use crate::job::request::Schedule;

/// Factor of the learning rate at `step` (from 0, through all epochs) of `epochs` epochs of `steps` steps each.
#[must_use]
pub fn factor(schedule: &Schedule, step: usize, steps: usize, epochs: usize) -> f64 {
    let progress = step as f64 / (steps * epochs).max(1) as f64;
    match schedule {
        Schedule::Cosine => f64::midpoint(1.0, (std::f64::consts::PI * progress).cos()),
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - progress,
        Schedule::Multistep { milestones, gamma } => {
            let passed = milestones.iter().filter(|milestone| step / steps.max(1) >= **milestone).count();
            f64::from(*gamma).powi(passed as i32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_fall_from_one_to_zero() {
        let at = |schedule: &Schedule, step| (factor(schedule, step, 10, 4) * 1e6).round() / 1e6;
        let multistep = Schedule::Multistep { milestones: vec![1, 3], gamma: 0.1 };
        let table = [
            (Schedule::Cosine, [1.0, 0.853_553, 0.5, 0.0]),
            (Schedule::Constant, [1.0, 1.0, 1.0, 1.0]),
            (Schedule::Linear, [1.0, 0.75, 0.5, 0.0]),
            (multistep, [1.0, 0.1, 0.1, 0.01]),
        ];
        for (schedule, expected) in table {
            let got = [0, 10, 20, 40].map(|step| at(&schedule, step));
            assert!(
                got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-6),
                "{schedule:?} {got:?}"
            );
        }
    }
}
