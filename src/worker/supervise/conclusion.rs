//! The end of an attempt, written to the database for as long as that may succeed.

use tokio::time::{Duration, Instant};

use super::Attempt;
use super::outcome::{Outcome, Stop};
use crate::domain::job::Interruption;
use crate::domain::problem::{Code, Problem};
use crate::domain::progress::Level;
use crate::process::protocol::OutputFile;
use crate::runtime::lifecycle::Shutdown;
use crate::store::jobs::LogLine;
use crate::worker::lease::Lease;
use crate::worker::outputs::OutputError;

/// Time to wait before an attempt's end is written again; doubled each time, up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Attempt<'_> {
    /// Ends the attempt in the database. While the storage fails it tries again, for as long as the lease is good: what the child
    /// has made lies in its folder, and waits.
    pub(super) async fn conclude(
        &mut self,
        outcome: Outcome,
        lease: &mut Lease,
        shutdown: &Shutdown,
    ) -> Result<(), OutputError> {
        let patience = Instant::now() + self.worker.policy.lease;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.write_end(&outcome).await {
                Err(error) if error.code().is_transient() => error,
                written => return written,
            };
            tracing::warn!(fence = %self.fence, %error, "the attempt's end could not be written yet");
            if Instant::now() >= patience {
                return self.give_up(outcome, error).await;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
                () = lease.lost() => return Err(error),
                () = shutdown.stopping() => return Err(error),
            }
        }
    }

    async fn write_end(&mut self, outcome: &Outcome) -> Result<(), OutputError> {
        let (jobs, fence) = (&self.worker.jobs, self.fence);
        if matches!(outcome, Outcome::FenceLost) {
            return Ok(());
        }
        self.outbox.flush(jobs, fence).await?;
        match outcome {
            Outcome::Finished(files) => self.publish(files).await?,
            Outcome::Failed(problem) => jobs.fail(fence, self.discretion.problem(problem)).await?,
            Outcome::TransientFailure(problem) | Outcome::Aborted(problem) => {
                self.note_end(&problem.to_string()).await?;
                jobs.fail_for_now(fence, self.discretion.problem(problem)).await?;
            }
            Outcome::Stopped(Stop::Cancelled) => jobs.end_cancelled(fence).await?,
            Outcome::Stopped(Stop::OutOfTime) => jobs.fail_out_of_time(fence).await?,
            Outcome::Stopped(Stop::Draining) => jobs.interrupt(fence, Interruption::HandedBack).await?,
            Outcome::Crashed(why) => {
                self.note_end(why).await?;
                jobs.interrupt(fence, Interruption::Crashed).await?;
            }
            Outcome::FenceLost => {}
        }
        Ok(())
    }

    async fn publish(&self, files: &[OutputFile]) -> Result<(), OutputError> {
        match self.outputs().publish(files).await {
            Err(error @ OutputError::Outside { .. }) => {
                let problem = self.discretion.problem(&Problem::new(Code::Internal, error.to_string()));
                Ok(self.worker.jobs.fail(self.fence, problem).await?)
            }
            published => published,
        }
    }

    /// Lets the job wait for a better time where rows can be written but its results cannot be kept.
    async fn give_up(&mut self, outcome: Outcome, error: OutputError) -> Result<(), OutputError> {
        match outcome {
            Outcome::Finished(_) => {
                let problem = Problem::new(error.code(), format!("The results could not be kept: {error}."));
                self.write_end(&Outcome::Aborted(problem)).await
            }
            _ => Err(error),
        }
    }

    /// Notes why the attempt ends without a result.
    async fn note_end(&self, why: &str) -> Result<(), OutputError> {
        let message = self.discretion.text(format!("attempt {} ended: {why}", self.fence.attempt));
        let line = LogLine { level: Level::Warning, message, source: "worker" };
        Ok(self.worker.jobs.log(self.fence, &[line]).await?)
    }
}
