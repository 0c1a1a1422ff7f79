//! A device with memory of its own as an engine.

use crate::exec::engine::{Engine, EngineError, Gradients, Held, Inputs, Step, StoredImages, Update};
use crate::exec::gpu::device::Device;
use crate::exec::gpu::kernels::objective::Kind;
use crate::exec::gpu::kernels::scalars;
use crate::exec::gpu::network::GpuNetwork;
use crate::exec::gpu::program::{Aim, Pass};
use crate::exec::lowering::MOMENTUM;
use crate::exec::parameters::RunningStatistics;
use crate::kernels::batch_norm::Momentum;
use crate::kernels::dropout::Draw;
use crate::kernels::loss::Targets;
use crate::kernels::truth::Truths;
use crate::settings::Optimizer;
use crate::tensors::{StateDict, Weights};

/// Numbers that change from step to step, as the device reads them.
#[derive(Debug, Clone, Copy)]
struct Scalars([u8; scalars::BYTES]);

impl Scalars {
    /// With a scale of 1 and a share of `momentum` in running statistics.
    fn new(momentum: f64) -> Self {
        let mut scalars = Self([0; scalars::BYTES]);
        scalars.put(scalars::SCALE, 1.0);
        scalars.put(scalars::MOMENTUM, momentum as f32);
        scalars
    }

    fn put(&mut self, word: usize, number: f32) {
        self.bytes(word, &number.to_le_bytes());
    }

    fn bytes(&mut self, word: usize, bytes: &[u8]) {
        self.0[word * 4..][..bytes.len()].copy_from_slice(bytes);
    }

    fn draw(&mut self, draw: Draw) {
        self.bytes(scalars::SEED, &draw.seed.to_le_bytes());
        self.bytes(scalars::STEP, &draw.step.to_le_bytes());
    }

    /// The rates of the step number `steps` (from 1).
    fn rates(&mut self, rule: &Optimizer, update: Update, steps: u64) {
        let rate = rule.rate(update.lr_scale);
        self.put(scalars::CLIP, update.clip_norm.unwrap_or(0.0));
        match rule {
            Optimizer::Sgd { .. } => self.put(scalars::RATE, rate as f32),
            Optimizer::AdamW { betas, .. } => {
                let correction = |beta: f32| 1.0 - f64::from(beta).powf(steps as f64);
                self.put(scalars::RATE, (rate / correction(betas[0])) as f32);
                self.put(scalars::ROOT, correction(betas[1]).sqrt() as f32);
                self.put(scalars::BASE, rate as f32);
            }
        }
    }
}

impl<D: Device> GpuNetwork<D> {
    /// Brings a batch and what its outputs should be to the device.
    fn stage_targets(&mut self, inputs: Inputs<'_>, targets: Targets<'_, f32>) -> Result<(usize, Aim), EngineError> {
        let examples = inputs.examples(self.example);
        let fits = targets.truths.fit(examples, self.classes)
            && targets.soft.is_none_or(|soft| soft.teacher.len() == examples * self.classes);
        if !fits {
            return Err(self.batch_error(inputs).into());
        }
        self.prepare_training()?;
        self.stage(inputs)?;
        let (kind, bytes): (Kind, &[u8]) = match targets.truths {
            Truths::Classes(classes) => (Kind::Classes, bytemuck::cast_slice(classes)),
            Truths::Flags(flags) => (Kind::Flags, bytemuck::cast_slice(flags)),
            Truths::Numbers(numbers) => (Kind::Numbers, bytemuck::cast_slice(numbers)),
        };
        self.device.write(self.arena.truths.part(0, bytes.len()), bytes)?;
        if let Some(soft) = targets.soft {
            let bytes = bytemuck::cast_slice(soft.teacher);
            self.device.write(self.arena.teacher.part(0, bytes.len()), bytes)?;
        }
        let soft = targets.soft.map(|soft| [soft.temperature as f32, soft.weight as f32]);
        Ok((examples, Aim { kind, smoothing: targets.smoothing as f32, soft }))
    }

    /// Plays a pass with gradients that takes no step. Results of steps before it are not lost.
    fn without_step(&mut self, pass: Pass, examples: usize, draw: Draw) -> Result<Step, EngineError> {
        let mut scalars = Scalars::new(MOMENTUM);
        scalars.draw(draw);
        let mut before = self.results(true)?;
        let slot = self.next_slot()?;
        scalars.bytes(scalars::SLOT, &slot.to_le_bytes());
        self.write_scalars(scalars.0)?;
        self.play(pass, examples)?;
        self.count_batch();
        let step = self.results(true)?.pop();
        self.put_back(&mut before);
        Ok(step.unwrap_or(Step { loss: f64::NAN, correct: 0 }))
    }

    /// Counts a batch that moves the running statistics.
    fn count_batch(&mut self) {
        for running in &mut self.compiled.running {
            running.since_reset += 1;
            running.tracked = running.tracked.map(|tracked| tracked.saturating_add(1));
        }
    }
}

impl<D: Device> Engine for GpuNetwork<D> {
    fn classes(&self) -> usize {
        self.classes
    }

    fn example_len(&self) -> usize {
        self.example
    }

    fn max_batch(&self) -> usize {
        self.max_batch
    }

    fn load(&mut self, weights: &dyn Weights) -> Result<(), EngineError> {
        let flat = self.flat("", weights)?;
        self.write_weights(&flat)?;
        for running in &mut self.compiled.running {
            running.load(weights)?;
        }
        Ok(self.write_running()?)
    }

