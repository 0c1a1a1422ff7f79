//! Requests that carried an `Idempotency-Key`: which job each has queued, and how it was answered.
//!
//! A key is taken in the transaction that queues its job, so there is never a job without its key nor a key without
//! its job, whenever the server dies, and two requests with one key can only queue one job. The answer follows in a write of its own: a
//! repeated request that finds none gets the job as it is now.

use sqlx::FromRow;
use sqlx::sqlite::SqliteConnection;

use super::{Database, StoreError};
use crate::domain::access::Tenant;
use crate::domain::clock::SharedClock;
use crate::domain::id::JobId;

/// How long keys are remembered.
const KEPT_MS: i64 = 24 * 3600 * 1000;

/// A client's key, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// As the client sent it.
    pub key: String,
    /// SHA-256 of path and body: the same key must not come with another request.
    pub fingerprint: [u8; 32],
}

/// What an earlier request with the same key has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Earlier {
    /// It was another request.
    Different,
    /// It queued this job.
    Queued {
        /// The job.
        job: JobId,
        /// The answer's body; none if the server ended before it was written down.
        answer: Option<Vec<u8>>,
    },
}

#[derive(FromRow)]
struct Row {
    fingerprint: Vec<u8>,
    job_id: String,
    answer: Option<Vec<u8>>,
}

/// The table of keys.
#[derive(Debug, Clone)]
pub struct Idempotency {
    database: Database,
    clock: SharedClock,
}

impl Idempotency {
    /// The keys in `database`.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock) -> Self {
        Self { database, clock }
    }

    /// What an earlier request of the tenant's with this key has left, if there was one within 24 h.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn earlier(&self, tenant: &Tenant, key: &RequestKey) -> Result<Option<Earlier>, StoreError> {
        let now = self.clock.now().as_millisecond();
        find(&mut *self.database.reader().acquire().await?, tenant, key, now).await
    }

    /// Keeps the answer that the request with this key got.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep(&self, tenant: &Tenant, key: &RequestKey, answer: &[u8]) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        sqlx::query("UPDATE idempotency_keys SET answer = ? WHERE tenant = ? AND key = ? AND answer IS NULL")
            .bind(answer)
            .bind(tenant.as_str())
            .bind(&key.key)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}

/// As [`Idempotency::earlier`], at the time `now`, in milliseconds.
pub(super) async fn find(
    conn: &mut SqliteConnection,
    tenant: &Tenant,
    key: &RequestKey,
    now: i64,
) -> Result<Option<Earlier>, StoreError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT fingerprint, job_id, answer FROM idempotency_keys WHERE tenant = ? AND key = ? AND expires_at > ?",
    )
    .bind(tenant.as_str())
    .bind(&key.key)
    .bind(now)
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.fingerprint != key.fingerprint {
        return Ok(Some(Earlier::Different));
    }
    let job = row.job_id.parse().map_err(|error| StoreError::inconsistent("idempotency_keys", &key.key, error))?;
    Ok(Some(Earlier::Queued { job, answer: row.answer }))
}

/// Ties `key`, which must be free, to the job that is being queued in the same transaction.
pub(super) async fn take(
    conn: &mut SqliteConnection,
    tenant: &Tenant,
    key: &RequestKey,
    job: JobId,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM idempotency_keys WHERE expires_at <= ?").bind(now).execute(&mut *conn).await?;
    sqlx::query(
        "INSERT INTO idempotency_keys (tenant, key, fingerprint, job_id, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(tenant.as_str())
    .bind(&key.key)
    .bind(key.fingerprint.to_vec())
    .bind(job.to_string())
    .bind(now)
    .bind(now + KEPT_MS)
    .execute(conn)
    .await?;
    Ok(())
}
