//! What training minimises, with its gradient.

use crate::exec::gpu::kernels::elementwise::{THREADS, group};
use crate::exec::gpu::tape::{Argument, Place, Tape, Values};

/// What the outputs are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A class for each example.
    Classes,
    /// For each output whether its label is there.
    Flags,
    /// A number for each output.
    Numbers,
}

/// A batch's logits and what they should be, see [`loss::objective`](crate::kernels::loss::objective).
#[derive(Debug, Clone, Copy)]
pub struct Objective {
    /// One position for each example.
    pub logits: Values,
    /// `u32` for each example, or f32 for each output of each example.
    pub truths: Place,
    /// Which of them.
    pub kind: Kind,
    /// Share of a label's weight that is spread over all classes.
    pub smoothing: f32,
    /// A teacher's logits, f32 for each output of each example.
    pub teacher: Option<Place>,
    /// The teacher's, above 0.
    pub temperature: f32,
    /// Share of the loss by the teacher; of no meaning without one.
    pub weight: f32,
    /// Gets the gradient of the mean loss by the logits.
    pub gradient: Values,
    /// Gets the loss of each example, f32.
    pub losses: Place,
    /// Gets whether each example is right, `u32`.
    pub right: Place,
}

/// Bytes of a batch's result: the mean loss (f64), the number of those that are right (`u32`) and 1 where the mean is
/// not finite (`u32`).
pub const RESULT: usize = 16;

/// Most numbers that a single block looks at.
const WHOLE: usize = 8192;

impl Objective {
    fn examples(&self) -> usize {
        self.logits.examples
    }

    fn arguments(&self, group: usize) -> Vec<Argument> {
        let kind = match self.kind {
            Kind::Classes => 0,
            Kind::Flags => 1,
            Kind::Numbers => 2,
        };
        vec![
            self.logits.into(),
            self.truths.into(),
            self.teacher.into(),
            self.gradient.into(),
            self.examples().into(),
            self.logits.stride.into(),
            self.logits.channels.into(),
            group.into(),
            Argument::Int(kind),
            self.smoothing.into(),
            self.temperature.into(),
            self.weight.into(),
            self.losses.into(),
            self.right.into(),
        ]
    }
}

/// The losses of all examples, which are right, and the gradient of the mean loss.
pub fn objective(tape: &mut Tape, objective: &Objective) {
    let group = group(objective.logits.channels);
    let blocks = (objective.examples() * group).div_ceil(THREADS);
    let arguments = objective.arguments(group);
    tape.launch("objective", [blocks, 1, 1], THREADS, arguments);
}

/// The mean loss and how many are right, as the [`RESULT`] of the slot that the [`scalars`](super::scalars)
/// name.
pub fn finish(tape: &mut Tape, losses: Place, right: Place, examples: usize, scalars: Place, results: Place) {
    let threads = examples.next_multiple_of(32).min(1024);
    let arguments = vec![losses.into(), right.into(), examples.into(), scalars.into(), results.into()];
    tape.launch_plain("objective_finish", [1, 1, 1], threads, arguments);
}

