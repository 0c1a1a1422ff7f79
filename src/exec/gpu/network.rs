//! A network that is computed on a device with memory of its own.

use std::sync::Arc;

use half::bf16;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::exec::compile::{Compiled, Melting, Spacing, compile};
use crate::exec::engine::{
    BatchError, CompileError, DeviceFault, EngineError, Held, HeldView, Inputs, Step, StoredImages,
};
use crate::exec::gpu::arena::{Arena, RESULT, RESULTS, shapes};
use crate::exec::gpu::device::Device;
use crate::exec::gpu::emit::{Emitter, Source};
use crate::exec::gpu::kernels::batch_norm::Running;
use crate::exec::gpu::kernels::scalars;
use crate::exec::gpu::parameters::FlatParameters;
use crate::exec::gpu::program::Pass;
use crate::exec::gpu::residual::{Role, roles};
use crate::exec::gpu::tape::{Place, Storage, Tape};
use crate::exec::memory::Purpose;
use crate::model::graph::Graph;
use crate::settings::Optimizer;
use crate::tensors::{StateDict, Weights};

/// Images that a device holds for its networks.
#[derive(Debug)]
pub(super) struct HeldImages<D: Device> {
    memory: Arc<D::Held>,
    bytes: usize,
    shape: [usize; 3],
    normalization: Vec<[f32; 2]>,
}

/// What a program was made for.
#[derive(Debug)]
struct Known<D: Device> {
    pass: Pass,
    examples: usize,
    source: Source,
    /// Kept, so that its memory is not given to something else.
    held: Option<Arc<D::Held>>,
    program: D::Program,
}

/// A compiled network with its memory on the device.
#[derive(Debug)]
pub struct GpuNetwork<D: Device> {
    pub(super) device: D,
    pub(super) compiled: Compiled<f32>,
    pub(super) parameters: FlatParameters,
    roles: Vec<Role>,
    pub(super) arena: Arena,
    purpose: Purpose,
    storage: Storage,
    pub(super) max_batch: usize,
    pub(super) example: usize,
    pub(super) classes: usize,
    programs: Vec<Known<D>>,
    source: Source,
    held: Option<Arc<D::Held>>,
    /// As the device has it.
    normalization: Vec<[f32; 2]>,
    /// Which of them was played last.
    last: usize,
    /// The outputs that were computed last.
    pub(super) logits: Vec<f32>,
    pub(super) rule: Option<Optimizer>,
    /// Steps of the optimizer.
    pub(super) steps: u64,
    /// Steps since the network was compiled.
    submitted: usize,
    /// Of these, whose results have been read.
    collected: usize,
    done: Vec<Step>,
    /// Whether the optimizer's numbers are those of a training under way.
    begun: bool,
    /// Batches whose saliency was added up in the optimizer's place.
    salient: usize,
    pool: ThreadPool,
}

impl<D: Device> GpuNetwork<D> {
    /// Compiles `graph` for `device`, for batches of up to `max_batch` examples; all weights are 0. `threads` prepare batches.
    ///
    /// # Errors
    /// When the output is no vector, the device has not enough memory, or no threads can be had.
    pub fn compile(
        mut device: D,
        graph: &Graph,
        [max_batch, threads]: [usize; 2],
        storage: Storage,
    ) -> Result<Self, CompileError> {
        if !graph.is_classifier() {
            let (node, shape) = (graph.node(graph.output()).name.clone(), graph.shape(graph.output()).clone());
            return Err(CompileError::Output { node, shape });
        }
        let pool = ThreadPoolBuilder::new().num_threads(threads.max(1)).thread_name(|i| format!("batches-{i}")).build();
        let pool = pool.map_err(|source| CompileError::Threads { threads, source })?;
        let mut compiled = compile(graph, Spacing::Padded, Melting::Allowed);
        // What they would hold is on the device.
        compiled.parameters.iter_mut().for_each(|parameter| parameter.values = Vec::new());
        let (max_batch, example) = (max_batch.max(1), graph.input_shape().iter().product());
        let parameters = FlatParameters::new(&compiled, &shapes(&compiled, max_batch, storage), storage);
        let roles = roles(&compiled);
        let sizes = [max_batch, example];
        let arena = Arena::plan(&compiled, &parameters, &roles, sizes, storage, Purpose::Inference, 0);
        device.reserve(arena.bytes, 0)?;
        let classes = graph.classes();
        Ok(Self {
            device,
            compiled,
            parameters,
            roles,
            arena,
            purpose: Purpose::Inference,
            storage,
            max_batch,
            example,
            classes,
            programs: Vec::new(),
            source: Source::Images,
            held: None,
            normalization: Vec::new(),
            last: 0,
            logits: vec![0.0; max_batch * classes],
            rule: None,
            steps: 0,
            submitted: 0,
            collected: 0,
            done: Vec::new(),
            begun: false,
            salient: 0,
            pool,
        })
    }

