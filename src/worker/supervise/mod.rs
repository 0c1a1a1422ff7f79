//! One attempt of one job: starts the child, stores what it reports, and ends the attempt as it ends.

mod conclusion;
mod outcome;

use std::path::Path;

use tokio::time::{Duration, Instant, MissedTickBehavior};

use super::Worker;
use super::child::{Child, Output};
use super::discretion::Discretion;
use super::disk::Allowance;
use super::lease::{Lease, Standing};
use super::outbox::Outbox;
use super::outputs::{OutputError, Outputs};
use super::scratch::Scratch;
use super::task;
use crate::domain::job::Fence;
use crate::domain::progress::Level;
use crate::process::protocol::{Message, OutputFile, Task};
use crate::runtime::lifecycle::Shutdown;
use crate::settings::Device;
use crate::store::blobs::LocalFile;
use crate::store::jobs::Claim;

pub(super) use outcome::Ending;

use outcome::{Outcome, Stop};

/// Time between two writes of progress and log lines.
const FLUSH: Duration = Duration::from_millis(500);

/// Runs one attempt to its end. Whatever fails here, the job is safe: its lease lapses.
pub(super) async fn supervise(worker: &Worker, claim: Claim, device: Device, shutdown: &Shutdown) -> Ending {
    let fence = claim.fence;
    tracing::info!(%fence, "attempt begins");
    let mut lease = Lease::keep(worker.jobs.clone(), fence, worker.policy.lease, worker.policy.heartbeat);
    let policy = &worker.policy;
    let allowance = Allowance { reserved: claim.disk, limit: policy.scratch_limit, keep_free: policy.keep_free };
    let discretion = Discretion::new(&worker.scratch, &policy.program.path);
    let outbox = Outbox::new(discretion.clone());
    let mut attempt = Attempt {
        worker,
        fence,
        device,
        scratch: None,
        inputs: Vec::new(),
        allowance,
        outbox,
        discretion,
        checkpoints: 0,
        stop: None,
    };
    let outcome = attempt.compute(claim, &mut lease, shutdown).await;
    outcome.log(fence);
    let ending = outcome.ending();
    match attempt.conclude(outcome, &mut lease, shutdown).await {
        Ok(()) => tracing::info!(%fence, "attempt ended"),
        Err(error) if error.is_fence_lost() => tracing::warn!(%fence, "another attempt has taken over"),
        Err(error) => tracing::error!(%fence, %error, "the attempt's end could not be written; its lease will lapse"),
    }
    ending
}

struct Attempt<'a> {
    worker: &'a Worker,
    fence: Fence,
    /// What it computes on.
    device: Device,
    /// Where the child writes, from the moment on when it exists.
    scratch: Option<Scratch>,
    /// What the child reads, held while it may.
    inputs: Vec<LocalFile>,
    allowance: Allowance,
    outbox: Outbox,
    discretion: Discretion,
    checkpoints: usize,
    /// Why the child has to stop, and until when it may take its time.
    stop: Option<(Stop, Instant)>,
}

