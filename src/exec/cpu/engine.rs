//! The CPU as a device.

use crate::exec::cpu::{CpuNetwork, OptimizerState};
use crate::exec::engine::{Engine, EngineError, Gradients, Held, Inputs, LoadError, Step, StoredImages, Update};
use crate::kernels::dropout::Draw;
use crate::kernels::loss::Targets;
use crate::settings::Optimizer;
use crate::tensors::{StateDict, Weights};

/// The processor holds no images, so that it is never asked for some of those: an empty batch, which no network takes.
fn images(inputs: Inputs<'_>) -> &[f32] {
    match inputs {
        Inputs::Images(images) => images,
        Inputs::Held { .. } => &[],
    }
}

impl Engine for CpuNetwork<f32> {
    fn classes(&self) -> usize {
        self.classes()
    }

    fn example_len(&self) -> usize {
        self.example_len()
    }

    fn max_batch(&self) -> usize {
        self.max_batch()
    }

    fn load(&mut self, weights: &dyn Weights) -> Result<(), EngineError> {
        Ok(self.load(weights)?)
    }

    fn state_dict(&mut self) -> Result<StateDict, EngineError> {
        Ok(Self::state_dict(self)?)
    }

    fn is_finite(&mut self) -> Result<bool, EngineError> {
        Ok(Self::is_finite(self))
    }

    fn hold(&mut self, _: &StoredImages<'_>, _: bool) -> Result<Option<Held>, EngineError> {
        Ok(None)
    }

    fn forward(&mut self, inputs: Inputs<'_>) -> Result<&[f32], EngineError> {
        Ok(self.forward(images(inputs))?)
    }

    fn learned(&self) -> Vec<(&str, &[usize])> {
        self.parameters().iter().map(|parameter| (parameter.name.as_str(), &parameter.shape[..])).collect()
    }

    fn init_optimizer(&mut self, rule: &Optimizer) {
        self.optimizer = Some(OptimizerState::new(rule, self.parameters()));
        self.done.clear();
    }

    fn step(
        &mut self,
        inputs: Inputs<'_>,
        targets: Targets<'_, f32>,
        update: Update,
        draw: Draw,
    ) -> Result<(), EngineError> {
        self.draw_from(draw);
        let step = self.gradients(images(inputs), targets)?;
        if let Some(mut optimizer) = self.optimizer.take() {
            self.update(|parameters| optimizer.step(parameters, update));
            self.optimizer = Some(optimizer);
        }
        self.done.push(step);
        Ok(())
    }

    fn take_steps(&mut self, _: bool) -> Result<Vec<Step>, EngineError> {
        Ok(std::mem::take(&mut self.done))
    }

    fn gradients(
        &mut self,
        inputs: Inputs<'_>,
        targets: Targets<'_, f32>,
        draw: Draw,
    ) -> Result<Gradients, EngineError> {
        self.draw_from(draw);
        let step = self.gradients(images(inputs), targets)?;
        let tensors = self.parameters().iter().map(|parameter| parameter.to_pytorch(&parameter.gradient)).collect();
        Ok(Gradients { step, tensors })
    }

    fn add_saliency(
        &mut self,
        inputs: Inputs<'_>,
        targets: Targets<'_, f32>,
        draw: Draw,
        squared: bool,
    ) -> Result<(), EngineError> {
        self.draw_from(draw);
        self.gradients(images(inputs), targets)?;
        let parameters = &self.compiled.parameters;
        let (sums, batches) = &mut self.saliency;
        sums.resize_with(parameters.len(), Vec::new);
        for (sums, parameter) in sums.iter_mut().zip(parameters) {
            sums.resize(parameter.values.len(), 0.0);
            for (sum, (weight, gradient)) in sums.iter_mut().zip(parameter.values.iter().zip(&parameter.gradient)) {
                let product = f64::from(*weight) * f64::from(*gradient);
                *sum += if squared { product * product } else { product };
            }
        }
        *batches += 1;
        Ok(())
    }

    fn take_saliency(&mut self) -> Result<Vec<Vec<f32>>, EngineError> {
        let (sums, batches) = std::mem::take(&mut self.saliency);
        let count = batches.max(1) as f64;
        let means = self.parameters().iter().enumerate().map(|(index, parameter)| {
            let mean = |sum: &f64| (sum / count) as f32;
            let none = || vec![0.0; parameter.values.len()];
            parameter.to_pytorch(&sums.get(index).map_or_else(none, |sums| sums.iter().map(mean).collect()))
        });
        Ok(means.collect())
    }

    fn save_optimizer(&mut self) -> Result<(u64, StateDict), EngineError> {
        let mut tensors = StateDict::default();
        let Some(optimizer) = &self.optimizer else { return Ok((0, tensors)) };
        for (prefix, buffers) in &optimizer.buffers {
            for (parameter, values) in self.parameters().iter().zip(buffers) {
                let name = format!("{prefix}.{}", parameter.name);
                tensors.insert_f32(&name, &parameter.shape, parameter.to_pytorch(values))?;
            }
        }
        Ok((optimizer.steps, tensors))
    }

    fn load_optimizer(&mut self, steps: u64, buffers: &dyn Weights) -> Result<(), EngineError> {
        let Some(mut optimizer) = self.optimizer.take() else { return Ok(()) };
        optimizer.steps = steps;
        for (prefix, values) in &mut optimizer.buffers {
            for (parameter, values) in self.parameters().iter().zip(values) {
                let tensor = buffers.f32(&format!("{prefix}.{}", parameter.name)).map_err(LoadError::from)?;
                *values = parameter.from_pytorch(&tensor)?;
            }
        }
        self.optimizer = Some(optimizer);
        Ok(())
    }

    fn has_statistics(&self) -> bool {
        self.has_statistics()
    }

    fn reset_statistics(&mut self) -> Result<(), EngineError> {
        Self::reset_statistics(self);
        Ok(())
    }

    fn reestimate(&mut self, inputs: Inputs<'_>) -> Result<(), EngineError> {
        Ok(self.reestimate(images(inputs))?)
    }

    fn arithmetic(&self) -> Option<String> {
        None
    }

    fn remark(&self) -> Option<String> {
        None
    }

    fn on_threads(&self, task: &mut (dyn FnMut() + Send)) {
        self.install(task);
    }
}
