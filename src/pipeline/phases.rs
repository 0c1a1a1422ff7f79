//! Reports which phase runs and how far it is, and keeps the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::course::{Course, Whole};
use crate::domain::problem::{Code, Problem};
use crate::domain::progress::{EpochMetrics, Level, Phase, Progress};
use crate::exec::{CompileError, DeviceFault};
use crate::fusion::FusionError;
use crate::plan::Plan;
use crate::plan::resolve::Planned;
use crate::process::memory;
use crate::process::protocol::{Message, OutputFile};
use crate::train::TrainError;

/// Time between two progress messages.
const INTERVAL: Duration = Duration::from_millis(250);

/// Why the pipeline ends early.
#[derive(Debug)]
pub(super) enum Halt {
    /// By request.
    Stopped,
    /// The job cannot succeed.
    Failed(Problem),
}

impl From<Problem> for Halt {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl From<FusionError> for Halt {
    fn from(error: FusionError) -> Self {
        match error {
            FusionError::Stopped => Self::Stopped,
            error => Self::Failed(error.into()),
        }
    }
}

impl From<TrainError> for Halt {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Stopped => Self::Stopped,
            TrainError::Device(fault) => fault.into(),
            error => Self::Failed(error.into()),
        }
    }
}

impl From<DeviceFault> for Halt {
    fn from(fault: DeviceFault) -> Self {
        Self::Failed(fault.into())
    }
}

impl From<CompileError> for Halt {
    fn from(error: CompileError) -> Self {
        let code = match error {
            CompileError::Threads { .. } => Code::ResourcesExhausted,
            CompileError::Output { .. } | CompileError::Device(_) => Code::NotSupportedYet,
            CompileError::Fault(fault) => return fault.into(),
        };
        Self::Failed(Problem::new(code, error.to_string()))
    }
}

/// The running phase.
struct Running {
    phase: Phase,
    since: Instant,
    /// How much of it was done when it first said so: what an earlier attempt did took this one no time.
    first: Option<f64>,
}

/// The pipeline's way to its listener.
pub(super) struct Phases<'a> {
    emit: Box<dyn FnMut(Message) + 'a>,
    stop: &'a AtomicBool,
    running: Option<Running>,
    course: Course,
    ended: Vec<(Phase, f64)>,
    memory: Vec<(Phase, u64)>,
    warnings: Vec<String>,
    last_progress: Option<Instant>,
}

impl<'a> Phases<'a> {
    pub(super) fn new(emit: impl FnMut(Message) + 'a, stop: &'a AtomicBool) -> Self {
        Self {
            emit: Box::new(emit),
            stop,
            running: None,
            course: Course::default(),
            ended: Vec::new(),
            memory: Vec::new(),
            warnings: Vec::new(),
            last_progress: None,
        }
    }

    /// Ends the running phase and begins the next, unless the job is to stop.
    pub(super) fn begin(&mut self, phase: Phase) -> Result<(), Halt> {
        self.end();
        self.check_stop()?;
        // What came before is not the phase's.
        let _before = memory::peak_since_asked();
        self.running = Some(Running { phase, since: Instant::now(), first: None });
        self.last_progress = None;
        (self.emit)(Message::Phase { phase });
        let job = self.course.at(phase, 0.0, None);
        if job.is_some() {
            (self.emit)(Message::Progress(of_job(Progress::at(phase), job)));
        }
        Ok(())
    }

    /// Ends the running phase.
    pub(super) fn end(&mut self) {
        if let Some(Running { phase, since, .. }) = self.running.take() {
            let seconds = since.elapsed().as_secs_f64();
            self.ended.push((phase, seconds));
            self.course.end(phase, seconds);
            self.memory.extend(memory::peak_since_asked().map(|bytes| (phase, bytes)));
        }
    }

    /// Halts the job where its end has been requested.
    pub(super) fn check_stop(&self) -> Result<(), Halt> {
        if self.stop.load(Ordering::Relaxed) { Err(Halt::Stopped) } else { Ok(()) }
    }

    /// The flag that requests a stop.
    pub(super) fn stop_flag(&self) -> &'a AtomicBool {
        self.stop
    }

    /// Reports how much of the phase is done, a few times per second at most.
    pub(super) fn done(&mut self, done: usize, total: usize) {
        let fraction = if total == 0 { 1.0 } else { done as f64 / total as f64 };
        self.progress(fraction, None, None, None);
    }

    /// Reports how much of the phase is done, in [0, 1], and whether the job may go on.
    pub(super) fn goes_on(&mut self, fraction: f64) -> bool {
        self.progress(fraction, None, None, None);
        self.check_stop().is_ok()
    }

    /// As [`Self::done`], for training.
    pub(super) fn progress(&mut self, fraction: f64, epoch: Option<usize>, step: Option<usize>, speed: Option<f64>) {
        let Some(running) = &mut self.running else { return };
        let first = *running.first.get_or_insert(fraction);
        if self.last_progress.is_some_and(|last| last.elapsed() < INTERVAL) {
            return;
        }
        self.last_progress = Some(Instant::now());
        let (phase, spent) = (running.phase, running.since.elapsed().as_secs_f64());
        let done = fraction - first;
        let eta_s = (done > 0.01).then(|| spent * (1.0 - fraction) / done);
        let job = self.course.at(phase, fraction, eta_s);
        let progress = Progress { fraction, epoch, step, images_per_s: speed, eta_s, ..Progress::at(phase) };
        (self.emit)(Message::Progress(of_job(progress, job)));
    }

    /// Reports an epoch.
    pub(super) fn metric(&mut self, metrics: EpochMetrics) {
        (self.emit)(Message::Metric(metrics));
    }

    /// What the plan expects of the phases; by this the job's own progress is reported from here on.
    pub(super) fn expect(&mut self, planned: &Planned) {
        self.course.expect(planned);
    }

    /// Reports the plan as it has become.
    pub(super) fn planned(&mut self, plan: &Plan) {
        (self.emit)(Message::Planned { plan: Box::new(plan.clone()) });
    }

    /// Reports a checkpoint to resume from.
    pub(super) fn checkpoint(&mut self, epoch: usize, file: OutputFile) {
        (self.emit)(Message::Checkpoint { epoch, file });
    }

    /// Writes something to the log.
    pub(super) fn info(&mut self, message: impl Into<String>) {
        (self.emit)(Message::Log { level: Level::Info, message: message.into() });
    }

    /// Writes something to the log that belongs in the report too.
    pub(super) fn warn(&mut self, message: impl Into<String>) {
        let message = message.into();
        self.warnings.push(message.clone());
        (self.emit)(Message::Log { level: Level::Warning, message });
    }

    /// The warnings so far.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// Most bytes that were allocated at once in each of the phases that have ended; nothing where nobody counts.
    pub(super) fn memory(&self) -> Vec<(Phase, u64)> {
        self.memory.clone()
    }

    /// Seconds of the phases that have ended.
    pub(super) fn seconds(&self) -> Vec<(Phase, f64)> {
        self.ended.clone()
    }
}

/// `progress`, and where the whole job stands.
fn of_job(progress: Progress, whole: Option<Whole>) -> Progress {
    Progress { job_fraction: whole.map(|whole| whole.fraction), job_eta_s: whole.map(|whole| whole.left), ..progress }
}
