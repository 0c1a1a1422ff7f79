//! One attempt of one job: starts the child, writes down what it says, and ends the attempt as it ends.

use tokio::time::{Duration, Instant, MissedTickBehavior};

use super::Worker;
use super::child::{Child, Said};
use super::lease::{Lease, Standing};
use super::outbox::Outbox;
use super::outputs::{self, OutputError};
use super::scratch::Scratch;
use super::task;
use crate::domain::job::{Fence, Interruption, TransitionError};
use crate::domain::problem::{Code, Problem};
use crate::domain::progress::Level;
use crate::process::protocol::{Message, OutputFile, Task};
use crate::runtime::lifecycle::Shutdown;
use crate::store::jobs::{Claim, JobError};

/// Time between two writes of progress and log lines.
const FLUSH: Duration = Duration::from_millis(500);

/// How a child's work has ended.
#[derive(Debug)]
enum Outcome {
    /// It has a result.
    Finished(Vec<OutputFile>),
    /// It has found that the job cannot succeed.
    Failed(Problem),
    /// The machine has let it down.
    LetDown(Problem),
    /// It has stopped, by itself or killed, because of this.
    Stopped(Stop),
    /// It has ended without a last word.
    Crashed(String),
    /// Another attempt has taken over; nothing may be written any more.
    FenceLost,
}

/// Why a child was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Cancelled,
    OutOfTime,
    Draining,
}

/// Runs one attempt to its end. Whatever fails here, the job is safe: its lease lapses.
pub(super) async fn supervise(worker: &Worker, claim: Claim, shutdown: &Shutdown) {
    let fence = claim.fence;
    tracing::info!(%fence, "attempt begins");
    let result = attempt(worker, claim, shutdown).await;
    match result {
        Ok(()) => tracing::info!(%fence, "attempt ended"),
        Err(OutputError::Job(JobError::Transition(TransitionError::FenceLost { .. }))) => {
            tracing::warn!(%fence, "another attempt has taken over");
        }
        Err(error) => tracing::error!(%fence, %error, "the attempt's end could not be written; its lease will lapse"),
    }
    if worker.jobs.watch(fence.job).await.is_ok_and(|glimpse| glimpse.ended)
        && let Err(error) = worker.jobs.sweep_job(&worker.blobs, fence.job).await
    {
        tracing::warn!(%fence, %error, "blobs that nobody needs could not be removed");
    }
}

async fn attempt(worker: &Worker, claim: Claim, shutdown: &Shutdown) -> Result<(), OutputError> {
    let fence = claim.fence;
    let mut lease = Lease::keep(worker.jobs.clone(), fence, worker.policy.lease, worker.policy.heartbeat);
    let scratch = match Scratch::make(&worker.scratch, fence).await {
        Ok(scratch) => scratch,
        Err(error) => return not_begun(worker, fence, "its scratch folder cannot be made", &error).await,
    };
    let task = match task::build(claim, &worker.policy, &worker.blobs, scratch.path()) {
        Ok(task) => task,
        Err(problem) => return Ok(worker.jobs.fail(fence, problem).await?),
    };
    let child = match Child::start(&worker.policy.program, &task).await {
        Ok(child) => child,
        Err(error) => {
            let what = format!("{} cannot be started", worker.policy.program.path.display());
            return not_begun(worker, fence, &what, &error).await;
        }
    };
    let mut attempt = Attempt { worker, fence, task, outbox: Outbox::default(), checkpoints: 0, stop: None };
    let outcome = attempt.follow(child, &mut lease, shutdown).await;
    attempt.conclude(outcome).await
}

/// Ends an attempt that has no child.
async fn not_begun(worker: &Worker, fence: Fence, what: &str, error: &std::io::Error) -> Result<(), OutputError> {
    let (code, why) = (Code::of_system(error), format!("{what}: {error}"));
    if code.is_transient() {
        let_down(worker, fence, Problem::new(code, why)).await
    } else {
        crashed(worker, fence, &why).await
    }
}

/// Notes why an attempt ended without a word from its child, and ends it.
async fn crashed(worker: &Worker, fence: Fence, why: &str) -> Result<(), OutputError> {
    note_end(worker, fence, why).await?;
    Ok(worker.jobs.interrupt(fence, Interruption::Crashed).await?)
}

/// Notes what the machine lacked, and ends the attempt.
async fn let_down(worker: &Worker, fence: Fence, problem: Problem) -> Result<(), OutputError> {
    note_end(worker, fence, &problem.to_string()).await?;
    Ok(worker.jobs.let_down(fence, problem).await?)
}

async fn note_end(worker: &Worker, fence: Fence, why: &str) -> Result<(), OutputError> {
    let mut outbox = Outbox::default();
    outbox.line(Level::Warning, "worker", format!("attempt {} ended: {why}", fence.attempt));
    Ok(outbox.flush(&worker.jobs, fence).await?)
}

struct Attempt<'a> {
    worker: &'a Worker,
    fence: Fence,
    task: Task,
    outbox: Outbox,
    checkpoints: usize,
    /// Why the child was asked to stop, and until when it may take its time.
    stop: Option<(Stop, Instant)>,
}