impl Attempt<'_> {
    /// Starts a child and follows it to its end.
    async fn compute(&mut self, claim: Claim, lease: &mut Lease, shutdown: &Shutdown) -> Outcome {
        let scratch = match Scratch::make(&self.worker.scratch, self.fence).await {
            Ok(scratch) => self.scratch.insert(scratch),
            Err(error) => return Outcome::not_begun("its scratch folder cannot be made", &error),
        };
        if let Some(problem) = self.allowance.check_before(scratch.path()) {
            return Outcome::without(problem);
        }
        let folder = scratch.path().to_owned();
        let mut deadline = None;
        let task = match self.stage(claim, &folder, &mut deadline, lease, shutdown).await {
            Ok(task) => task,
            Err(outcome) => return outcome,
        };
        let program = &self.worker.policy.program;
        match Child::start(program, &task).await {
            Ok(child) => self.follow(child, deadline, lease, shutdown).await,
            Err(error) => Outcome::not_begun(&format!("{} cannot be started", program.path.display()), &error),
        }
    }

    /// Brings the child's files to this machine, as far as they are elsewhere; an outcome where the attempt is over before that.
    async fn stage(
        &mut self,
        claim: Claim,
        folder: &Path,
        deadline: &mut Option<Instant>,
        lease: &mut Lease,
        shutdown: &Shutdown,
    ) -> Result<Task, Outcome> {
        let build = task::build(claim, self.device, self.worker, folder);
        tokio::pin!(build);
        loop {
            tokio::select! {
                built = &mut build => {
                    let (task, files) = built.map_err(Outcome::without)?;
                    self.inputs = files;
                    return Ok(task);
                }
                standing = lease.changed() => match standing {
                    Standing::Held { deadline: new } => *deadline = Some(new),
                    Standing::Cancelling => return Err(Outcome::Stopped(Stop::Cancelled)),
                    Standing::Lost => return Err(Outcome::FenceLost),
                },
                () = until(*deadline) => return Err(Outcome::Stopped(Stop::OutOfTime)),
                () = shutdown.draining() => return Err(Outcome::Stopped(Stop::Draining)),
            }
        }
    }

    /// Takes in what the child writes until its attempt is over.
    async fn follow(
        &mut self,
        mut child: Child,
        mut deadline: Option<Instant>,
        lease: &mut Lease,
        shutdown: &Shutdown,
    ) -> Outcome {
        let mut flush = tokio::time::interval(FLUSH);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            let patience = self.stop.map(|(_, until)| until);
            tokio::select! {
                output = child.next_output() => if let Some(outcome) = self.take(output).await {
                    break outcome;
                },
                standing = lease.changed() => match standing {
                    Standing::Held { deadline: new } => deadline = Some(new),
                    Standing::Cancelling => self.stop(&mut child, Stop::Cancelled).await,
                    Standing::Lost => break Outcome::FenceLost,
                },
                () = until(deadline) => {
                    deadline = None;
                    self.stop(&mut child, Stop::OutOfTime).await;
                }
                () = shutdown.draining(), if self.stop.is_none() => self.stop(&mut child, Stop::Draining).await,
                () = shutdown.stopping(), if self.stop.is_some_and(|(why, _)| why == Stop::Draining) => {
                    break Outcome::Stopped(Stop::Draining);
                }
                () = until(patience) => break self.stopped(),
                _ = flush.tick() => {
                    let stopped = match self.flush().await {
                        None => self.check_disk(&child).await,
                        lost => lost,
                    };
                    if let Some(outcome) = stopped {
                        break outcome;
                    }
                }
            }
        };
        self.reap(child, outcome).await
    }

    /// Has the child stop; only the first reason counts.
    async fn stop(&mut self, child: &mut Child, why: Stop) {
        if self.stop.is_none() {
            self.stop = Some((why, Instant::now() + self.worker.policy.grace));
            child.send_stop().await;
        }
    }

    /// The outcome of a child that has ended without a result.
    fn stopped(&self) -> Outcome {
        self.stop.map_or_else(
            || Outcome::Crashed("it stopped without being asked".to_owned()),
            |(why, _)| Outcome::Stopped(why),
        )
    }

    /// Stores what the child has reported; what cannot be written now waits for the next time. An outcome where it will
    /// never be written.
    async fn flush(&mut self) -> Option<Outcome> {
        let flushed = self.outbox.flush(&self.worker.jobs, self.fence).await;
        flushed.err().and_then(|error| self.unwritten("what it reported", &error.into()))
    }

    /// Whether the attempt ends because of what it has taken of the disk.
    async fn check_disk(&self, child: &Child) -> Option<Outcome> {
        let (allowance, folder, process) = (self.allowance, self.folder().to_owned(), child.id());
        let checked = tokio::task::spawn_blocking(move || allowance.check(&folder, process)).await;
        checked.ok().flatten().map(Outcome::without)
    }

    /// Whether the attempt ends because `what` could not be written: not while the storage may heal and the lease is good.
    fn unwritten(&self, what: &str, error: &OutputError) -> Option<Outcome> {
        if error.is_fence_lost() {
            Some(Outcome::FenceLost)
        } else if error.code().is_transient() {
            tracing::warn!(fence = %self.fence, %error, "{what} could not be written yet");
            None
        } else {
            Some(Outcome::Crashed(format!("{what} could not be written: {error}")))
        }
    }

    /// Takes in what the child has written; its last message is the outcome.
    async fn take(&mut self, output: Output) -> Option<Outcome> {
        match output {
            Output::Message(message) => return self.take_message(*message).await,
            Output::StderrLine(line) => self.outbox.line(Level::Info, "stderr", line),
            Output::Malformed(why) => {
                return Some(Outcome::Crashed(format!("it said something that is no message: {why}")));
            }
            Output::EndOfFile => return Some(Outcome::Crashed(String::new())),
        }
        None
    }

    async fn take_message(&mut self, message: Message) -> Option<Outcome> {
        match message {
            Message::Progress(progress) => self.outbox.progress(progress),
            Message::Log { level, message } => self.outbox.line(level, "job", message),
            Message::Phase { phase } => {
                self.outbox.phase(phase);
                return self.flush().await;
            }
            Message::Metric(metrics) => {
                self.outbox.metrics(metrics);
                return self.flush().await;
            }
            Message::Planned { plan } => {
                self.outbox.plan(*plan);
                return self.flush().await;
            }
            Message::Checkpoint { epoch, file } => return self.save_checkpoint(epoch, &file).await,
            Message::Stopped => return Some(self.stopped()),
            Message::Failed { problem } => return Some(Outcome::Failed(problem)),
            Message::TransientFailure { problem } => return Some(Outcome::TransientFailure(problem)),
            Message::Finished { artifacts } => return Some(Outcome::Finished(artifacts)),
        }
        None
    }

    /// Keeps a checkpoint. Without it the attempt goes on; the next one would only begin further back.
    async fn save_checkpoint(&mut self, epoch: usize, file: &OutputFile) -> Option<Outcome> {
        self.checkpoints += 1;
        let error = self.outputs().save_checkpoint(self.checkpoints, epoch, file).await.err()?;
        let what = format!("the checkpoint after epoch {epoch}");
        self.outbox.line(Level::Warning, "worker", format!("{what} could not be kept: {error}"));
        self.unwritten(&what, &error)
    }

    /// Where the child writes.
    fn folder(&self) -> &Path {
        self.scratch.as_ref().map_or(Path::new(""), Scratch::path)
    }

    /// The child's files.
    fn outputs(&self) -> Outputs<'_> {
        Outputs { jobs: &self.worker.jobs, blobs: &self.worker.blobs, fence: self.fence, scratch: self.folder() }
    }

    /// Waits until the child has exited, and says how its work has ended in the light of that.
    async fn reap(&mut self, child: Child, outcome: Outcome) -> Outcome {
        let (status, lines) = child.end().await;
        for line in lines {
            self.outbox.line(Level::Info, "stderr", line);
        }
        match outcome {
            Outcome::Crashed(_) | Outcome::TransientFailure(_) | Outcome::Aborted(_) if self.stop.is_some() => {
                self.stopped()
            }
            Outcome::Crashed(why) if why.is_empty() => {
                Outcome::Crashed(status.map_or_else(
                    || "its process is gone".to_owned(),
                    |status| format!("its process ended with {status}"),
                ))
            }
            outcome => outcome,
        }
    }
}

/// Waits until then; for ever where there is no then.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}
