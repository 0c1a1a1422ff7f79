//! Steps of the optimizers, over all parameters in one buffer: whole pieces of 16 bytes, those with weight decay first.

use crate::exec::gpu::kernels::elementwise::THREADS;
use crate::exec::gpu::tape::{Place, Tape};

/// Numbers that a single block looks at.
const WHOLE: usize = 1 << 16;
/// Most slices of a sum.
const SLICES: usize = 528;

/// SGD with momentum: `v = momentum v + (g + weight_decay w)`, `w -= rate v`, or with Nesterov
/// `w -= rate (g + weight_decay w + momentum v)`.
#[derive(Debug, Clone, Copy)]
pub struct Sgd {
    /// All parameters.
    pub weights: Place,
    /// Their gradients.
    pub gradients: Place,
    /// Their velocities.
    pub velocity: Place,
    /// How many numbers there are, a multiple of 4.
    pub numbers: usize,
    /// How many of them, the first ones, decay.
    pub decaying: usize,
    /// See above.
    pub momentum: f32,
    /// See above.
    pub weight_decay: f32,
    /// See above.
    pub nesterov: bool,
    /// See [scalars](super::scalars).
    pub scalars: Place,
    /// Gets the weights in bf16.
    pub low: Option<Place>,
}

fn blocks(pieces: usize) -> [usize; 3] {
    [pieces.div_ceil(THREADS).max(1), 1, 1]
}

/// A step of [`Sgd`].
pub fn sgd(tape: &mut Tape, sgd: Sgd) {
    let arguments = vec![
        sgd.weights.into(),
        sgd.gradients.into(),
        sgd.velocity.into(),
        sgd.low.into(),
        sgd.scalars.into(),
        (sgd.numbers / 4).into(),
        sgd.decaying.into(),
        sgd.momentum.into(),
        sgd.weight_decay.into(),
        sgd.nesterov.into(),
    ];
    tape.launch_plain("sgd_step", blocks(sgd.numbers / 4), THREADS, arguments);
}

/// `AdamW`: `w -= rate weight_decay w`, then `w -= rate m̂ / (sqrt(v̂) + eps)` with the bias-corrected running means m̂
/// of g and v̂ of g².
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    /// All parameters.
    pub weights: Place,
    /// Their gradients.
    pub gradients: Place,
    /// Running means of the gradients.
    pub mean: Place,
    /// Running means of their squares.
    pub square: Place,
    /// How many numbers there are, a multiple of 4.
    pub numbers: usize,
    /// How many of them, the first ones, decay.
    pub decaying: usize,
    /// How much of the means stays.
    pub betas: [f32; 2],
    /// Added to the root.
    pub eps: f32,
    /// See above.
    pub weight_decay: f32,
    /// See [scalars](super::scalars).
    pub scalars: Place,
    /// Gets the weights in bf16.
    pub low: Option<Place>,
}

/// A step of [`AdamW`].
pub fn adamw(tape: &mut Tape, adam: AdamW) {
    let arguments = vec![
        adam.weights.into(),
        adam.gradients.into(),
        adam.mean.into(),
        adam.square.into(),
        adam.low.into(),
        adam.scalars.into(),
        (adam.numbers / 4).into(),
        adam.decaying.into(),
        adam.betas[0].into(),
        adam.betas[1].into(),
        adam.eps.into(),
        adam.weight_decay.into(),
    ];
    tape.launch_plain("adamw_step", blocks(adam.numbers / 4), THREADS, arguments);
}

/// Writes to the [scalars](super::scalars) by which factor the gradients, a multiple of 4 `numbers`, get no longer than their clip
/// allows.
pub fn gradient_norm(tape: &mut Tape, gradients: Place, numbers: usize, scalars: Place) {
    let slices = if numbers <= WHOLE { 1 } else { (numbers / 4).div_ceil(4 * THREADS).min(SLICES) };
    let partial = tape.scratch(8 * slices);
    let threads = if slices == 1 { 1024 } else { THREADS };
    let arguments = vec![gradients.into(), partial.into(), scalars.into(), (numbers / 4).into()];
    tape.launch_plain("gradient_squares", [slices, 1, 1], threads, arguments);
    if slices > 1 {
        tape.launch_plain("gradient_scale", [1, 1, 1], THREADS, vec![partial.into(), scalars.into(), slices.into()]);
    }
}

/// The word `flag` becomes 1 where any of the weights is not finite, and otherwise stays.
pub fn finite(tape: &mut Tape, weights: Place, numbers: usize, flag: Place) {
    let blocks = numbers.div_ceil(8 * THREADS).clamp(1, SLICES);
    tape.launch_plain("find_not_finite", [blocks, 1, 1], THREADS, vec![weights.into(), flag.into(), numbers.into()]);
}

