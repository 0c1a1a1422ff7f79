//! Whole passes over a network as tapes.

use crate::exec::gpu::arena::TrainingPlaces;
use crate::exec::gpu::emit::Emitter;
use crate::exec::gpu::kernels::gradients;
use crate::exec::gpu::kernels::objective::{self, Kind, Objective};
use crate::exec::gpu::kernels::optimizer::{self, AdamW, Sgd};
use crate::exec::lowering::Mode;
use crate::settings::Optimizer;

/// What is minimised, as far as it does not change from batch to batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Aim {
    /// What outputs are compared with.
    pub(super) kind: Kind,
    /// See [`crate::kernels::loss::Targets`].
    pub(super) smoothing: f32,
    /// Temperature and weight of a teacher.
    pub(super) soft: Option<[f32; 2]>,
}

/// What a tape does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pass {
    /// Logits with running statistics.
    Evaluate,
    /// Running statistics anew.
    Reestimate,
    /// Gradients, and no step.
    Gradients(Aim),
    /// Gradients, whose products with the weights are added up.
    Saliency {
        /// What is minimised.
        aim: Aim,
        /// Whether the products are squared.
        squared: bool,
    },
    /// A step of training.
    Step {
        /// What is minimised.
        aim: Aim,
        /// By which rule; `None` learns nothing.
        rule: Option<Optimizer>,
        /// Whether the norm of the gradients is bounded.
        clips: bool,
    },
    /// Whether all weights are finite.
    Finite,
}

impl Pass {
    /// How BatchNorm and dropout behave.
    pub(super) fn mode(self) -> Mode {
        match self {
            Self::Evaluate | Self::Finite => Mode::Evaluate,
            Self::Reestimate => Mode::Reestimate,
            Self::Gradients(_) | Self::Saliency { .. } | Self::Step { .. } => Mode::Train,
        }
    }
}

impl Emitter<'_> {
    /// Puts all of `pass` on the tape.
    pub(super) fn pass(&mut self, pass: Pass) {
        if pass == Pass::Finite {
            let numbers = self.parameters.numbers;
            return optimizer::finite(self.tape, self.arena.weights, numbers, self.arena.flag);
        }
        (0..self.compiled.layers.len()).for_each(|layer| self.forward(layer));
        match pass {
            Pass::Evaluate | Pass::Reestimate | Pass::Finite => {}
            Pass::Gradients(aim) => self.learn(aim),
            Pass::Saliency { aim, squared } => {
                self.learn(aim);
                if let Some(TrainingPlaces { gradients: own, state, .. }) = self.arena.training {
                    gradients::add_saliency(
                        self.tape,
                        [self.arena.weights, own],
                        state,
                        self.parameters.numbers,
                        squared,
                    );
                }
            }
            Pass::Step { aim, rule, clips } => {
                self.learn(aim);
                self.update(rule, clips);
            }
        }
    }

    /// The objective and all gradients.
    fn learn(&mut self, aim: Aim) {
        let output = self.compiled.output;
        let Some(gradient) = self.gradient(output) else { return };
        let (losses, right) = (self.arena.losses, self.arena.right);
        let [temperature, weight] = aim.soft.unwrap_or([1.0, 0.0]);
        let objective = Objective {
            logits: self.value(output),
            truths: self.arena.truths,
            kind: aim.kind,
            smoothing: aim.smoothing,
            teacher: aim.soft.map(|_| self.arena.teacher),
            temperature,
            weight,
            gradient,
            losses,
            right,
        };
        objective::objective_and_finish(self.tape, &objective, self.arena.scalars, self.arena.results);
        (0..self.compiled.layers.len()).rev().for_each(|layer| self.backward(layer));
        let convolutions = self.parameters.convolutions > 0;
        if let Some(TrainingPlaces { gradients: wide, low_gradients: Some(low), .. }) =
            self.arena.training.filter(|_| convolutions)
        {
            gradients::widen(self.tape, low, wide, self.parameters.convolutions);
        }
    }

    /// A step along the gradients.
    fn update(&mut self, rule: Option<Optimizer>, clips: bool) {
        let (Some(rule), Some(training)) = (rule, self.arena.training) else { return };
        let (numbers, scalars) = (self.parameters.numbers, self.arena.scalars);
        if clips {
            optimizer::gradient_norm(self.tape, training.gradients, numbers, scalars);
        }
        let (weights, gradients, low) = (self.arena.weights, training.gradients, self.arena.low);
        let decaying = |all: bool| if all { numbers } else { self.parameters.matrices };
        match rule {
            Optimizer::Sgd { momentum, nesterov, weight_decay, decay_norms_and_biases, .. } => {
                let decaying = decaying(decay_norms_and_biases);
                let [velocity, _] = training.state;
                let sgd = Sgd {
                    weights,
                    gradients,
                    velocity,
                    numbers,
                    decaying,
                    momentum,
                    weight_decay,
                    nesterov,
                    scalars,
                    low,
                };
                optimizer::sgd(self.tape, sgd);
            }
            Optimizer::AdamW { betas, eps, weight_decay, decay_norms_and_biases, .. } => {
                let decaying = decaying(decay_norms_and_biases);
                let [mean, square] = training.state;
                let adamw = AdamW {
                    weights,
                    gradients,
                    mean,
                    square,
                    numbers,
                    decaying,
                    betas,
                    eps,
                    weight_decay,
                    scalars,
                    low,
                };
                optimizer::adamw(self.tape, adamw);
            }
        }
    }
}