impl Attempt<'_> {
    /// Listens to the child until it has ended.
    async fn follow(&mut self, mut child: Child, lease: &mut Lease, shutdown: &Shutdown) -> Outcome {
        let mut flush = tokio::time::interval(FLUSH);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = None;
        let outcome = loop {
            let patience = self.stop.map(|(_, until)| until);
            tokio::select! {
                said = child.listen() => match self.hear(said).await {
                    Ok(None) => {}
                    Ok(Some(outcome)) => break outcome,
                    Err(error) => break Self::broken(error),
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
                _ = flush.tick() => if let Err(error) = self.outbox.flush(&self.worker.jobs, self.fence).await {
                    break Self::broken(error.into());
                },
            }
        };
        self.part(child, outcome).await
    }

    /// Asks the child to stop; only the first reason counts.
    async fn stop(&mut self, child: &mut Child, why: Stop) {
        if self.stop.is_none() {
            self.stop = Some((why, Instant::now() + self.worker.policy.grace));
            child.ask_to_stop().await;
        }
    }

    /// The outcome of a child that has ended without a result.
    fn stopped(&self) -> Outcome {
        self.stop.map_or_else(
            || Outcome::Crashed("it stopped without being asked".to_owned()),
            |(why, _)| Outcome::Stopped(why),
        )
    }

    /// The outcome of an attempt that cannot go on because of `error`.
    fn broken(error: OutputError) -> Outcome {
        match error {
            OutputError::Job(JobError::Transition(TransitionError::FenceLost { .. })) => Outcome::FenceLost,
            error if error.code().is_transient() => Outcome::LetDown(Problem::new(error.code(), error.to_string())),
            error => Outcome::Crashed(format!("what it reported could not be written: {error}")),
        }
    }

    /// Writes down what the child says; its last word is the outcome.
    async fn hear(&mut self, said: Said) -> Result<Option<Outcome>, OutputError> {
        match said {
            Said::Message(message) => return self.hear_message(*message).await,
            Said::Complaint(line) => self.outbox.line(Level::Info, "stderr", line),
            Said::Nonsense(why) => {
                return Ok(Some(Outcome::Crashed(format!("it said something that is no message: {why}"))));
            }
            Said::Nothing => return Ok(Some(Outcome::Crashed(String::new()))),
        }
        Ok(None)
    }

    async fn hear_message(&mut self, message: Message) -> Result<Option<Outcome>, OutputError> {
        let (jobs, fence) = (&self.worker.jobs, self.fence);
        match message {
            Message::Progress(progress) => self.outbox.progress(progress),
            Message::Log { level, message } => self.outbox.line(level, "job", message),
            Message::Phase { phase } => {
                self.outbox.flush(jobs, fence).await?;
                jobs.enter_phase(fence, phase).await?;
            }
            Message::Metric(metrics) => {
                self.outbox.flush(jobs, fence).await?;
                jobs.add_metrics(fence, &metrics).await?;
            }
            Message::Checkpoint { epoch, file } => {
                self.checkpoints += 1;
                let (stores, number) = ((jobs, &self.worker.blobs), (self.checkpoints, epoch));
                outputs::save_checkpoint(stores, fence, number, (&self.task.scratch, &file)).await?;
            }
            Message::Stopped => return Ok(Some(self.stopped())),
            Message::Failed { problem } => return Ok(Some(Outcome::Failed(problem))),
            Message::LetDown { problem } => return Ok(Some(Outcome::LetDown(problem))),
            Message::Finished { artifacts } => return Ok(Some(Outcome::Finished(artifacts))),
        }
        Ok(None)
    }

    /// Sees the child off: one that has said its last word may end by itself, any other is killed.
    async fn part(&mut self, mut child: Child, outcome: Outcome) -> Outcome {
        let spoke = matches!(outcome, Outcome::Finished(_) | Outcome::Failed(_));
        if !spoke {
            child.kill();
        }
        let (status, complaints) = child.end().await;
        for line in complaints {
            self.outbox.line(Level::Info, "stderr", line);
        }
        match outcome {
            Outcome::Crashed(_) | Outcome::LetDown(_) if self.stop.is_some() => self.stopped(),
            Outcome::Crashed(why) if why.is_empty() => {
                Outcome::Crashed(status.map_or_else(
                    || "its process is gone".to_owned(),
                    |status| format!("its process ended with {status}"),
                ))
            }
            outcome => outcome,
        }
    }

    /// Ends the attempt in the database.
    async fn conclude(&mut self, outcome: Outcome) -> Result<(), OutputError> {
        let (jobs, fence) = (&self.worker.jobs, self.fence);
        if matches!(outcome, Outcome::FenceLost) {
            return Ok(());
        }
        self.outbox.flush(jobs, fence).await?;
        match outcome {
            Outcome::Finished(files) => self.publish(&files).await?,
            Outcome::Failed(problem) => jobs.fail(fence, problem).await?,
            Outcome::LetDown(problem) => let_down(self.worker, fence, problem).await?,
            Outcome::Stopped(Stop::Cancelled) => jobs.end_cancelled(fence).await?,
            Outcome::Stopped(Stop::OutOfTime) => jobs.fail_out_of_time(fence).await?,
            Outcome::Stopped(Stop::Draining) => jobs.interrupt(fence, Interruption::HandedBack).await?,
            Outcome::Crashed(why) => crashed(self.worker, fence, &why).await?,
            Outcome::FenceLost => {}
        }
        Ok(())
    }

    async fn publish(&self, files: &[OutputFile]) -> Result<(), OutputError> {
        let stores = (&self.worker.jobs, &self.worker.blobs);
        match outputs::publish(stores, self.fence, (&self.task.scratch, files)).await {
            Err(error @ OutputError::Outside { .. }) => {
                Ok(self.worker.jobs.fail(self.fence, Problem::new(Code::Internal, error.to_string())).await?)
            }
            Err(error) if error.code().is_transient() => {
                let_down(self.worker, self.fence, Problem::new(error.code(), error.to_string())).await
            }
            published => published,
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
