//! Requests that carried an `Idempotency-Key`: which job or comparison each has made, and how it was answered.
//!
//! A key is taken in the transaction that queues its jobs, so there is never a job without its key nor a key without
//! its job, whenever the server dies, and two requests with one key can only queue once. The answer follows in a write of its own: a
//! repeated request that finds none gets what was made as it is now.

use std::fmt::Display;
use std::str::FromStr;

use super::database::Connection;
use super::sql;

use super::{Database, StoreError};
use crate::domain::access::Tenant;
use crate::domain::clock::SharedClock;
use crate::domain::id::IdError;
use crate::store::sql::FromRow;

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
pub enum Earlier<I> {
    /// It was another request.
    Different,
    /// It made this job or comparison.
    Made {
        /// The id.
        id: I,
        /// The answer's body; none if the server ended before it was written down.
        answer: Option<Vec<u8>>,
    },
}

#[derive(FromRow)]
struct Row {
    fingerprint: Vec<u8>,
    made_id: String,
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
    pub async fn earlier<I: FromStr<Err = IdError>>(
        &self,
        tenant: &Tenant,
        key: &RequestKey,
    ) -> Result<Option<Earlier<I>>, StoreError> {
        let now = self.clock.now().as_millisecond();
        find(&mut self.database.reader().acquire().await?, tenant, key, now).await
    }

    /// Keeps the answer that the request with this key got.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep(&self, tenant: &Tenant, key: &RequestKey, answer: &[u8]) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        sql::query("UPDATE idempotency_keys SET answer = $1 WHERE tenant = $2 AND key = $3 AND answer IS NULL")
            .bind(answer)
            .bind(tenant.as_str())
            .bind(&key.key)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

/// As [`Idempotency::earlier`], at the time `now`, in milliseconds.
pub(super) async fn find<I: FromStr<Err = IdError>>(
    conn: &mut Connection,
    tenant: &Tenant,
    key: &RequestKey,
    now: i64,
) -> Result<Option<Earlier<I>>, StoreError> {
    let row: Option<Row> = sql::query_as(
        "SELECT fingerprint, made_id, answer FROM idempotency_keys WHERE tenant = $1 AND key = $2 AND expires_at > $3",
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
    // The fingerprint covers the path: the id is of the kind that the path makes.
    let id = row.made_id.parse().map_err(|error| StoreError::inconsistent("idempotency_keys", &key.key, error))?;
    Ok(Some(Earlier::Made { id, answer: row.answer }))
}

/// Ties `key`, which must be free, to what is being made in the same transaction.
pub(super) async fn take(
    conn: &mut Connection,
    tenant: &Tenant,
    key: &RequestKey,
    id: impl Display,
    now: i64,
) -> Result<(), StoreError> {
    sql::query("DELETE FROM idempotency_keys WHERE expires_at <= $1").bind(now).execute(&mut *conn).await?;
    sql::query(
        "INSERT INTO idempotency_keys (tenant, key, fingerprint, made_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(tenant.as_str())
    .bind(&key.key)
    .bind(key.fingerprint.to_vec())
    .bind(id.to_string())
    .bind(now)
    .bind(now + KEPT_MS)
    .execute(conn)
    .await?;
    Ok(())
}