    fn state_dict(&mut self) -> Result<StateDict, EngineError> {
        let flat = self.read_flat(self.arena.weights)?;
        self.read_running()?;
        let mut weights = StateDict::default();
        self.named("", &flat, &mut weights)?;
        self.compiled.running.iter().try_for_each(|running| running.export(&mut weights))?;
        Ok(weights)
    }

    fn is_finite(&mut self) -> Result<bool, EngineError> {
        let flag = self.arena.flag;
        self.device.write(flag, &[0; 4])?;
        self.play(Pass::Finite, 1)?;
        let mut word = [0; 4];
        self.device.read(flag, &mut word)?;
        self.read_running()?;
        let finite =
            |running: &RunningStatistics<f32>| running.mean.iter().chain(&running.var).all(|value| value.is_finite());
        Ok(word == [0; 4] && self.compiled.running.iter().all(finite))
    }

    fn hold(&mut self, images: &StoredImages<'_>, seen: bool) -> Result<Option<Held>, EngineError> {
        Ok(self.keep(images, seen)?)
    }

    fn forward(&mut self, inputs: Inputs<'_>) -> Result<&[f32], EngineError> {
        let examples = self.stage(inputs)?;
        // One of few sizes: what is behind the end of the batch is computed and not looked at.
        self.play(Pass::Evaluate, examples.next_power_of_two().min(self.max_batch))?;
        self.read_logits(examples)?;
        Ok(&self.logits[..examples * self.classes])
    }

    fn learned(&self) -> Vec<(&str, &[usize])> {
        let parameters = self.compiled.parameters.iter();
        parameters.map(|parameter| (parameter.name.as_str(), &parameter.shape[..])).collect()
    }

    fn init_optimizer(&mut self, rule: &Optimizer) {
        self.forget_steps();
        (self.rule, self.steps) = (Some(*rule), 0);
    }

    fn step(
        &mut self,
        inputs: Inputs<'_>,
        targets: Targets<'_, f32>,
        update: Update,
        draw: Draw,
    ) -> Result<(), EngineError> {
        let (examples, aim) = self.stage_targets(inputs, targets)?;
        self.start_optimizer()?;
        let mut scalars = Scalars::new(MOMENTUM);
        scalars.draw(draw);
        let slot = self.next_slot()?;
        scalars.bytes(scalars::SLOT, &slot.to_le_bytes());
        if let Some(rule) = &self.rule {
            self.steps += 1;
            scalars.rates(rule, update, self.steps);
        }
        self.write_scalars(scalars.0)?;
        self.play(Pass::Step { aim, rule: self.rule, clips: update.clip_norm.is_some() }, examples)?;
        self.count_batch();
        Ok(())
    }

    fn take_steps(&mut self, wait: bool) -> Result<Vec<Step>, EngineError> {
        Ok(self.results(wait)?)
    }

    fn gradients(
        &mut self,
        inputs: Inputs<'_>,
        targets: Targets<'_, f32>,
        draw: Draw,
    ) -> Result<Gradients, EngineError> {
        let (examples, aim) = self.stage_targets(inputs, targets)?;
        let step = self.without_step(Pass::Gradients(aim), examples, draw)?;
        let place = self.arena.training.map_or(self.arena.weights, |training| training.gradients);
        let flat = self.read_flat(place)?;
        Ok(Gradients { step, tensors: self.tensors(&flat) })
    }

    fn add_saliency(
        &mut self,
        inputs: Inputs<'_>,
        targets: Targets<'_, f32>,
        draw: Draw,
        squared: bool,
    ) -> Result<(), EngineError> {
        let (examples, aim) = self.stage_targets(inputs, targets)?;
        self.start_saliency()?;
        self.without_step(Pass::Saliency { aim, squared }, examples, draw)?;
        Ok(())
    }

    fn take_saliency(&mut self) -> Result<Vec<Vec<f32>>, EngineError> {
        let means = self.end_saliency()?;
        Ok(self.tensors(&means))
    }

    fn save_optimizer(&mut self) -> Result<(u64, StateDict), EngineError> {
        let mut tensors = StateDict::default();
        let Some(rule) = self.rule else { return Ok((0, tensors)) };
        self.prepare_training()?;
        self.start_optimizer()?;
        for (name, place) in self.states(&rule) {
            let flat = self.read_flat(place)?;
            self.named(&format!("{name}."), &flat, &mut tensors)?;
        }
        Ok((self.steps, tensors))
    }

    fn load_optimizer(&mut self, steps: u64, buffers: &dyn Weights) -> Result<(), EngineError> {
        let Some(rule) = self.rule else { return Ok(()) };
        self.prepare_training()?;
        self.start_optimizer()?;
        for (name, place) in self.states(&rule) {
            let flat = self.flat(&format!("{name}."), buffers)?;
            self.write_flat(place, &flat)?;
        }
        self.steps = steps;
        Ok(())
    }

    fn has_statistics(&self) -> bool {
        !self.compiled.running.is_empty()
    }

    fn reset_statistics(&mut self) -> Result<(), EngineError> {
        self.compiled.running.iter_mut().for_each(RunningStatistics::reset);
        Ok(self.write_running()?)
    }

    fn reestimate(&mut self, inputs: Inputs<'_>) -> Result<(), EngineError> {
        let examples = self.stage(inputs)?;
        self.count_batch();
        let batches = self.compiled.running.first().map_or(1, |running| running.since_reset);
        self.write_scalars(Scalars::new(Momentum::Cumulative(batches).share()).0)?;
        Ok(self.play(Pass::Reestimate, examples)?)
    }

    fn arithmetic(&self) -> Option<String> {
        Some(self.device.arithmetic())
    }

    fn remark(&self) -> Option<String> {
        self.device.remark()
    }

    fn on_threads(&self, task: &mut (dyn FnMut() + Send)) {
        self.install(task);
    }
}
