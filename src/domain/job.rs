//! The life of a job: `queued -> running -> succeeded | failed | cancelled`.
//!
//! Each state carries the data that only it has, and a transition consumes the state it leaves. A running job belongs
//! to one attempt of one worker; when that attempt ends without a result the job is queued again, unless it has been
//! cancelled, has used up its time, or keeps crashing without getting further.

use std::time::Duration;

use jiff::Timestamp;

use super::clock::{Moment, SteadyTime};
use super::id::{JobId, WorkerId};
use super::problem::{Code, Problem};

/// Attempts in a row that may end without a new checkpoint or phase before the job counts as a crash loop.
pub const MAX_STALLED_ATTEMPTS: u32 = 5;
/// Pause after the first transient failure; each further one without headway takes four times as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The right to write for a job: held by one attempt, void once the job has moved on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The job.
    pub job: JobId,
    /// The attempt, counted from 1.
    pub attempt: u32,
}

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} attempt {}", self.job, self.attempt)
    }
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Waits for a worker.
    Queued(Queued),
    /// A worker computes.
    Running(Running),
    /// Its artifacts are published.
    Succeeded(Ended),
    /// It cannot succeed.
    Failed(Ended, Problem),
    /// Its end was requested.
    Cancelled(Ended),
}

/// A job that waits for a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Queued {
    /// Attempts so far.
    pub effort: Effort,
    /// When it may be claimed, where the machine gets time to recover first.
    pub not_before: Option<SteadyTime>,
}

/// A job that a worker computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Running {
    /// Attempts so far, this one included.
    pub effort: Effort,
    /// Who computes.
    pub worker: WorkerId,
    /// When this attempt began.
    pub claimed: SteadyTime,
    /// Until when the worker has promised to be alive.
    pub lease_until: SteadyTime,
    /// Whether its end has been requested.
    pub cancel_requested: bool,
}

/// A job that never changes again.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Attempts that were made.
    pub effort: Effort,
    /// When it ended.
    pub finished: Timestamp,
}

/// What has been spent on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// Times the job was claimed.
    pub attempts: u32,
    /// Attempts in a row, the running one included, that brought no new checkpoint or phase.
    pub stalled: u32,
    /// Time spent running in attempts that have ended.
    pub ran: Duration,
}

/// Why an attempt ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// The child process ended without a last message.
    Crashed,
    /// The worker did not renew its lease.
    LeaseLapsed,
    /// The worker's process has ended without a word.
    WorkerGone,
    /// The worker shuts down and gives the job back.
    HandedBack,
    /// The machine lacks something that the attempt needs.
    TransientFailure,
}

impl Interruption {
    /// Its name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crashed => "crashed",
            Self::LeaseLapsed => "lease_lapsed",
            Self::WorkerGone => "worker_gone",
            Self::HandedBack => "handed_back",
            Self::TransientFailure => "transient_failure",
        }
    }
}

/// A transition that the present state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The attempt that wants to write does not hold the job.
    #[error("{fence} no longer holds the job, which is {state} at attempt {attempt}; stop the attempt")]
    FenceLost {
        /// Who wanted to write.
        fence: Fence,
        /// The state that was found.
        state: &'static str,
        /// The attempt that was found.
        attempt: u32,
    },
    /// The operation is for jobs that have ended.
    #[error("the job is {0}; cancel it or wait until it has ended")]
    StillActive(&'static str),
}

impl State {
    /// The state of a new job.
    #[must_use]
    pub fn new() -> Self {
        Self::Queued(Queued { effort: Effort::default(), not_before: None })
    }

