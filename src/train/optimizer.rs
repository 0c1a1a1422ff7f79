//! Stochastic gradient descent as in PyTorch.

use rayon::prelude::*;

use crate::job::request::Optimizer;
use crate::kernels::PIECE;
use crate::train::network::Parameter;

/// SGD with its momentum buffers, which start at 0 (PyTorch's start at the first gradient: the same).
#[derive(Debug)]
pub struct Sgd {
    lr: f32,
    momentum: f32,
    nesterov: bool,
    weight_decay: f32,
    /// One buffer per parameter, in the network's order of axes.
    pub(super) velocity: Vec<Vec<f32>>,
}

impl Sgd {
    /// With the constants of `optimizer`, for a network with these `parameters`.
    #[must_use]
    pub fn new(optimizer: &Optimizer, parameters: &[Parameter<f32>]) -> Self {
        let Optimizer::Sgd { lr, momentum, nesterov, weight_decay } = *optimizer;
        let velocity = parameters.iter().map(|parameter| vec![0.0; parameter.shape.iter().product()]);
        Self { lr, momentum, nesterov, weight_decay, velocity: velocity.collect() }
    }

    /// The learning rate where the schedule stands at `factor`.
    #[must_use]
    pub fn rate(&self, factor: f64) -> f64 {
        f64::from(self.lr) * factor
    }

    /// One step along the parameters' gradients: `v = momentum v + (g + weight_decay w)`, `w -= rate v`, or with
    /// Nesterov `w -= rate (g + weight_decay w + momentum v)`.
    pub fn step(&mut self, parameters: &mut [Parameter<f32>], factor: f64) {
        let rate = self.rate(factor) as f32;
        let (momentum, weight_decay, nesterov) = (self.momentum, self.weight_decay, self.nesterov);
        for (parameter, velocity) in parameters.iter_mut().zip(&mut self.velocity) {
            let (values, gradient) = parameter.values_and_gradient();
            let pieces = values.par_chunks_mut(PIECE).zip(gradient.par_chunks(PIECE));
            pieces.zip(velocity.par_chunks_mut(PIECE)).for_each(|((values, gradient), velocity)| {
                for ((w, g), v) in values.iter_mut().zip(gradient).zip(velocity) {
                    let slope = g + weight_decay * *w;
                    *v = momentum * *v + slope;
                    *w -= rate * if nesterov { slope + momentum * *v } else { *v };
                }
            });
        }
    }
}
