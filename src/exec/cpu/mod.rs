//! A graph compiled for running and training on the CPU.

mod engine;
mod layer;
mod memory;
mod optimizer;

use std::num::NonZeroUsize;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::exec::compile::{Compiled, Melting, Spacing, compile};
use crate::exec::cpu::layer::Pass;
use crate::exec::cpu::memory::Memory;
use crate::exec::engine::{BatchError, CompileError, LoadError, Step};
use crate::exec::layer::Layer;
use crate::exec::lowering::Mode;
use crate::exec::memory::Purpose;
use crate::exec::parameters::{LearnedParameter, RunningStatistics};
use crate::kernels::dropout::Draw;
use crate::kernels::loss::{self, Targets};
use crate::kernels::{Float, Workspace};
use crate::model::graph::Graph;
use crate::tensors::{StateDict, StateDictError, Weights};

pub use optimizer::OptimizerState;

/// A compiled network with its weights, buffers and threads.
#[derive(Debug)]
pub struct CpuNetwork<T = f32> {
    compiled: Compiled<T>,
    memory: Memory<T>,
    work: Workspace<T>,
    pool: ThreadPool,
    rows: Vec<f64>,
    example: usize,
    classes: usize,
    max_batch: usize,
    draw: Draw,
    /// While it learns by the steps of an engine.
    optimizer: Option<OptimizerState>,
    /// Results of steps that nobody has taken.
    done: Vec<Step>,
    /// What each weight was worth in all batches, and how many these are.
    saliency: (Vec<Vec<f64>>, usize),
}

impl<T: Float> CpuNetwork<T> {
    /// Compiles `graph` for batches of up to `max_batch` examples and `threads` threads (both at least 1). All weights
    /// are 0 until [`Self::load`].
    ///
    /// # Errors
    /// When the output is no vector, or no threads can be had.
    pub fn compile(graph: &Graph, max_batch: usize, threads: usize) -> Result<Self, CompileError> {
        if !graph.is_classifier() {
            let (node, shape) = (graph.node(graph.output()).name.clone(), graph.shape(graph.output()).clone());
            return Err(CompileError::Output { node, shape });
        }
        let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
        let pool = ThreadPoolBuilder::new().num_threads(threads.get()).thread_name(|i| format!("compute-{i}"));
        let pool = pool.build().map_err(|source| CompileError::Threads { threads: threads.get(), source })?;
        let compiled = compile(graph, Spacing::Dense, Melting::Allowed);
        let max_batch = max_batch.max(1);
        let memory = Memory::plan(&compiled.values, compiled.layers.len(), max_batch, Purpose::Inference);
        let (example, classes) = (graph.input_shape().iter().product(), graph.classes());
        Ok(Self {
            compiled,
            memory,
            work: Workspace::new(threads),
            pool,
            rows: Vec::new(),
            example,
            classes,
            max_batch,
            draw: Draw::default(),
            optimizer: None,
            done: Vec::new(),
            saliency: (Vec::new(), 0),
        })
    }

    /// Number of outputs.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Elements of one input example.
    #[must_use]
    pub fn example_len(&self) -> usize {
        self.example
    }

    /// Largest batch.
    #[must_use]
    pub fn max_batch(&self) -> usize {
        self.max_batch
    }

    /// Takes all weights from `weights`; tensors of other names are ignored.
    ///
    /// # Errors
    /// Names the first tensor that is missing or has another size. Some weights may have been replaced by then.
    pub fn load(&mut self, weights: &(impl Weights + ?Sized)) -> Result<(), LoadError> {
        for parameter in &mut self.compiled.parameters {
            parameter.values = parameter.from_pytorch(&weights.f32(&parameter.name)?)?;
        }
        self.compiled.running.iter_mut().try_for_each(|running| running.load(weights))
    }

    /// All weights in PyTorch's names and layouts.
    ///
    /// # Errors
    /// When the tensor library refuses.
    pub fn state_dict(&self) -> Result<StateDict, StateDictError> {
        let mut weights = StateDict::default();
        for parameter in &self.compiled.parameters {
            weights.insert_f32(&parameter.name, &parameter.shape, parameter.to_pytorch(&parameter.values))?;
        }
        self.compiled.running.iter().try_for_each(|running| running.export(&mut weights))?;
        Ok(weights)
    }

    /// The trained tensors, in order of computation.
    #[must_use]
    pub fn parameters(&self) -> &[LearnedParameter<T>] {
        &self.compiled.parameters
    }