    /// Runs `task` on the threads that prepare batches.
    pub(super) fn install(&self, task: impl FnOnce() + Send) {
        self.pool.install(task);
    }

    /// Memory for gradients, from the first step on.
    pub(super) fn prepare_training(&mut self) -> Result<(), DeviceFault> {
        if self.purpose == Purpose::Training {
            return Ok(());
        }
        let sizes = [self.max_batch, self.example];
        let purpose = Purpose::Training;
        let arena = Arena::plan(&self.compiled, &self.parameters, &self.roles, sizes, self.storage, purpose, 0);
        self.programs.clear();
        self.device.reserve(arena.bytes, arena.kept)?;
        (self.arena, self.purpose) = (arena, Purpose::Training);
        self.normalization.clear();
        Ok(())
    }

    /// Forgets results that nobody has taken, and that the optimizer has begun.
    pub(super) fn forget_steps(&mut self) {
        self.collected = self.submitted;
        self.done.clear();
        self.begun = false;
    }

    /// Sets the optimizer's numbers to 0 before its first step.
    pub(super) fn start_optimizer(&mut self) -> Result<(), DeviceFault> {
        let Some(training) = self.arena.training.filter(|_| !self.begun) else { return Ok(()) };
        self.begun = true;
        let zeros = vec![0; self.parameters.numbers * 4];
        training.state.into_iter().try_for_each(|place| self.device.write(place, &zeros))
    }

    /// Another batch of saliency, in the place of the optimizer's numbers, which begin anew after it.
    pub(super) fn start_saliency(&mut self) -> Result<(), DeviceFault> {
        if self.salient == 0 {
            self.begun = false;
            self.start_optimizer()?;
        }
        self.begun = false;
        self.salient += 1;
        Ok(())
    }

    /// The mean saliency over all batches, a flat buffer.
    pub(super) fn end_saliency(&mut self) -> Result<Vec<f32>, DeviceFault> {
        let count = std::mem::take(&mut self.salient);
        let Some(training) = self.arena.training.filter(|_| count > 0) else {
            return Ok(vec![0.0; self.parameters.numbers]);
        };
        let [high, low] = training.state;
        let (high, low) = (self.read_flat(high)?, self.read_flat(low)?);
        let mean = |(high, low): (f32, f32)| ((f64::from(high) + f64::from(low)) / count as f64) as f32;
        Ok(high.into_iter().zip(low).map(mean).collect())
    }

    /// The optimizer's flat buffers with their names in checkpoints.
    pub(super) fn states(&self, rule: &Optimizer) -> Vec<(&'static str, Place)> {
        let names = match rule {
            Optimizer::Sgd { .. } => &["velocity"][..],
            Optimizer::AdamW { .. } => &["mean", "square"],
        };
        let places = self.arena.training.map(|training| training.state).into_iter().flatten();
        names.iter().copied().zip(places).collect()
    }

