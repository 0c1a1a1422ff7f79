//! Reading a job's state and replacing it, within one transaction.

use std::time::Duration;

use crate::store::database::Connection;
use crate::store::sql;
use jiff::Timestamp;
use serde_json::Value;

use super::ended::announce_end;
use super::events::{EventKind, append};
use super::row::{StateRow, duration, from_json, json};
use super::{JobError, PhaseSpan};
use crate::domain::clock::Moment;
use crate::domain::id::JobId;
use crate::domain::job::{Fence, Queued, Running, State};

#[derive(sql::FromRow)]
struct Found {
    max_runtime_ms: i64,
    #[sqlx(flatten)]
    state: StateRow,
}

/// A job's state and the time it may run; nobody else writes to its row until the transaction ends.
pub(super) async fn read(conn: &mut Connection, job: JobId) -> Result<(State, Duration), JobError> {
    let id = job.to_string();
    let found: Option<Found> = sql::query_as(sql::each(
        "SELECT max_runtime_ms, state, attempt, stalled, ran_ms, worker, claimed_at, lease_until, cancel_requested, \
         finished_at, error, not_before FROM jobs WHERE id = $1",
        "SELECT max_runtime_ms, state, attempt, stalled, ran_ms, worker, claimed_at, lease_until, cancel_requested, \
         finished_at, error, not_before FROM jobs WHERE id = $1 FOR UPDATE",
    ))
    .bind(&id)
    .fetch_optional(conn)
    .await?;
    let found = found.ok_or(JobError::NotFound(job))?;
    Ok((found.state.state(&id)?, duration(found.max_runtime_ms)))
}

/// The running job that `fence` holds, and the time it may run.
pub(super) async fn held(conn: &mut Connection, fence: Fence) -> Result<(Running, Duration), JobError> {
    let (state, max_runtime) = read(conn, fence.job).await?;
    Ok((state.held_by(fence)?, max_runtime))
}

/// What a row must still hold for a write to touch it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    job: JobId,
    state: &'static str,
    attempt: u32,
}

impl Guard {
    /// As long as `job` is in this state, at the same attempt.
    pub(super) fn of(job: JobId, state: &State) -> Self {
        Self { job, state: state.name(), attempt: state.effort().attempts }
    }
}

impl From<Fence> for Guard {
    fn from(fence: Fence) -> Self {
        Self { job: fence.job, state: "running", attempt: fence.attempt }
    }
}

/// Puts `new` where `guard` holds, appends a `state` event with `details` and announces an end to webhooks.
pub(super) async fn replace(
    conn: &mut Connection,
    guard: Guard,
    new: &State,
    details: Value,
    now: Moment,
) -> Result<(), JobError> {
    write(conn, guard, new).await?;
    if !matches!(new, State::Running(_)) {
        end_phase(conn, guard.job, now.date).await?;
    }
    append(conn, guard.job, EventKind::State, &state_data(new, details, now), now.date).await?;
    announce_end(conn, guard.job, new, now).await
}

/// Writes what has changed of a running job that stays one; that is no event.
pub(super) async fn update(conn: &mut Connection, fence: Fence, running: Running) -> Result<(), JobError> {
    write(conn, fence.into(), &State::Running(running)).await
}

/// Writes the columns of `new` where `guard` holds; a job that has moved on is not touched.
async fn write(conn: &mut Connection, guard: Guard, new: &State) -> Result<(), JobError> {
    let Guard { job, state, attempt } = guard;
    let row = StateRow::of(new);
    let changed = sql::query(
        "UPDATE jobs SET state = $1, attempt = $2, stalled = $3, ran_ms = $4, worker = $5, claimed_at = $6, lease_until = $7, \
         cancel_requested = $8, finished_at = $9, error = $10, not_before = $11 WHERE id = $12 AND state = $13 AND attempt = $14",
    )
    .bind(row.state)
    .bind(row.attempt)
    .bind(row.stalled)
    .bind(row.ran_ms)
    .bind(row.worker)
    .bind(row.claimed_at)
    .bind(row.lease_until)
    .bind(row.cancel_requested)
    .bind(row.finished_at)
    .bind(row.error)
    .bind(row.not_before)
    .bind(job.to_string())
    .bind(state)
    .bind(attempt)
    .execute(&mut *conn)
    .await?;
    one_row(changed.rows_affected(), conn, Fence { job, attempt }).await
}

/// Passes a guarded write that changed one row; else says what stands in its way.
pub(super) async fn one_row(changed: u64, conn: &mut Connection, fence: Fence) -> Result<(), JobError> {
    if changed == 1 { Ok(()) } else { Err(lost(conn, fence).await) }
}

/// What stands in the way of a guarded write that changed nothing.
pub(super) async fn lost(conn: &mut Connection, fence: Fence) -> JobError {
    match read(conn, fence.job).await {
        Ok((state, _)) => {
            let (state, attempt) = (state.name(), state.effort().attempts);
            crate::domain::job::TransitionError::FenceLost { fence, state, attempt }.into()
        }
        Err(error) => error,
    }
}

/// Closes the phase that an ended attempt was in.
async fn end_phase(conn: &mut Connection, job: JobId, now: Timestamp) -> Result<(), JobError> {
    let id = job.to_string();
    let phases: String =
        sql::query_scalar("SELECT phases FROM jobs WHERE id = $1").bind(&id).fetch_one(&mut *conn).await?;
    let mut phases: Vec<PhaseSpan> = from_json(&id, &phases)?;
    if let Some(last) = phases.last_mut() {
        last.ended = Some(now);
        sql::query("UPDATE jobs SET phases = $1 WHERE id = $2").bind(json(&phases)).bind(&id).execute(conn).await?;
    }
    Ok(())
}

/// What the event says of a job that is `state` now.
pub(super) fn state_data(state: &State, details: Value, now: Moment) -> Value {
    let mut data = serde_json::json!({ "state": state.shown() });
    match state {
        State::Failed(_, problem) => data["error"] = serde_json::json!(problem),
        State::Queued(Queued { not_before: Some(time), .. }) => {
            data["not_before"] =
                serde_json::json!(now.date.checked_add(time.since(now.steady)).unwrap_or(Timestamp::MAX));
        }
        _ => {}
    }
    if let (Some(data), Value::Object(details)) = (data.as_object_mut(), details) {
        data.extend(details);
    }
    data
}
