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

    fn on_threads(&self, task: &mut (dyn FnMut() + Send)) {
        self.install(task);
    }
}
