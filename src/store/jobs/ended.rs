//! Tells the webhooks of a tenant that a job has ended, and with it, maybe, a comparison.

use crate::store::database::Connection;
use crate::store::sql;
use crate::store::sql::FromRow;
use serde_json::{Value, json};

use super::JobError;
use super::row::from_json;
use crate::domain::clock::{Moment, from_millis};
use crate::domain::comparison::StateCounts;
use crate::domain::id::JobId;
use crate::domain::job::State;
use crate::domain::problem::Problem;
use crate::domain::webhook::EventType;
use crate::store::webhooks::announce;

#[derive(FromRow)]
struct EndedRow {
    tenant: String,
    resolved: String,
    labels: String,
    owner: Option<String>,
    created_at: i64,
    comparison_id: Option<String>,
}

/// Announces that `job` has come to `state`, where that is an end, in the transaction that brings it there.
pub(super) async fn announce_end(
    conn: &mut Connection,
    job: JobId,
    state: &State,
    now: Moment,
) -> Result<(), JobError> {
    let (event, finished, error): (_, _, Option<&Problem>) = match state {
        State::Succeeded(ended) => (EventType::JobSucceeded, ended.finished, None),
        State::Failed(ended, problem) => (EventType::JobFailed, ended.finished, Some(problem)),
        State::Cancelled(ended) => (EventType::JobCancelled, ended.finished, None),
        State::Queued(_) | State::Running(_) => return Ok(()),
    };
    let id = job.to_string();
    let row: EndedRow = sql::query_as(
        "SELECT tenant, resolved, labels, owner, created_at, \
             (SELECT comparison_id FROM comparison_runs WHERE job_id = jobs.id) AS comparison_id \
         FROM jobs WHERE id = $1",
    )
    .bind(&id)
    .fetch_one(&mut *conn)
    .await?;
    let (labels, resolved): (Value, Value) = (from_json(&id, &row.labels)?, from_json(&id, &row.resolved)?);
    announce(conn, &row.tenant, event, now, || {
        json!({
            "id": job, "name": resolved["name"], "state": state.shown(), "labels": labels, "owner": row.owner, "comparison": row.comparison_id,
            "created_at": from_millis(row.created_at), "finished_at": finished, "error": error,
        })
    })
    .await?;
    match row.comparison_id {
        Some(comparison) => announce_comparison(conn, &row.tenant, &comparison, now).await,
        None => Ok(()),
    }
}

/// Announces that a comparison has ended, where none of its jobs will change any more.
async fn announce_comparison(
    conn: &mut Connection,
    tenant: &str,
    comparison: &str,
    now: Moment,
) -> Result<(), JobError> {
    let states: Vec<Option<String>> = sql::query_scalar(
        "SELECT state FROM comparison_runs LEFT JOIN jobs ON jobs.id = job_id WHERE comparison_id = $1",
    )
    .bind(comparison)
    .fetch_all(&mut *conn)
    .await?;
    let counts: StateCounts = states.into_iter().collect();
    if !counts.ended() {
        return Ok(());
    }
    let title: String =
        sql::query_scalar("SELECT title FROM comparisons WHERE id = $1").bind(comparison).fetch_one(&mut *conn).await?;
    announce(conn, tenant, EventType::ComparisonEnded, now, || {
        json!({
            "id": comparison, "title": title, "state": counts.state(), "runs": counts.total(),
            "succeeded": counts.succeeded, "failed": counts.failed, "cancelled": counts.cancelled,
        })
    })
    .await?;
    Ok(())
}
