//! What training minimises, with its gradient.

use crate::exec::gpu::kernels::elementwise::{THREADS, group, per_row};
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

/// Bytes of a batch's result: the mean loss (f64), the number of those that are right (`u32`) and 1 where the mean is not finite (`u32`).
pub const RESULT: usize = 16;

/// Most numbers that a single block looks at.
const WHOLE: usize = 8192;

impl Objective {
    fn examples(&self) -> usize {
        self.logits.examples
    }

    fn arguments(&self, tape: &Tape, group: usize) -> Vec<Argument> {
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
            per_row(tape, self.logits).into(),
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
    let group = group(per_row(tape, objective.logits));
    let blocks = (objective.examples() * group).div_ceil(THREADS);
    let arguments = objective.arguments(tape, group);
    tape.launch("objective", [blocks, 1, 1], THREADS, arguments);
}

/// The mean loss and how many are right, as the [`RESULT`] of the slot that the [`scalars`](super::optimizer::scalars) name.
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
    let group = group(per_row(tape, objective.logits));
    let threads = (examples * group).next_multiple_of(32).min(512);
    let mut arguments = objective.arguments(tape, group);
    arguments.extend([Argument::from(scalars), results.into()]);
    tape.launch("objective_whole", [1, 1, 1], threads, arguments);
}
