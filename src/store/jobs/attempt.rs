//! What a running attempt may write. Each write is guarded by the attempt's fence and refused once the job has moved on.

use std::time::Duration;

use crate::store::database::Connection;
use crate::store::sql;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::events::{EventKind, append};
#[cfg(test)]
use super::failure::FailurePoint;
use super::row::{from_json, json as to_json};
use super::transition::{held, replace, update};
use super::{JobError, Jobs, PhaseSpan};
use crate::domain::clock::Moment;
use crate::domain::job::{Fence, Interruption, Running, State, out_of_time};
use crate::domain::problem::Problem;
use crate::domain::progress::{Phase, Progress};

/// What a worker learns when it renews its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whether the job's end has been requested.
    pub cancel_requested: bool,
    /// How long the job may still run.
    pub time_left: Duration,
}

/// A blob that becomes a result of the job when it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// What it is: `model`, `report`, `architecture`, `provenance`.
    pub name: String,
    /// Key of the blob.
    pub blob_key: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// Its media type.
    pub media_type: String,
}

impl Jobs {
    /// Promises to be alive for another `lease`.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn renew(&self, fence: Fence, lease: Duration) -> Result<Heartbeat, JobError> {
        let (mut transaction, now) = self.begin_for_one().await?;
        let (running, max_runtime) = held(&mut transaction, fence).await?;
        let heartbeat =
            Heartbeat { cancel_requested: running.cancel_requested, time_left: running.time_left(max_runtime, now) };
        update(&mut transaction, fence, running.renew(lease, now)).await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::RenewBeforeCommit)?;
        transaction.commit().await?;
        Ok(heartbeat)
    }

    /// A phase begins, and the one before it ends. One that no attempt has reached before counts as headway.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn enter_phase(&self, fence: Fence, phase: Phase) -> Result<(), JobError> {
        let (mut transaction, now) = self.begin_for_one().await?;
        let (running, _) = held(&mut transaction, fence).await?;
        let id = fence.job.to_string();
        let (furthest, phases): (i64, String) = sql::query_as("SELECT furthest_phase, phases FROM jobs WHERE id = $1")
            .bind(&id)
            .fetch_one(&mut *transaction)
            .await?;
        let reached = phase as i64;
        update(&mut transaction, fence, running.advance(&furthest, &reached)).await?;
        let progress = Progress::at(phase);
        sql::query("UPDATE jobs SET phases = $1, progress = $2, furthest_phase = $3 WHERE id = $4")
            .bind(to_json(&with_phase(from_json(&id, &phases)?, phase, now.date)))
            .bind(to_json(&progress))
            .bind(furthest.max(reached))
            .bind(&id)
            .execute(&mut *transaction)
            .await?;
        append(&mut transaction, fence.job, EventKind::Progress, &json!(progress), now.date).await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::EnterPhaseBeforeCommit)?;
        Ok(transaction.commit().await?)
    }

    /// From the blob `key` another attempt can go on. Returns the key of the blob that this one replaces.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn save_checkpoint(&self, fence: Fence, epoch: usize, key: &str) -> Result<Option<String>, JobError> {
        let (mut transaction, _) = self.begin_for_one().await?;
        let (running, _) = held(&mut transaction, fence).await?;
        let id = fence.job.to_string();
        let (superseded, furthest): (Option<String>, Option<i64>) =
            sql::query_as("SELECT checkpoint_key, checkpoint_epoch FROM jobs WHERE id = $1")
                .bind(&id)
                .fetch_one(&mut *transaction)
                .await?;
        let reached = epoch as i64;
        update(&mut transaction, fence, running.advance(&furthest, &Some(reached))).await?;
        sql::query("UPDATE jobs SET checkpoint_key = $1, checkpoint_epoch = $2 WHERE id = $3")
            .bind(key)
            .bind(reached)
            .bind(&id)
            .execute(&mut *transaction)
            .await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::SaveCheckpointBeforeCommit)?;
        transaction.commit().await?;
        Ok(superseded)
    }

    /// Ends the job with its results: they and the state become visible in one commit. Returns the key of the checkpoint that
    /// nobody needs any more.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn publish(&self, fence: Fence, artifacts: &[Artifact]) -> Result<Option<String>, JobError> {
        let (mut transaction, now) = self.begin().await?;
        let (running, _) = held(&mut transaction, fence).await?;
        for artifact in artifacts {
            insert_artifact(&mut transaction, fence, artifact).await?;
        }
        #[cfg(test)]
        self.failures.pass(FailurePoint::PublishBeforeState)?;
        let id = fence.job.to_string();
        let (checkpoint, progress): (Option<String>, Option<String>) =
            sql::query_as("SELECT checkpoint_key, progress FROM jobs WHERE id = $1")
                .bind(&id)
                .fetch_one(&mut *transaction)
                .await?;
        let done = progress.map(|progress| from_json(&id, &progress).map(Progress::done)).transpose()?;
        sql::query("UPDATE jobs SET checkpoint_key = NULL, checkpoint_epoch = NULL, progress = $1 WHERE id = $2")
            .bind(done.as_ref().map(to_json))
            .bind(&id)
            .execute(&mut *transaction)
            .await?;
        end(&mut transaction, fence, &running.succeed(now), Value::Null, now).await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::PublishBeforeCommit)?;
        transaction.commit().await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::PublishAfterCommit)?;
        Ok(checkpoint)
    }

    /// Ends the job, which cannot succeed.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn fail(&self, fence: Fence, problem: Problem) -> Result<(), JobError> {
        self.leave(fence, |running, _, now| (running.fail(problem, now), Value::Null)).await
    }

    /// Ends the job, which has used up its time.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn fail_out_of_time(&self, fence: Fence) -> Result<(), JobError> {
        self.leave(fence, |running, limit, now| (running.fail(out_of_time(limit), now), Value::Null)).await
    }

    /// Ends the job whose end was requested.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn end_cancelled(&self, fence: Fence) -> Result<(), JobError> {
        self.leave(fence, |running, _, now| (running.cancelled(now), Value::Null)).await
    }

    /// The attempt ends without a result; the job waits for the next one, or ends if that would be in vain.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn interrupt(&self, fence: Fence, why: Interruption) -> Result<(), JobError> {
        let details = json!({ "reason": why.as_str() });
        self.leave(fence, |running, limit, now| (running.interrupt(why, limit, now), details)).await
    }

    /// The attempt has met a transient failure; the job waits for a better time, or ends with `problem` if there was none.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn fail_for_now(&self, fence: Fence, problem: Problem) -> Result<(), JobError> {
        let details = json!({ "reason": Interruption::TransientFailure.as_str() });
        self.leave(fence, |running, limit, now| (running.fail_for_now(problem, limit, now), details)).await
    }

    async fn leave(
        &self,
        fence: Fence,
        next: impl FnOnce(Running, Duration, Moment) -> (State, Value) + Send,
    ) -> Result<(), JobError> {
        let (mut transaction, now) = self.begin().await?;
        let (running, max_runtime) = held(&mut transaction, fence).await?;
        let (state, details) = next(running, max_runtime, now);
        end(&mut transaction, fence, &state, details, now).await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::LeaveBeforeCommit)?;
        Ok(transaction.commit().await?)
    }
}

async fn end(conn: &mut Connection, fence: Fence, state: &State, details: Value, now: Moment) -> Result<(), JobError> {
    replace(conn, fence.into(), state, details, now).await
}

/// The attempt's phases with the last one closed and `phase` begun.
fn with_phase(mut phases: Vec<PhaseSpan>, phase: Phase, now: Timestamp) -> Vec<PhaseSpan> {
    if let Some(last) = phases.last_mut() {
        last.ended = Some(now);
    }
    phases.push(PhaseSpan { name: phase, started: now, ended: None });
    phases
}

async fn insert_artifact(conn: &mut Connection, fence: Fence, artifact: &Artifact) -> Result<(), JobError> {
    sql::query(
        "INSERT INTO job_artifacts (job_id, name, blob_key, sha256, bytes, media_type) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(fence.job.to_string())
    .bind(&artifact.name)
    .bind(&artifact.blob_key)
    .bind(&artifact.sha256)
    .bind(i64::try_from(artifact.bytes).unwrap_or(i64::MAX))
    .bind(&artifact.media_type)
    .execute(conn)
    .await?;
    Ok(())
}