    /// Puts results back in front of those that come.
    pub(super) fn put_back(&mut self, steps: &mut Vec<Step>) {
        steps.append(&mut self.done);
        std::mem::swap(steps, &mut self.done);
    }

    /// Plays `pass` with a batch of `examples`.
    pub(super) fn play(&mut self, pass: Pass, examples: usize) -> Result<(), DeviceFault> {
        let held = self.held.as_ref().map(Arc::as_ptr);
        let is_it = |known: &Known<D>| {
            known.pass == pass
                && known.examples == examples
                && known.source == self.source
                && known.held.as_ref().map(Arc::as_ptr) == held
        };
        let index = if let Some(index) = self.programs.iter().position(is_it) {
            index
        } else {
            let tape = self.tape(pass, examples);
            let program = self.device.prepare(&tape, self.held.as_ref())?;
            let held = self.held.clone();
            self.programs.push(Known { pass, examples, source: self.source, held, program });
            self.programs.len() - 1
        };
        self.last = index;
        self.device.play(&mut self.programs[index].program)
    }

    /// Plays what was played last `times` times again, with what is on the device: the bare work of a step.
    ///
    /// # Errors
    /// When the device fails.
    pub fn repeat(&mut self, times: usize) -> Result<(), DeviceFault> {
        let Some(known) = self.programs.get_mut(self.last) else { return Ok(()) };
        (0..times).try_for_each(|_| self.device.play(&mut known.program))
    }

