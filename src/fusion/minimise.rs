//! Minimises smooth convex functions of many variables: L-BFGS (Liu and Nocedal 1989) with a line search that backs off until
//! the function falls enough (Armijo) and steps on while it falls too steeply (weak Wolfe, by bisection).

use std::collections::VecDeque;

/// Pairs of steps and changes of the gradient that are remembered.
const MEMORY: usize = 10;
/// Evaluations of one line search.
const TRIES: usize = 20;
/// Part of the expected decrease that a step must bring.
const DECREASE: f64 = 1e-4;
/// Part of the slope that a step must leave behind.
const FLATTER: f64 = 0.9;
/// A gradient this small, relative to 1, ends it.
const FLAT: f64 = 1e-9;

/// Where a minimisation ended.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::fusion) struct Minimum {
    pub(in crate::fusion) at: Vec<f64>,
    pub(in crate::fusion) value: f64,
    /// Steps that were taken.
    pub(in crate::fusion) steps: usize,
}

/// Steps from `at` towards the minimum of `function`, which writes its gradient and returns its value; at most `steps`. `None`
/// from the function ends it where it stands.
pub(in crate::fusion) fn minimise(
    at: Vec<f64>,
    steps: usize,
    mut function: impl FnMut(&[f64], &mut [f64]) -> Option<f64>,
) -> Option<Minimum> {
    let n = at.len();
    let mut gradient = vec![0.0; n];
    let value = function(&at, &mut gradient)?;
    let mut now = Minimum { at, value, steps: 0 };
    let mut memory: VecDeque<Pair> = VecDeque::with_capacity(MEMORY);
    let mut next_gradient = vec![0.0; n];
    while now.steps < steps && norm(&gradient) > FLAT {
        let mut direction = descent(&gradient, &memory);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 {
            memory.clear();
            direction = gradient.iter().map(|g| -g).collect();
            slope = -dot(&gradient, &gradient);
        }
        // Without a memory the direction has no length of its own.
        let mut step = if memory.is_empty() { 1.0 / norm(&gradient).max(1.0) } else { 1.0 };
        let (mut low, mut high) = (0.0, f64::INFINITY);
        let mut found = None;
        for _ in 0..TRIES {
            let next: Vec<f64> = now.at.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
            let value = function(&next, &mut next_gradient)?;
            if !value.is_finite() || value > now.value + DECREASE * step * slope {
                high = step;
            } else {
                let steep = dot(&direction, &next_gradient) < FLATTER * slope;
                found = Some((next, value, next_gradient.clone()));
                if !steep {
                    break;
                }
                low = step;
            }
            step = if high.is_finite() { f64::midpoint(low, high) } else { 2.0 * step };
        }
        let Some((next, value, new_gradient)) = found else { break };
        let moved: Vec<f64> = next.iter().zip(&now.at).map(|(a, b)| a - b).collect();
        let changed: Vec<f64> = new_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&moved, &changed);
        if curvature > f64::EPSILON * norm(&moved) * norm(&changed) {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back(Pair { moved, changed, curvature });
        }
        now = Minimum { at: next, value, steps: now.steps + 1 };
        gradient = new_gradient;
    }
    Some(now)
}

/// A step, and how the gradient changed along it.
struct Pair {
    moved: Vec<f64>,
    changed: Vec<f64>,
    /// Their product.
    curvature: f64,
}

/// Against the gradient, in the geometry that the last steps have shown (the two loops of Nocedal 1980).
fn descent(gradient: &[f64], memory: &VecDeque<Pair>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut factors = Vec::with_capacity(memory.len());
    for pair in memory.iter().rev() {
        let factor = dot(&pair.moved, &direction) / pair.curvature;
        add(&mut direction, -factor, &pair.changed);
        factors.push(factor);
    }
    if let Some(last) = memory.back() {
        let scale = last.curvature / dot(&last.changed, &last.changed);
        for d in &mut direction {
            *d *= scale;
        }
    }
    for (pair, factor) in memory.iter().zip(factors.iter().rev()) {
        let back = dot(&pair.changed, &direction) / pair.curvature;
        add(&mut direction, factor - back, &pair.moved);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

fn add(sum: &mut [f64], factor: f64, other: &[f64]) {
    sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += factor * other);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ill_conditioned_bowl_is_descended_to_its_ground() {
        // Curvatures from 1 to 1e4.
        let curvature = |i: usize| 10.0_f64.powf(4.0 * i as f64 / 19.0);
        let bowl = |x: &[f64], gradient: &mut [f64]| {
            let mut value = 0.0;
            for (i, (x, g)) in x.iter().zip(gradient).enumerate() {
                let off = x - i as f64;
                *g = curvature(i) * off;
                value += 0.5 * curvature(i) * off * off;
            }
            Some(value)
        };
        let found = minimise(vec![0.0; 20], 2000, bowl).expect("a minimum");
        found.at.iter().enumerate().for_each(|(i, x)| assert!((x - i as f64).abs() < 1e-5, "{i}: {x}"));
        assert!(found.steps < 2000, "{}", found.steps);
    }

    #[test]
    fn each_step_goes_down_and_a_minimum_is_left_alone() {
        let quartic = |x: &[f64], gradient: &mut [f64]| {
            gradient[0] = 4.0 * x[0].powi(3) + 1e3 * x[0];
            Some(x[0].powi(4) + 500.0 * x[0] * x[0])
        };
        let mut last = f64::INFINITY;
        for steps in 0..6 {
            let value = minimise(vec![50.0], steps, quartic).expect("a minimum").value;
            assert!(value < last || value == 0.0, "{value} after {last}");
            last = value;
        }
        assert_eq!(minimise(vec![0.0], 9, quartic).map(|minimum| minimum.steps), Some(0));
        assert_eq!(minimise(vec![1.0], 9, |_, _| None), None);
    }
}