/// `low` gets the weights, a multiple of 4 `numbers`, in bf16.
pub fn to_low(tape: &mut Tape, weights: Place, low: Place, numbers: usize) {
    let arguments = vec![weights.into(), low.into(), (numbers / 4).into()];
    tape.launch_plain("to_low", blocks(numbers / 4), THREADS, arguments);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::emulated::Bench;
    use crate::exec::gpu::kernels::scalars;
    use crate::exec::gpu::tape::Storage;

    const NUMBERS: usize = 1036;
    const DECAYING: usize = 518;

    /// A block of scalars with these numbers.
    fn block(bench: &mut Bench, numbers: &[(usize, f32)]) -> Place {
        let mut words = [0; scalars::BYTES / 4];
        for (at, number) in numbers {
            words[*at] = number.to_bits();
        }
        bench.device.words(&words)
    }

    fn check_low(bench: &Bench, low: Place, weights: Place) {
        let expected: Vec<f32> =
            bench.device.floats(weights).into_iter().map(|w| half::bf16::from_f32(w).to_f32()).collect();
        assert_eq!(bench.device.stored(low, Storage::Bf16), expected);
    }

    #[test]
    fn steps_of_sgd_are_those_of_the_formula() {
        for nesterov in [false, true] {
            let mut bench = Bench::new(Storage::F32);
            let block = block(&mut bench, &[(scalars::RATE, 0.1), (scalars::SCALE, 0.5)]);
            let ((weights, mut w), (gradients, g), (velocity, mut v)) =
                (bench.weights(NUMBERS), bench.weights(NUMBERS), bench.weights(NUMBERS));
            let low = bench.device.place(2 * NUMBERS);
            let (momentum, weight_decay) = (0.9, 0.01);
            let rule = Sgd {
                weights,
                gradients,
                velocity,
                numbers: NUMBERS,
                decaying: DECAYING,
                momentum,
                weight_decay,
                nesterov,
                scalars: block,
                low: Some(low),
            };
            sgd(&mut bench.tape, rule);
            sgd(&mut bench.tape, Sgd { low: None, ..rule });
            bench.device.play(&bench.tape);
            sgd(&mut bench.tape, rule);
            for step in 0..NUMBERS * 2 {
                let i = step % NUMBERS;
                let slope = 0.5 * g[i] + if i < DECAYING { 0.01 * w[i] } else { 0.0 };
                v[i] = 0.9 * v[i] + slope;
                w[i] -= 0.1 * if nesterov { slope + 0.9 * v[i] } else { v[i] };
            }
            bench.check_floats("SGD", weights, &w);
            bench.check_floats("velocity", velocity, &v);
            to_low(&mut bench.tape, weights, low, NUMBERS);
            bench.play();
            check_low(&bench, low, weights);
        }
    }

    #[test]
    fn steps_of_adamw_are_those_of_the_formula() {
        let mut bench = Bench::new(Storage::F32);
        let given = [(scalars::RATE, 0.02), (scalars::ROOT, 0.3), (scalars::BASE, 0.01), (scalars::SCALE, 0.5)];
        let block = block(&mut bench, &given);
        let ((weights, mut w), (gradients, g)) = (bench.weights(NUMBERS), bench.weights(NUMBERS));
        let ((mean, mut m), (square, _)) = (bench.weights(NUMBERS), bench.weights(NUMBERS));
        let mut s: Vec<f64> = (0..NUMBERS).map(|i| f64::from(i as f32 * 1e-3)).collect();
        bench.device.put(square, &s.iter().map(|s| *s as f32).collect::<Vec<f32>>());
        let low = bench.device.place(2 * NUMBERS);
        let adam = AdamW {
            weights,
            gradients,
            mean,
            square,
            numbers: NUMBERS,
            decaying: DECAYING,
            betas: [0.9, 0.99],
            eps: 1e-8,
            weight_decay: 0.1,
            scalars: block,
            low: Some(low),
        };
        adamw(&mut bench.tape, adam);
        bench.play();
        for i in 0..NUMBERS {
            let slope = 0.5 * g[i];
            m[i] += 0.1 * (slope - m[i]);
            s[i] = 0.99 * s[i] + 0.01 * slope * slope;
            w[i] -= if i < DECAYING { 0.001 * w[i] } else { 0.0 };
            w[i] -= 0.02 * m[i] / (s[i].sqrt() / 0.3 + 1e-8);
        }
        bench.check_floats("AdamW", weights, &w);
        bench.check_floats("mean", mean, &m);
        bench.check_floats("square", square, &s);
        check_low(&bench, low, weights);
    }

    #[test]
    fn long_gradients_are_scaled_down() {
        for numbers in [4, 1036, 200_000] {
            for (clip, poison) in [(0.5, false), (1e6, false), (1.0, true)] {
                let mut bench = Bench::new(Storage::F32);
                let block = block(&mut bench, &[(scalars::CLIP, clip)]);
                let (gradients, mut g) = bench.weights(numbers);
                if poison {
                    g[3] = f64::NAN;
                    bench.device.put(gradients, &[0.0, 0.0, 0.0, f32::NAN]);
                }
                gradient_norm(&mut bench.tape, gradients, numbers, block);
                bench.play();
                let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
                let factor = f64::from(clip) / (norm + 1e-6);
                let got = f64::from(bench.device.floats(block)[scalars::SCALE]);
                if poison {
                    assert!(got.is_nan());
                } else {
                    assert!((got - factor.min(1.0)).abs() < 1e-6, "{got} for {factor}");
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_found() {
        for numbers in [1, 7, 1000, 100_000] {
            for bad in [None, Some(f32::NAN), Some(f32::NEG_INFINITY)] {
                let mut bench = Bench::new(Storage::F32);
                let (weights, mut w) = bench.weights(numbers);
                if let Some(bad) = bad {
                    w[numbers - 1] = bad.into();
                }
                bench.device.put(weights, &w.iter().map(|w| *w as f32).collect::<Vec<f32>>());
                let flag = bench.device.words(&[0]);
                finite(&mut bench.tape, weights, numbers, flag);
                bench.play();
                assert_eq!(bench.device.read_words(flag), [u32::from(bad.is_some())]);
            }
        }
    }
}
