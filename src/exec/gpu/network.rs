//! A network that is computed on a device with memory of its own.

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::exec::compile::{Compiled, Melting, Spacing, compile};
use crate::exec::engine::{CompileError, DeviceFault, Step};
use crate::exec::gpu::arena::{Arena, shapes};
use crate::exec::gpu::device::Device;
use crate::exec::gpu::emit::{Emitter, Source};
use crate::exec::gpu::parameters::FlatParameters;
use crate::exec::gpu::program::Pass;
use crate::exec::gpu::residual::{Role, roles};
use crate::exec::gpu::tape::{Place, Storage, Tape};
use crate::exec::memory::Purpose;
use crate::model::graph::Graph;
use crate::settings::Optimizer;

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
    pub(super) storage: Storage,
    pub(super) max_batch: usize,
    pub(super) example: usize,
    pub(super) classes: usize,
    programs: Vec<Known<D>>,
    /// Which of them was played last.
    last: usize,
    /// Where the batch on the device comes from.
    pub(super) source: Source,
    pub(super) held: Option<Arc<D::Held>>,
    /// As the device has it.
    pub(super) normalization: Vec<[f32; 2]>,
    /// The outputs that were computed last.
    pub(super) logits: Vec<f32>,
    pub(super) rule: Option<Optimizer>,
    /// Steps of the optimizer.
    pub(super) steps: u64,
    /// Steps since the network was compiled.
    pub(super) submitted: usize,
    /// Of these, whose results have been read.
    pub(super) collected: usize,
    pub(super) done: Vec<Step>,
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
        max_batch: usize,
        threads: usize,
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
}