    /// Whether all weights and running statistics are finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        let finite = |values: &[T]| values.iter().all(|value| value.f64().is_finite());
        self.compiled.parameters.iter().all(|parameter| finite(&parameter.values))
            && self.compiled.running.iter().all(|running| finite(&running.mean) && finite(&running.var))
    }

    /// Changes the trained tensors, on the network's own threads.
    pub fn update(&mut self, change: impl FnOnce(&mut [LearnedParameter<T>]) + Send) {
        let parameters = &mut self.compiled.parameters;
        self.pool.install(|| change(parameters));
    }

    /// Runs `task` on the network's own threads.
    pub fn install<R: Send>(&self, task: impl FnOnce() -> R + Send) -> R {
        self.pool.install(task)
    }

    /// The logits (batch x classes) of `images` (batch x channels x height x width), with running statistics.
    ///
    /// # Errors
    /// When `images` is not 1 to `max_batch` examples.
    pub fn forward(&mut self, images: &[T]) -> Result<&[T], BatchError> {
        self.run(images, Mode::Evaluate)
    }

    /// What dropout draws from in the gradients that are taken next; the same draw gives the same gradients.
    pub fn draw_from(&mut self, draw: Draw) {
        self.draw = draw;
    }

    /// Gradients of the objective by all parameters, BatchNorm and dropout in training mode; see [`loss::objective`].
    ///
    /// # Errors
    /// When `images` is not 1 to `max_batch` examples with a label (and teacher logits) for each.
    pub fn gradients(&mut self, images: &[T], targets: Targets<T>) -> Result<Step, BatchError> {
        let count = images.len() / self.example;
        if count * self.example != images.len()
            || !targets.truths.fit(count, self.classes)
            || targets.soft.is_some_and(|soft| soft.teacher.len() != count * self.classes)
        {
            return Err(self.batch_error(images));
        }
        self.prepare_training();
        self.run(images, Mode::Train)?;
        let output = self.compiled.output;
        let mut gradient = self.memory.take_gradient(output);
        let len = count * self.classes;
        let logits = &self.memory.activation(output)[..len];
        let (pool, rows) = (&self.pool, &mut self.rows);
        let loss = pool.install(|| loss::objective(logits, count, targets, &mut gradient[..len], rows));
        let outputs = logits.chunks_exact(self.classes).enumerate();
        let right = outputs.filter(|(index, logits)| loss::is_right(logits, targets.truths.of(*index, self.classes)));
        let correct = right.count();
        self.memory.put_gradient(output, gradient);
        self.backward(count);
        Ok(Step { loss, correct })
    }

    /// Whether there is a BatchNorm.
    #[must_use]
    pub fn has_statistics(&self) -> bool {
        !self.compiled.running.is_empty()
    }

    /// Forgets BatchNorm's running statistics; [`Self::reestimate`] measures them anew.
    pub fn reset_statistics(&mut self) {
        self.compiled.running.iter_mut().for_each(RunningStatistics::reset);
    }

    /// Lets BatchNorm's running statistics become the mean over all batches since they were reset, this one included.
    ///
    /// # Errors
    /// When `images` is not 1 to `max_batch` examples.
    pub fn reestimate(&mut self, images: &[T]) -> Result<(), BatchError> {
        self.run(images, Mode::Reestimate).map(|_| ())
    }

    fn batch_error(&self, images: &[T]) -> BatchError {
        BatchError { most: self.max_batch, example: self.example, got: images.len() }
    }

    /// Buffers for gradients, from the first training step on.
    fn prepare_training(&mut self) {
        if self.memory.purpose < Purpose::Training {
            let Compiled { values, layers, .. } = &self.compiled;
            self.memory = Memory::plan(values, layers.len(), self.max_batch, Purpose::Training);
            for parameter in &mut self.compiled.parameters {
                parameter.gradient = vec![T::ZERO; parameter.values.len()];
            }
        }
    }

    fn run(&mut self, images: &[T], mode: Mode) -> Result<&[T], BatchError> {
        let batch = images.len() / self.example;
        if batch == 0 || batch > self.max_batch || batch * self.example != images.len() {
            return Err(self.batch_error(images));
        }
        self.pass(batch, mode, |layers, mut pass| {
            for layer in layers {
                layer.forward(&mut pass, images);
            }
        });
        Ok(&self.memory.activation(self.compiled.output)[..batch * self.classes])
    }

    fn backward(&mut self, batch: usize) {
        self.pass(batch, Mode::Train, |layers, mut pass| {
            for layer in layers.iter_mut().rev() {
                layer.backward(&mut pass);
            }
        });
    }

    fn pass(&mut self, batch: usize, mode: Mode, task: impl FnOnce(&mut [Layer<T>], Pass<'_, T>) + Send) {
        let Compiled { layers, values, parameters, running, .. } = &mut self.compiled;
        let (memory, work, draw) = (&mut self.memory, &mut self.work, self.draw);
        self.pool.install(|| task(layers, Pass { values, memory, parameters, running, work, batch, mode, draw }));
    }
}

#[cfg(test)]
mod every_operation;
#[cfg(test)]
mod tests;