/// [`objective`], then [`finish`]: in one run where there is little to do.
pub fn objective_and_finish(tape: &mut Tape, objective: &Objective, scalars: Place, results: Place) {
    let (examples, stride) = (objective.examples(), objective.logits.stride);
    if examples * stride > WHOLE {
        self::objective(tape, objective);
        return finish(tape, objective.losses, objective.right, examples, scalars, results);
    }
    let group = group(objective.logits.channels);
    let threads = (examples * group).next_multiple_of(32).min(512);
    let mut arguments = objective.arguments(group);
    arguments.extend([Argument::from(scalars), results.into()]);
    tape.launch("objective_whole", [1, 1, 1], threads, arguments);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::emulated::{Bench, STORAGES, near};
    use crate::exec::gpu::kernels::scalars::{BYTES, SLOT};
    use crate::exec::gpu::tape::Storage;
    use crate::kernels::loss::{self, Soft, Targets};
    use crate::kernels::truth::Truths;

    /// What a case is about.
    #[derive(Debug, Clone, Copy)]
    struct Case {
        storage: Storage,
        kind: Kind,
        examples: usize,
        outputs: usize,
        smoothing: f32,
        soft: Option<[f32; 2]>,
    }

    fn run(case: Case) {
        let Case { storage, kind, examples, outputs, smoothing, soft } = case;
        let mut bench = Bench::new(storage);
        let numbers: Vec<f64> = bench.sample(examples * outputs).iter().map(|x| 6.0 * x).collect();
        let (logits, xs) = bench.values([examples, 1, outputs], &numbers);
        let (teacher, ts) = bench.weights(examples * outputs);
        let (wanted, wanted_numbers) = bench.weights(examples * outputs);
        let labels: Vec<u32> = (0..examples).map(|example| (example * 7 % outputs) as u32).collect();
        let flags: Vec<f32> = wanted_numbers.iter().map(|number| f32::from(u8::from(*number > 0.0))).collect();
        let singles: Vec<f32> = wanted_numbers.iter().map(|number| *number as f32).collect();
        let (place, truths) = match kind {
            Kind::Classes => (bench.device.words(&labels), Truths::Classes(&labels)),
            Kind::Flags => (bench.device.numbers(&flags), Truths::Flags(&flags)),
            Kind::Numbers => (wanted, Truths::Numbers(&singles)),
        };
        let mut words = [0; BYTES / 4];
        words[SLOT] = 2;
        let (scalars, results) = (bench.device.words(&words), bench.device.place(4 * RESULT));
        let [temperature, weight] = soft.unwrap_or([1.0, 0.0]);
        let objective = Objective {
            logits,
            truths: place,
            kind,
            smoothing,
            teacher: soft.map(|_| teacher),
            temperature,
            weight,
            gradient: bench.output([examples, 1, outputs]),
            losses: bench.device.place(4 * examples),
            right: bench.device.place(4 * examples),
        };
        objective_and_finish(&mut bench.tape, &objective, scalars, results);
        bench.play();
        let soft = soft.map(|_| Soft { teacher: &ts[..], temperature: temperature.into(), weight: weight.into() });
        let targets = Targets { truths, smoothing: smoothing.into(), soft };
        let (mut gradient, mut rows) = (vec![0.0; xs.len()], Vec::new());
        let mean = loss::objective(&xs, examples, targets, &mut gradient, &mut rows);
        bench.check(&format!("gradient of {kind:?}"), objective.gradient, &gradient);
        near("losses", &bench.device.floats(objective.losses), &rows, 1e-5);
        let right = (0..examples).filter(|i| loss::is_right(&xs[i * outputs..][..outputs], truths.of(*i, outputs)));
        let words = bench.device.read_words(results.part(2 * RESULT, RESULT));
        let got = f64::from_bits(u64::from(words[0]) | u64::from(words[1]) << 32);
        assert!((got - mean).abs() < 1e-5 * mean.abs().max(0.1), "{case:?}: {got} for {mean}");
        assert_eq!(words[2..], [right.count() as u32, 0]);
    }

    #[test]
    fn losses_and_gradients_are_those_of_the_processor() {
        for storage in STORAGES {
            for kind in [Kind::Classes, Kind::Flags, Kind::Numbers] {
                for (examples, outputs) in [(1, 1), (7, 3), (129, 10), (5, 37), (33, 1000), (1000, 10)] {
                    for soft in [None, Some([2.0, 0.9]), Some([0.5, 1.0])] {
                        let smoothing = if soft.is_none() { 0.1 } else { 0.0 };
                        run(Case { storage, kind, examples, outputs, smoothing, soft });
                        run(Case { storage, kind, examples, outputs, smoothing: 0.0, soft });
                    }
                }
            }
        }
    }

    /// Far and equal logits, and those that are none.
    #[test]
    fn extreme_logits_are_as_on_the_processor() {
        let nan = f64::NAN;
        let rows = [[1e30, 0.0, 0.0], [2.0, 5.0, 5.0], [nan, 1.0, 0.0], [0.0, nan, -1.0], [-80.0, 80.0, -1e4]];
        let labels = [0, 1, 0, 0, 1];
        let mut bench = Bench::new(Storage::F32);
        let (logits, xs) = bench.values([5, 1, 3], rows.as_flattened());
        let truths = bench.device.words(&labels);
        let objective = Objective {
            logits,
            truths,
            kind: Kind::Classes,
            smoothing: 0.0,
            teacher: None,
            temperature: 1.0,
            weight: 0.0,
            gradient: bench.output([5, 1, 3]),
            losses: bench.device.place(20),
            right: bench.device.place(20),
        };
        let (scalars, results) = (bench.device.words(&[0; 16]), bench.device.place(RESULT));
        objective_and_finish(&mut bench.tape, &objective, scalars, results);
        bench.play();
        let (mut gradient, mut losses) = (vec![0.0; 15], Vec::new());
        loss::objective(&xs, 5, Targets::of(&labels), &mut gradient, &mut losses);
        let (got, right) = (bench.device.floats(objective.losses), bench.device.read_words(objective.right));
        for (example, expected) in losses.iter().enumerate() {
            let close = (f64::from(got[example]) - expected).abs() <= 1e-6 * expected.abs();
            assert!(close || expected.is_nan() && got[example].is_nan(), "{} for {expected}", got[example]);
            let expected = loss::argmax(&xs[3 * example..][..3]) == labels[example] as usize;
            assert_eq!(right[example], u32::from(expected), "example {example}");
        }
        assert_eq!(bench.device.read_words(results)[3], 1, "the mean is none");
    }
}
