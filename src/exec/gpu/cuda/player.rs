//! A GPU as a device: it plays tapes, from the second time on each as one captured graph.
#![expect(unsafe_code, reason = "CUDA's driver is a C library")]

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::{result, sys};

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::cuda::command::{Ready, ready};
use crate::exec::gpu::cuda::convolutions::{Demands, PreparedConvolution};
use crate::exec::gpu::cuda::held;
use crate::exec::gpu::cuda::memory::Allocation;
use crate::exec::gpu::cuda::products::PreparedProduct;
use crate::exec::gpu::cuda::session::{Session, with_figures};
use crate::exec::gpu::cuda::staging::Staging;
use crate::exec::gpu::cuda::tuning::{CANDIDATES, fastest};
use crate::exec::gpu::device::Device;
use crate::exec::gpu::tape::{Argument, Command, Place, Region, Tape};
use crate::settings::Precision;

/// How a GPU computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    /// How exactly.
    pub precision: Precision,
    /// Whether the same inputs have to give the same bits.
    pub deterministic: bool,
    /// Whether tapes are captured as graphs.
    pub captures: bool,
}

/// Graphs take memory of the driver's own.
const NO_ROOM_FOR_GRAPH: DeviceFault = DeviceFault::OutOfMemory { needed: 0, free: 0 };

/// A GPU with the memory of one network.
#[derive(Debug)]
pub struct Gpu {
    session: Arc<Session>,
    options: GpuOptions,
    /// Before the memory that it writes to, so that it goes first.
    staging: Option<Staging>,
    arena: Option<Allocation>,
    scratch: Option<Arc<Allocation>>,
    workspace: Option<Arc<Allocation>>,
    /// Why tapes are not captured.
    uncaptured: Option<String>,
}

impl Gpu {
    /// The GPU of `session`, without memory yet.
    #[must_use]
    pub fn new(session: Arc<Session>, options: GpuOptions) -> Self {
        Self { session, options, staging: None, arena: None, scratch: None, workspace: None, uncaptured: None }
    }

    fn arena(&self) -> Result<&Allocation, DeviceFault> {
        self.arena.as_ref().ok_or_else(no_memory)
    }
}

fn no_memory() -> DeviceFault {
    DeviceFault::Refused("it has no memory yet".to_owned())
}

/// Memory of at least `bytes` that all programs of a network use in turn.
fn shared(
    session: &Arc<Session>,
    own: &mut Option<Arc<Allocation>>,
    bytes: usize,
) -> Result<Arc<Allocation>, DeviceFault> {
    match own.take().filter(|own| own.bytes() >= bytes) {
        Some(large) => Ok(Arc::clone(own.insert(large))),
        None => Ok(Arc::clone(own.insert(Arc::new(Allocation::zeros(session, bytes)?)))),
    }
}

/// Kernels count in 32 bits.
fn refuse_too_large(tape: &Tape) -> Result<(), DeviceFault> {
    let is_too_large = |command: &Command| match command {
        Command::Launch(launch) => {
            launch.arguments.contains(&Argument::Int(i32::MAX)) || launch.grid.contains(&u32::MAX)
        }
        Command::Product(_) | Command::Convolution(_) | Command::Zero(_) | Command::Copy(..) => false,
    };
    if tape.commands.iter().any(is_too_large) {
        return Err(DeviceFault::Refused("a batch has more than 2147483647 numbers; take a smaller one".to_owned()));
    }
    Ok(())
}

/// Commands on a GPU.
#[derive(Debug)]
pub struct Program {
    commands: Vec<Ready>,
    /// What they read and use besides the arena.
    memory: Besides,
    captured: Captured,
}

/// Memory that commands need besides the arena. Programs run one after another, so they may share what they only use.
#[derive(Debug)]
struct Besides {
    _constants: Allocation,
    _scratch: Arc<Allocation>,
    workspace: Arc<Allocation>,
    _held: Option<Arc<Allocation>>,
}

