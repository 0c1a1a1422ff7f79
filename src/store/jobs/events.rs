//! The append-only history of a job.

use crate::store::database::Connection;
use crate::store::sql;
use crate::store::sql::{Count, FromRow};
use jiff::Timestamp;
use serde_json::Value;

use super::row::from_json;
use super::{JobError, Jobs};
use crate::domain::clock::from_millis;
use crate::domain::id::JobId;
use crate::store::StoreError;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The state has changed.
    State,
    /// A phase has begun.
    Progress,
    /// An epoch has ended.
    Metric,
    /// Something a user should look at.
    Warning,
    /// A line of the log.
    Log,
}

impl EventKind {
    const ALL: [Self; 5] = [Self::State, Self::Progress, Self::Metric, Self::Warning, Self::Log];

    /// Its name in the database and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Progress => "progress",
            Self::Metric => "metric",
            Self::Warning => "warning",
            Self::Log => "log",
        }
    }
}

/// Something that has happened to a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Position in the job's history: 1, 2, 3, …
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// What kind of thing.
    pub kind: EventKind,
    /// The attempt it belongs to; 0 before the first.
    pub attempt: u32,
    /// What exactly.
    pub data: Value,
}

#[derive(FromRow)]
struct EventRow {
    job_id: String,
    seq: i64,
    at: i64,
    r#type: String,
    attempt: Count,
    data: String,
}

impl TryFrom<EventRow> for Event {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        let kind = EventKind::ALL.into_iter().find(|kind| kind.as_str() == row.r#type);
        let unknown = || StoreError::inconsistent("job_events", row.job_id.as_str(), "unknown type");
        Ok(Self {
            seq: row.seq,
            at: from_millis(row.at),
            kind: kind.ok_or_else(unknown)?,
            attempt: row.attempt.0,
            data: from_json(&row.job_id, &row.data)?,
        })
    }
}

/// Appends to the job's history; part of the transaction that makes it true.
pub(super) async fn append(
    conn: &mut Connection,
    job: JobId,
    kind: EventKind,
    data: &Value,
    now: Timestamp,
) -> Result<(), JobError> {
    sql::query(
        "INSERT INTO job_events (job_id, seq, at, type, attempt, data) \
         SELECT id, (SELECT coalesce(max(seq), 0) + 1 FROM job_events WHERE job_id = $1), $2, $3, attempt, $4 \
         FROM jobs WHERE id = $1",
    )
    .bind(job.to_string())
    .bind(now.as_millisecond())
    .bind(kind.as_str())
    .bind(data.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

impl Jobs {
    /// Up to `limit` events after `after`, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events(&self, job: JobId, after: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let rows: Vec<EventRow> =
            sql::query_as("SELECT * FROM job_events WHERE job_id = $1 AND seq > $2 ORDER BY seq LIMIT $3")
                .bind(job.to_string())
                .bind(after)
                .bind(limit)
                .fetch_all(self.database.reader())
                .await?;
        rows.into_iter().map(Event::try_from).collect()
    }

    /// The last `count` events, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn last_events(&self, job: JobId, count: u32) -> Result<Vec<Event>, StoreError> {
        let rows: Vec<EventRow> =
            sql::query_as("SELECT * FROM job_events WHERE job_id = $1 ORDER BY seq DESC LIMIT $2")
                .bind(job.to_string())
                .bind(count)
                .fetch_all(self.database.reader())
                .await?;
        rows.into_iter().rev().map(Event::try_from).collect()
    }

    /// Up to `limit` log lines and warnings after `after`, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn logs(&self, job: JobId, after: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let rows: Vec<EventRow> = sql::query_as(
            "SELECT * FROM job_events WHERE job_id = $1 AND seq > $2 AND type IN ('log', 'warning') ORDER BY seq LIMIT $3",
        )
        .bind(job.to_string())
        .bind(after)
        .bind(limit)
        .fetch_all(self.database.reader())
        .await?;
        rows.into_iter().map(Event::try_from).collect()
    }

    /// The last `count` log lines and warnings, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn last_logs(&self, job: JobId, count: u32) -> Result<Vec<Event>, StoreError> {
        let rows: Vec<EventRow> = sql::query_as(
            "SELECT * FROM job_events WHERE job_id = $1 AND type IN ('log', 'warning') ORDER BY seq DESC LIMIT $2",
        )
        .bind(job.to_string())
        .bind(count)
        .fetch_all(self.database.reader())
        .await?;
        rows.into_iter().rev().map(Event::try_from).collect()
    }

    /// The metrics of every finished epoch, in order, as [`crate::domain::progress::EpochMetrics`] writes them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn metrics(&self, job: JobId) -> Result<Vec<Value>, StoreError> {
        let id = job.to_string();
        let rows: Vec<String> = sql::query_scalar("SELECT data FROM job_metrics WHERE job_id = $1 ORDER BY epoch")
            .bind(&id)
            .fetch_all(self.database.reader())
            .await?;
        rows.iter().map(|data| from_json(&id, data)).collect()
    }
}