    /// What was played last.
    pub fn played(&self) -> Option<&D::Program> {
        self.programs.get(self.last).map(|known| &known.program)
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The tape of `pass` with a batch of `examples`.
    pub(super) fn tape(&self, pass: Pass, examples: usize) -> Tape {
        let mut tape = Tape::new(self.storage);
        let mut emitter = Emitter {
            tape: &mut tape,
            compiled: &self.compiled,
            arena: &self.arena,
            parameters: &self.parameters,
            roles: &self.roles,
            examples,
            mode: pass.mode(),
            source: self.source,
        };
        emitter.pass(pass);
        tape
    }

    /// Keeps images, if there is room for them.
    pub(super) fn keep(&mut self, images: &StoredImages<'_>, seen: bool) -> Result<Option<Held>, DeviceFault> {
        let [input, ..] = self.compiled.values[..] else { return Ok(None) };
        let len: usize = images.shape.iter().product();
        let is_row = input.channels == input.len;
        let channels = images.normalization.len();
        let fits = len > 0 && images.bytes.len().is_multiple_of(len) && channels.is_multiple_of(images.shape[0]);
        if !fits || channels * (len / images.shape[0]) != self.example || (seen && is_row) {
            return Ok(None);
        }
        let Some(memory) = self.device.hold(images.bytes, &images.owner)? else { return Ok(None) };
        let StoredImages { bytes, shape, normalization, .. } = images.clone();
        let held = HeldImages::<D> { memory, bytes: bytes.len(), shape, normalization };
        Ok(Some(Held(Arc::new(held))))
    }

    /// The number of examples of a batch, which goes to the device.
    pub(super) fn stage(&mut self, inputs: Inputs<'_>) -> Result<usize, EngineError> {
        let examples = inputs.examples(self.example);
        if examples == 0 || examples > self.max_batch {
            return Err(self.batch_error(inputs).into());
        }
        match inputs {
            Inputs::Images(images) => {
                if examples * self.example != images.len() {
                    return Err(self.batch_error(inputs).into());
                }
                (self.source, self.held) = (Source::Images, None);
                let bytes = bytemuck::cast_slice(images);
                self.device.write(self.arena.images.part(0, bytes.len()), bytes)?;
            }
            Inputs::Held { held, indices, views } => self.stage_held(held, indices, views)?,
        }
        Ok(examples)
    }

    fn stage_held(&mut self, held: &Held, indices: &[u32], views: Option<&[HeldView]>) -> Result<(), EngineError> {
        let inputs = Inputs::Held { held, indices, views };
        let Some(images) = held.0.downcast_ref::<HeldImages<D>>() else { return Err(self.batch_error(inputs).into()) };
        let len: usize = images.shape.iter().product();
        let is_there = |index: &u32| (*index as usize + 1) * len <= images.bytes;
        if !indices.iter().all(is_there) || views.is_some_and(|views| views.len() != indices.len()) {
            return Err(self.batch_error(inputs).into());
        }
        let HeldImages { memory, bytes, shape, normalization } = images;
        self.source = Source::Held { bytes: *bytes, shape: *shape, seen: views.is_some() };
        self.held = Some(Arc::clone(memory));
        if self.normalization != *normalization {
            // A pair for each number that the network takes for a channel.
            let channels = self.arena.normalization.bytes / 8;
            let repeat = channels / normalization.len().max(1);
            let pairs: Vec<[f32; 2]> =
                normalization.iter().flat_map(|pair| std::iter::repeat_n(*pair, repeat)).collect();
            self.device.write(self.arena.normalization, bytemuck::cast_slice(&pairs))?;
            self.normalization.clone_from(normalization);
        }
        // Programs may be for more examples than come: what is behind the end has to be some image, too.
        let last = indices.last().copied().unwrap_or_default();
        let all: Vec<u32> = indices.iter().copied().chain(std::iter::repeat(last)).take(self.max_batch).collect();
        self.device.write(self.arena.indices, bytemuck::cast_slice(&all))?;
        if let Some(views) = views {
            let bytes: &[u8] = bytemuck::cast_slice(views);
            self.device.write(self.arena.views.part(0, bytes.len()), bytes)?;
        }
        Ok(())
    }

    pub(super) fn batch_error(&self, inputs: Inputs<'_>) -> BatchError {
        let got = match inputs {
            Inputs::Images(images) => images.len(),
            Inputs::Held { indices, .. } => indices.len() * self.example,
        };
        BatchError { most: self.max_batch, example: self.example, got }
    }

    /// The logits of a batch that is on the device.
    pub(super) fn read_logits(&mut self, examples: usize) -> Result<(), DeviceFault> {
        let output = self.arena.activations[self.compiled.output];
        let bytes = self.storage.bytes();
        let mut rows = vec![0; examples * output.stride * bytes];
        self.device.read(output.place.part(0, rows.len()), &mut rows)?;
        let rows = rows.chunks_exact(output.stride * bytes);
        for (row, logits) in rows.zip(self.logits.chunks_exact_mut(self.classes)) {
            for (logit, number) in logits.iter_mut().zip(row.chunks_exact(bytes)) {
                *logit = match *number {
                    [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                    [a, b] => bf16::from_le_bytes([a, b]).to_f32(),
                    _ => 0.0,
                };
            }
        }
        Ok(())
    }

    /// The slot for the result of the next step.
    pub(super) fn next_slot(&mut self) -> Result<u32, DeviceFault> {
        if self.submitted - self.collected == RESULTS {
            self.collect()?;
        }
        self.submitted += 1;
        Ok(((self.submitted - 1) % RESULTS) as u32)
    }

    /// Reads the results of all steps.
    fn collect(&mut self) -> Result<(), DeviceFault> {
        let mut words = vec![0; RESULTS * RESULT];
        self.device.read(self.arena.results, &mut words)?;
        for step in self.collected..self.submitted {
            let slot = &words[step % RESULTS * RESULT..][..RESULT];
            let [mut loss, mut correct] = [[0; 8], [0; 8]];
            loss.copy_from_slice(&slot[..8]);
            correct[..4].copy_from_slice(&slot[8..12]);
            self.done.push(Step { loss: f64::from_le_bytes(loss), correct: u64::from_le_bytes(correct) as usize });
        }
        self.collected = self.submitted;
        Ok(())
    }

    /// Results of steps; not before half of what the device keeps is full, unless somebody waits.
    pub(super) fn results(&mut self, wait: bool) -> Result<Vec<Step>, DeviceFault> {
        let pending = self.submitted - self.collected;
        if pending > 0 && (wait || pending >= RESULTS / 2) {
            self.collect()?;
        }
        Ok(std::mem::take(&mut self.done))
    }

    /// Writes what changes from step to step.
    pub(super) fn write_scalars(&mut self, scalars: [u8; scalars::BYTES]) -> Result<(), DeviceFault> {
        self.device.write(self.arena.scalars, &scalars)
    }

    /// Writes a flat buffer that belongs to the parameters.
    pub(super) fn write_flat(&mut self, place: Place, flat: &[f32]) -> Result<(), DeviceFault> {
        self.device.write(place, bytemuck::cast_slice(flat))
    }

    /// Reads a flat buffer that belongs to the parameters.
    pub(super) fn read_flat(&mut self, place: Place) -> Result<Vec<f32>, DeviceFault> {
        let mut flat = vec![0.0_f32; place.bytes / 4];
        self.device.read(place, bytemuck::cast_slice_mut(&mut flat))?;
        Ok(flat)
    }

    /// A flat buffer as tensors in PyTorch's order.
    pub(super) fn tensors(&self, flat: &[f32]) -> Vec<Vec<f32>> {
        let tensors = self.compiled.parameters.iter().zip(&self.parameters.layouts);
        tensors
            .map(|(parameter, layout)| {
                let own = layout.gather(flat, parameter.shape.iter().product());
                parameter.to_pytorch(&own)
            })
            .collect()
    }

    /// Tensors in PyTorch's order, called `prefix` and their name, as a flat buffer.
    pub(super) fn flat(&self, prefix: &str, weights: &dyn Weights) -> Result<Vec<f32>, EngineError> {
        let mut flat = vec![0.0; self.parameters.numbers];
        for (parameter, layout) in self.compiled.parameters.iter().zip(&self.parameters.layouts) {
            let name = format!("{prefix}{}", parameter.name);
            let own = parameter.from_pytorch(&weights.f32(&name).map_err(crate::exec::LoadError::from)?)?;
            layout.scatter(&own, &mut flat);
        }
        Ok(flat)
    }

    /// Writes the weights, also as products read them.
    pub(super) fn write_weights(&mut self, flat: &[f32]) -> Result<(), DeviceFault> {
        self.write_flat(self.arena.weights, flat)?;
        if let Some(place) = self.arena.low {
            let low: Vec<bf16> = flat.iter().map(|weight| bf16::from_f32(*weight)).collect();
            let bytes: Vec<u8> = low.iter().flat_map(|weight| weight.to_le_bytes()).collect();
            self.device.write(place, &bytes)?;
        }
        Ok(())
    }

    /// Brings the running statistics to the device.
    pub(super) fn write_running(&mut self) -> Result<(), DeviceFault> {
        for (running, Running { mean, var }) in self.compiled.running.iter().zip(&self.arena.running) {
            self.device.write(*mean, bytemuck::cast_slice(&running.mean))?;
            self.device.write(*var, bytemuck::cast_slice(&running.var))?;
        }
        Ok(())
    }

    /// Takes the running statistics from the device.
    pub(super) fn read_running(&mut self) -> Result<(), DeviceFault> {
        for (running, Running { mean, var }) in self.compiled.running.iter_mut().zip(&self.arena.running) {
            self.device.read(*mean, bytemuck::cast_slice_mut(&mut running.mean))?;
            self.device.read(*var, bytemuck::cast_slice_mut(&mut running.var))?;
        }
        Ok(())
    }

    /// A state dict of these tensors, named `prefix` and the parameter's name.
    pub(super) fn named(&self, prefix: &str, flat: &[f32], dict: &mut StateDict) -> Result<(), EngineError> {
        for (parameter, values) in self.compiled.parameters.iter().zip(self.tensors(flat)) {
            dict.insert_f32(&format!("{prefix}{}", parameter.name), &parameter.shape, values)?;
        }
        Ok(())
    }
}
