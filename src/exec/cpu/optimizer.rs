//! The optimizers, as in PyTorch.

use rayon::prelude::*;

use crate::exec::engine::Update;
use crate::exec::parameters::LearnedParameter;
use crate::kernels::PIECE;
use crate::settings::Optimizer;

/// Values per parameter, in the network's order of axes.
pub(super) type Buffers = Vec<Vec<f32>>;

/// An optimizer between two steps.
#[derive(Debug)]
pub struct OptimizerState {
    rule: Optimizer,
    /// Steps done.
    pub(super) steps: u64,
    /// SGD's momentum (from 0; PyTorch's starts at the first gradient: the same), or `AdamW`'s running means of gradients
    /// and of their squares; each with its name in checkpoints.
    pub(super) buffers: Vec<(&'static str, Buffers)>,
}

impl OptimizerState {
    /// With the constants of `rule`, for a network with these `parameters`.
    #[must_use]
    pub fn new(rule: &Optimizer, parameters: &[LearnedParameter<f32>]) -> Self {
        let zeros = || parameters.iter().map(|parameter| vec![0.0; parameter.shape.iter().product()]).collect();
        let names = match rule {
            Optimizer::Sgd { .. } => &["velocity"][..],
            Optimizer::AdamW { .. } => &["mean", "square"],
        };
        Self { rule: *rule, steps: 0, buffers: names.iter().map(|name| (*name, zeros())).collect() }
    }

    /// One step along the parameters' gradients g, which are scaled down first if they are longer than allowed.
    ///
    /// SGD: `v = momentum v + (g + weight_decay w)`, `w -= rate v`, or with Nesterov
    /// `w -= rate (g + weight_decay w + momentum v)`. `AdamW`: `w -= rate weight_decay w`, then
    /// `w -= rate m̂ / (sqrt(v̂) + eps)` with the bias-corrected running means m̂ of g and v̂ of g².
    pub fn step(&mut self, parameters: &mut [LearnedParameter<f32>], update: Update) {
        self.steps += 1;
        let rate = self.rule.rate(update.lr_scale);
        let scale = update.clip_norm.map_or(1.0, |most| shrink(norm(parameters), most));
        match (self.rule, &mut self.buffers[..]) {
            (Optimizer::Sgd { momentum, nesterov, weight_decay, decay_norms_and_biases, .. }, [(_, velocity)]) => {
                let sgd = Sgd { rate: rate as f32, momentum, nesterov, scale };
                for (parameter, velocity) in parameters.iter_mut().zip(velocity) {
                    let decay = if decays(parameter, decay_norms_and_biases) { weight_decay } else { 0.0 };
                    sgd.step(parameter, velocity, decay);
                }
            }
            (Optimizer::AdamW { betas, eps, weight_decay, decay_norms_and_biases, .. }, [(_, means), (_, squares)]) => {
                let adam = AdamW::new(rate, betas, eps, self.steps, scale);
                for ((parameter, mean), square) in parameters.iter_mut().zip(means).zip(squares) {
                    let decay = if decays(parameter, decay_norms_and_biases) { weight_decay } else { 0.0 };
                    adam.step(parameter, mean, square, (rate * f64::from(decay)) as f32);
                }
            }
            _ => {}
        }
    }
}

/// Whether a parameter decays: biases and the factors of norms, the ones with a single axis, may be spared.
fn decays(parameter: &LearnedParameter<f32>, all: bool) -> bool {
    all || parameter.shape.len() > 1
}

/// Norm of all gradients together, added up in a fixed order.
fn norm(parameters: &mut [LearnedParameter<f32>]) -> f64 {
    let squares = |gradient: &[f32]| -> f64 {
        let piece = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        gradient.par_chunks(PIECE).map(piece).collect::<Vec<f64>>().into_iter().sum()
    };
    parameters.iter_mut().map(|parameter| squares(parameter.values_and_gradient().1)).sum::<f64>().sqrt()
}

/// The factor that brings a gradient of this norm down to `most`; PyTorch's `clip_grad_norm_`.
fn shrink(norm: f64, most: f32) -> f32 {
    let factor = f64::from(most) / (norm + 1e-6);
    if factor < 1.0 || factor.is_nan() { factor as f32 } else { 1.0 }
}

/// SGD's constants in a step.
#[derive(Debug, Clone, Copy)]
struct Sgd {
    rate: f32,
    momentum: f32,
    nesterov: bool,
    scale: f32,
}

impl Sgd {
    fn step(self, parameter: &mut LearnedParameter<f32>, velocity: &mut [f32], decay: f32) {
        let (values, gradient) = parameter.values_and_gradient();
        let pieces = values.par_chunks_mut(PIECE).zip(gradient.par_chunks(PIECE));
        pieces.zip(velocity.par_chunks_mut(PIECE)).for_each(|((values, gradient), velocity)| {
            for ((w, g), v) in values.iter_mut().zip(gradient).zip(velocity) {
                let slope = self.scale * g + decay * *w;
                *v = self.momentum * *v + slope;
                *w -= self.rate * if self.nesterov { slope + self.momentum * *v } else { *v };
            }
        });
    }
}

/// `AdamW`'s constants in a step.
#[derive(Debug, Clone, Copy)]
struct AdamW {
    /// Learning rate by the correction of the mean's bias.
    rate: f32,
    betas: [f32; 2],
    eps: f32,
    /// Root of the correction of the squares' bias.
    root: f32,
    scale: f32,
}

impl AdamW {
    fn new(rate: f64, betas: [f32; 2], eps: f32, steps: u64, scale: f32) -> Self {
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(steps as f64);
        Self { rate: (rate / correction(betas[0])) as f32, betas, eps, root: correction(betas[1]).sqrt() as f32, scale }
    }

    /// `decay` is the share of the weights that is taken off.
    fn step(self, parameter: &mut LearnedParameter<f32>, mean: &mut [f32], square: &mut [f32], decay: f32) {
        let (values, gradient) = parameter.values_and_gradient();
        let pieces = values.par_chunks_mut(PIECE).zip(gradient.par_chunks(PIECE));
        let buffers = mean.par_chunks_mut(PIECE).zip(square.par_chunks_mut(PIECE));
        pieces.zip(buffers).for_each(|((values, gradient), (mean, square))| {
            for (((w, g), m), s) in values.iter_mut().zip(gradient).zip(mean).zip(square) {
                let g = self.scale * g;
                *m += (1.0 - self.betas[0]) * (g - *m);
                *s = self.betas[1] * *s + (1.0 - self.betas[1]) * g * g;
                *w -= decay * *w;
                *w -= self.rate * *m / (s.sqrt() / self.root + self.eps);
            }
        });
    }
}