/// Whether a program is one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Captured {
    /// Its commands have not run yet: libraries may have to get ready for them first.
    NotYet,
    /// It runs command by command.
    Never,
    /// It does.
    As(sys::CUgraphExec),
}

// SAFETY: handles of the driver may be used from any thread that has their context.
unsafe impl Send for Program {}

impl Drop for Program {
    fn drop(&mut self) {
        if let Captured::As(graph) = self.captured {
            // SAFETY: it was made once and is destroyed once.
            let _unused = unsafe { result::graph::exec_destroy(graph) };
        }
    }
}

impl Device for Gpu {
    type Program = Program;

    type Held = Allocation;

    fn arithmetic(&self) -> String {
        let GpuOptions { precision, deterministic, .. } = self.options;
        format!("cuda {precision:?} {deterministic}")
    }

    fn remark(&self) -> Option<String> {
        self.uncaptured.as_ref().map(|why| format!("the GPU gets every command by itself, which is slower: {why}"))
    }

    fn reserve(&mut self, bytes: usize, kept: usize) -> Result<(), DeviceFault> {
        let arena = Allocation::zeros(&self.session, bytes)?;
        if let Some(before) = self.arena.take().filter(|_| kept > 0) {
            // SAFETY: both have at least these bytes.
            unsafe { result::memcpy_dtod_async(arena.address(0), before.address(0), kept, self.session.stream()) }?;
        }
        self.arena = Some(arena);
        Ok(())
    }

    fn hold(
        &mut self,
        bytes: &[u8],
        owner: &Arc<dyn Any + Send + Sync>,
    ) -> Result<Option<Arc<Allocation>>, DeviceFault> {
        held::hold(&self.session, bytes, owner)
    }

    fn prepare(&mut self, tape: &Tape, held: Option<&Arc<Allocation>>) -> Result<Program, DeviceFault> {
        let session = &self.session;
        let arena = self.arena.as_ref().ok_or_else(no_memory)?;
        refuse_too_large(tape)?;
        let constants = Allocation::zeros(session, tape.constants.len() * 4)?;
        let scratch = shared(session, &mut self.scratch, tape.scratch)?;
        let address = |place: Place| match place.region {
            Region::Arena => arena.address(place.offset),
            Region::Scratch => scratch.address(place.offset),
            Region::Constant => constants.address(place.offset),
            Region::Held => held.map_or(0, |held| held.address(place.offset)),
        };
        if !tape.constants.is_empty() {
            // SAFETY: there are as many bytes as the table has; the copy is done before the table goes, since the host waits.
            unsafe { result::memcpy_htod_async(constants.address(0), &tape.constants, session.stream()) }?;
            session.wait()?;
        }
        session.kernels.load(tape.commands.iter().filter_map(|command| match command {
            Command::Launch(launch) => Some(launch.kernel),
            Command::Product(_) | Command::Convolution(_) | Command::Zero(_) | Command::Copy(..) => None,
        }))?;
        let mut commands = Vec::with_capacity(tape.commands.len());
        let demands = Demands { precision: self.options.precision, deterministic: self.options.deterministic };
        let ways = if demands.deterministic { 1 } else { CANDIDATES };
        let mut most = 0;
        for command in &tape.commands {
            commands.push(match command {
                Command::Launch(launch) => Ready::Launch(ready(session, launch, &address)?),
                Command::Product(product) => {
                    let ways = PreparedProduct::candidates(session, product, demands.precision, ways, &address)?;
                    let product = fastest(session, ways)?;
                    most = most.max(product.workspace);
                    Ready::Product(product)
                }
                Command::Convolution(convolution) => {
                    let ways = PreparedConvolution::candidates(session, convolution, demands, ways, &address)?;
                    let convolution = fastest(session, ways)?;
                    most = most.max(convolution.workspace);
                    Ready::Convolution(convolution)
                }
                Command::Zero(place) => Ready::Zero(address(*place), place.bytes),
                Command::Copy(from, to) => Ready::Copy(address(*from), address(*to), to.bytes),
            });
        }
        let workspace = shared(session, &mut self.workspace, most)?;
        for command in &mut commands {
            if let Ready::Convolution(convolution) = command {
                convolution.bind(workspace.address(0))?;
            }
        }
        let memory = Besides { _constants: constants, _scratch: scratch, workspace, _held: held.cloned() };
        let captured = if self.options.captures { Captured::NotYet } else { Captured::Never };
        Ok(Program { commands, memory, captured })
    }