    /// Every name that [`State::shown`] gives.
    pub const SHOWN: &'static [&'static str] = &["queued", "running", "cancelling", "succeeded", "failed", "cancelled"];

    /// Its name in answers: a running job whose end has been requested is `cancelling`.
    #[must_use]
    pub fn shown(&self) -> &'static str {
        if self.is_cancelling() { "cancelling" } else { self.name() }
    }

    /// Its name in the database.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued(_) => "queued",
            Self::Running(_) => "running",
            Self::Succeeded(_) => "succeeded",
            Self::Failed(..) => "failed",
            Self::Cancelled(_) => "cancelled",
        }
    }

    /// What has been spent on the job.
    #[must_use]
    pub fn effort(&self) -> Effort {
        match self {
            Self::Queued(queued) => queued.effort,
            Self::Running(running) => running.effort,
            Self::Succeeded(ended) | Self::Failed(ended, _) | Self::Cancelled(ended) => ended.effort,
        }
    }

    /// When the job ended, if it has.
    #[must_use]
    pub fn finished(&self) -> Option<Timestamp> {
        match self {
            Self::Queued(_) | Self::Running(_) => None,
            Self::Succeeded(ended) | Self::Failed(ended, _) | Self::Cancelled(ended) => Some(ended.finished),
        }
    }

    /// Whether the job never changes again.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.finished().is_some()
    }

    /// Whether it is a running job whose end has been requested.
    #[must_use]
    pub fn is_cancelling(&self) -> bool {
        matches!(self, Self::Running(running) if running.cancel_requested)
    }

    /// The running job, for the attempt that holds it.
    ///
    /// # Errors
    /// When the job is not running, or another attempt runs it.
    pub fn held_by(self, fence: Fence) -> Result<Running, TransitionError> {
        match self {
            Self::Running(running) if running.effort.attempts == fence.attempt => Ok(running),
            other => {
                let (state, attempt) = (other.name(), other.effort().attempts);
                Err(TransitionError::FenceLost { fence, state, attempt })
            }
        }
    }

    /// Requests the end of the job: a queued one ends at once, a running one at its next heartbeat, an ended one stays.
    #[must_use]
    pub fn cancel(self, now: Moment) -> Self {
        match self {
            Self::Queued(queued) => Self::Cancelled(Ended { effort: queued.effort, finished: now.date }),
            Self::Running(running) => Self::Running(Running { cancel_requested: true, ..running }),
            ended => ended,
        }
    }

    /// Passes jobs that have ended.
    ///
    /// # Errors
    /// When the job is still active.
    pub fn ended(self) -> Result<Self, TransitionError> {
        if self.is_terminal() { Ok(self) } else { Err(TransitionError::StillActive(self.name())) }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl Queued {
    /// A worker takes the job and promises to be alive for a `lease`. The attempt counts as stalled until it gets further
    /// than those before it.
    #[must_use]
    pub fn claim(self, worker: WorkerId, lease: Duration, now: Moment) -> Running {
        let Effort { attempts, stalled, ran } = self.effort;
        Running {
            effort: Effort { attempts: attempts + 1, stalled: stalled + 1, ran },
            worker,
            claimed: now.steady,
            lease_until: now.steady.after(lease),
            cancel_requested: false,
        }
    }

    /// Ends a job that cannot even start.
    #[must_use]
    pub fn fail(self, problem: Problem, now: Moment) -> State {
        State::Failed(Ended { effort: self.effort, finished: now.date }, problem)
    }
}

impl Running {
    /// The worker promises to be alive for another `lease`.
    #[must_use]
    pub fn renew(self, lease: Duration, now: Moment) -> Self {
        Self { lease_until: now.steady.after(lease), ..self }
    }

    /// The attempt has reached a phase, or the checkpoint of an epoch: it has not stalled if this is further than any
    /// attempt has come.
    #[must_use]
    pub fn advance<T: PartialOrd>(mut self, furthest: &T, reached: &T) -> Self {
        if reached > furthest {
            self.effort.stalled = 0;
        }
        self
    }

    /// The artifacts are published; a cancel request that came before has come too late.
    #[must_use]
    pub fn succeed(self, now: Moment) -> State {
        State::Succeeded(self.end(now))
    }

    /// The job cannot succeed.
    #[must_use]
    pub fn fail(self, problem: Problem, now: Moment) -> State {
        State::Failed(self.end(now), problem)
    }

    /// The computation has stopped because its end was requested.
    #[must_use]
    pub fn cancelled(self, now: Moment) -> State {
        State::Cancelled(self.end(now))
    }

    /// The attempt ended without a result.
    #[must_use]
    pub fn interrupt(self, why: Interruption, max_runtime: Duration, now: Moment) -> State {
        if self.cancel_requested {
            return self.cancelled(now);
        }
        // A worker that did not say when it stopped has run until its lease ended, at most.
        let lapsed = matches!(why, Interruption::LeaseLapsed | Interruption::WorkerGone);
        let until = if lapsed { now.steady.min(self.lease_until) } else { now.steady };
        let mut effort = self.effort_until(until);
        if why == Interruption::HandedBack {
            effort.stalled = effort.stalled.saturating_sub(1);
        }
        let ended = Ended { effort, finished: now.date };
        if effort.ran >= max_runtime {
            State::Failed(ended, out_of_time(max_runtime))
        } else if effort.stalled > MAX_STALLED_ATTEMPTS {
            State::Failed(ended, crash_loop(effort))
        } else {
            State::Queued(Queued { effort, not_before: None })
        }
    }

    /// The machine lacks something that the attempt needs: room on the disk, memory, threads. The job waits, longer each
    /// time, and ends with `problem` when the fault persists.
    #[must_use]
    pub fn fail_for_now(self, problem: Problem, max_runtime: Duration, now: Moment) -> State {
        let stalled = self.effort.stalled;
        match self.interrupt(Interruption::TransientFailure, max_runtime, now) {
            State::Queued(queued) => {
                State::Queued(Queued { not_before: Some(now.steady.after(pause(stalled))), ..queued })
            }
            State::Failed(ended, end) if end.code == Code::CrashLoop => {
                let attempts = ended.effort.attempts;
                let detail = format!(
                    "{} The job has given up after {attempts} attempts; retry it when there is a remedy.",
                    problem.detail
                );
                State::Failed(ended, Problem { detail, ..problem })
            }
            other => other,
        }
    }

    /// How much of `max_runtime` is left at `now`.
    #[must_use]
    pub fn time_left(&self, max_runtime: Duration, now: Moment) -> Duration {
        max_runtime.saturating_sub(self.effort_until(now.steady).ran)
    }

    fn end(&self, now: Moment) -> Ended {
        Ended { effort: self.effort_until(now.steady), finished: now.date }
    }

    fn effort_until(&self, until: SteadyTime) -> Effort {
        let this = until.since(self.claimed);
        Effort { ran: self.effort.ran + this, ..self.effort }
    }
}

/// The problem of a job that has used up its time.
#[must_use]
pub fn out_of_time(max_runtime: Duration) -> Problem {
    let seconds = max_runtime.as_secs();
    Problem::new(
        Code::MaxRuntimeExceeded,
        format!("The job has been running for its {seconds} s; a retry goes on from its last checkpoint."),
    )
}

/// Time that the machine gets after `stalled` attempts in a row without headway: 1 s, 4 s, 16 s, …
fn pause(stalled: u32) -> Duration {
    FIRST_PAUSE * 4_u32.pow(stalled.min(MAX_STALLED_ATTEMPTS))
}

fn crash_loop(effort: Effort) -> Problem {
    Problem::new(
        Code::CrashLoop,
        format!(
            "{} attempts in a row ended without a new checkpoint or phase ({} attempts in all); the job's logs show the last words of each.",
            effort.stalled, effort.attempts
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::from_millis;

    fn at(millis: i64) -> Moment {
        Moment { date: from_millis(millis), steady: SteadyTime::from_millis(millis) }
    }

    const DAY: Duration = Duration::from_hours(24);

    fn running(attempts: u32, stalled: u32) -> Running {
        Running {
            effort: Effort { attempts, stalled, ran: Duration::from_secs(5) },
            worker: WorkerId::new(),
            claimed: at(10_000).steady,
            lease_until: at(70_000).steady,
            cancel_requested: false,
        }
    }

    #[test]
    fn only_the_attempt_that_runs_holds_the_job() {
        let job = JobId::new();
        let fence = |attempt| Fence { job, attempt };
        assert!(State::Running(running(2, 1)).held_by(fence(2)).is_ok());
        for (state, attempt) in [
            (State::Running(running(2, 1)), 1),
            (State::Running(running(2, 1)), 3),
            (State::new(), 0),
            (running(2, 1).succeed(at(20_000)), 2),
        ] {
            let error = state.held_by(fence(attempt)).expect_err("a fence that is void");
            assert!(matches!(error, TransitionError::FenceLost { .. }), "{error}");
        }
    }

    #[test]
    fn a_claim_begins_an_attempt_that_is_stalled_until_it_gets_further_than_any_before() {
        let (worker, now, lease) = (WorkerId::new(), at(10_000), Duration::from_mins(1));
        let effort = Effort { attempts: 2, stalled: 1, ran: Duration::from_secs(5) };
        let claimed = Queued { effort, not_before: Some(now.steady) }.claim(worker, lease, now);
        let expected = Running {
            effort: Effort { attempts: 3, stalled: 2, ..effort },
            worker,
            claimed: now.steady,
            lease_until: at(70_000).steady,
            cancel_requested: false,
        };
        assert_eq!(claimed, expected);
        let renewed = claimed.clone().renew(lease, at(20_000));
        assert_eq!(renewed, Running { lease_until: at(80_000).steady, ..expected });
        assert_eq!(claimed.clone().advance(&Some(4), &Some(4)).effort.stalled, 2, "no further than before");
        assert_eq!(claimed.advance(&None, &Some(0)).effort, Effort { attempts: 3, stalled: 0, ..effort });
    }

    #[test]
    fn an_interrupted_attempt_is_queued_again_with_its_running_time() {
        let now = at(200_000);
        let crashed = running(1, 1).interrupt(Interruption::Crashed, DAY, now);
        let State::Queued(queued) = crashed else { panic!("{crashed:?}") };
        assert_eq!(queued.effort, Effort { attempts: 1, stalled: 1, ran: Duration::from_secs(195) });
        let lapsed = running(1, 1).interrupt(Interruption::LeaseLapsed, DAY, now);
        assert_eq!(lapsed.effort().ran, Duration::from_secs(65), "counted until the lease ended");
        let handed_back = running(1, 1).interrupt(Interruption::HandedBack, DAY, now);
        assert_eq!(handed_back.effort().stalled, 0, "a shutdown is not a crash");
    }

    #[test]
    fn the_sixth_attempt_in_a_row_without_progress_is_a_crash_loop() {
        let now = at(20_000);
        assert_eq!(running(5, 5).interrupt(Interruption::Crashed, DAY, now).name(), "queued");
        let State::Failed(_, problem) = running(6, 6).interrupt(Interruption::LeaseLapsed, DAY, now) else {
            panic!("six attempts without progress must fail")
        };
        assert_eq!(problem.code, Code::CrashLoop);
        assert_eq!(running(9, 6).advance(&1, &2).interrupt(Interruption::Crashed, DAY, now).name(), "queued");
    }

    #[test]
    fn a_job_waits_longer_after_each_transient_failure_and_ends_with_the_last() {
        let now = at(20_000);
        let full = || Problem::new(Code::DiskFull, "no room.");
        let pauses = (0..=MAX_STALLED_ATTEMPTS).map(|stalled| {
            let State::Queued(queued) = running(1, stalled).fail_for_now(full(), DAY, now) else { panic!("not yet") };
            queued.not_before.expect("a pause").since(now.steady).as_secs()
        });
        assert_eq!(pauses.collect::<Vec<_>>(), [1, 4, 16, 64, 256, 1024]);
        let State::Failed(_, problem) = running(9, 6).fail_for_now(full(), DAY, now) else { panic!("it persists") };
        assert_eq!(problem.code, Code::DiskFull);
        assert!(problem.detail.starts_with("no room. The job has given up after 9 attempts"), "{}", problem.detail);
        let State::Running(flagged) = State::Running(running(1, 1)).cancel(now) else { panic!("still running") };
        assert_eq!(flagged.fail_for_now(full(), DAY, now).name(), "cancelled");
        let State::Failed(_, problem) = running(1, 1).fail_for_now(full(), Duration::from_secs(1), now) else {
            panic!("late")
        };
        assert_eq!(problem.code, Code::MaxRuntimeExceeded);
    }

    #[test]
    fn time_is_counted_over_all_attempts() {
        let now = at(20_000);
        let limit = Duration::from_secs(15);
        assert_eq!(running(2, 1).time_left(Duration::from_secs(16), now), Duration::from_secs(1));
        let State::Failed(_, problem) = running(2, 1).interrupt(Interruption::Crashed, limit, now) else {
            panic!("the time is used up")
        };
        assert_eq!(problem.code, Code::MaxRuntimeExceeded);
    }

    #[test]
    fn cancelling_ends_what_waits_flags_what_runs_and_leaves_what_has_ended() {
        let now = at(20_000);
        assert_eq!(State::new().cancel(now).name(), "cancelled");
        let flagged = State::Running(running(6, 6)).cancel(now);
        assert!(flagged.is_cancelling() && !flagged.is_terminal());
        let State::Running(held) = flagged else { panic!("still running") };
        assert_eq!(held.clone().interrupt(Interruption::LeaseLapsed, DAY, now).name(), "cancelled");
        let published = held.succeed(now);
        assert_eq!(published.name(), "succeeded", "a publish that commits first wins");
        assert_eq!(published.clone().cancel(now), published);
    }

    #[test]
    fn only_ended_jobs_pass_as_ended() {
        assert_eq!(State::new().ended(), Err(TransitionError::StillActive("queued")));
        assert!(State::new().cancel(at(1)).ended().is_ok());
    }
}