    fn play(&mut self, program: &mut Program) -> Result<(), DeviceFault> {
        self.session.make_current()?;
        match program.captured {
            // SAFETY: the graph was made of this program's commands, whose memory is still there.
            Captured::As(graph) => Ok(unsafe { result::graph::launch(graph, self.session.stream()) }?),
            Captured::Never => self.run(program),
            Captured::NotYet => {
                self.run(program)?;
                program.captured = match self.capture(program) {
                    Ok(graph) => Captured::As(graph),
                    Err(DeviceFault::OutOfMemory { .. }) => return Err(with_figures(NO_ROOM_FOR_GRAPH, 0)),
                    // A library may refuse to be captured. If the device is lost, the next command says so.
                    Err(fault) => {
                        self.uncaptured = Some(fault.to_string());
                        Captured::Never
                    }
                };
                Ok(())
            }
        }
    }

    fn write(&mut self, place: Place, bytes: &[u8]) -> Result<(), DeviceFault> {
        self.session.make_current()?;
        let to = self.arena()?.address(place.offset);
        debug_assert!(bytes.len() <= place.bytes, "what is written fits");
        let staging = match self.staging.take() {
            Some(staging) => staging,
            None => Staging::new(&self.session)?,
        };
        self.staging.insert(staging).write(to, bytes)
    }

    fn read(&mut self, place: Place, bytes: &mut [u8]) -> Result<(), DeviceFault> {
        self.session.make_current()?;
        let from = self.arena()?.address(place.offset);
        debug_assert!(bytes.len() <= place.bytes, "what is read is there");
        // SAFETY: the place has these bytes, and the host waits before it looks at them.
        unsafe { result::memcpy_dtoh_async(bytes, from, self.session.stream()) }?;
        self.session.wait()
    }
}

impl Gpu {
    /// Waits until all is done that was asked for.
    ///
    /// # Errors
    /// When the device fails.
    pub fn wait(&self) -> Result<(), DeviceFault> {
        self.session.make_current()?;
        self.session.wait()
    }

    /// How long each command of a program takes by itself, in seconds, with what it is: for benchmarks.
    ///
    /// # Errors
    /// When the device fails.
    pub fn profile(&self, program: &Program, runs: u32) -> Result<Vec<(String, f64)>, DeviceFault> {
        self.session.make_current()?;
        let workspace = program.memory.workspace.address(0);
        let mut times = Vec::with_capacity(program.commands.len());
        for command in &program.commands {
            command.run(&self.session, workspace)?;
            self.session.wait()?;
            let start = Instant::now();
            (0..runs).try_for_each(|_| command.run(&self.session, workspace))?;
            self.session.wait()?;
            times.push((command.name(), start.elapsed().as_secs_f64() / f64::from(runs)));
        }
        Ok(times)
    }

    /// Puts all commands on the stream.
    fn run(&self, program: &Program) -> Result<(), DeviceFault> {
        let workspace = program.memory.workspace.address(0);
        program.commands.iter().try_for_each(|command| command.run(&self.session, workspace))
    }

    /// Makes one graph of all commands.
    fn capture(&self, program: &Program) -> Result<sys::CUgraphExec, DeviceFault> {
        let stream = self.session.stream();
        self.session.make_current()?;
        // SAFETY: the stream is this session's; whatever happens, capturing ends before another one begins.
        unsafe {
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
            result::stream::begin_capture(stream, mode)?;
            let done = self.run(program);
            let graph = result::stream::end_capture(stream);
            done?;
            let graph = graph?;
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            result::graph::destroy(graph)?;
            Ok(executable?)
        }
    }
}
