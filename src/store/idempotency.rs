//! Answers of requests that carried an `Idempotency-Key`, so that a repeated request gets the same one.

use sqlx::FromRow;

use super::{Database, StoreError};
use crate::domain::access::Tenant;
use crate::domain::clock::SharedClock;

/// How long answers are kept.
const KEPT_MS: i64 = 24 * 3600 * 1000;
/// A request that has run for so long was lost with its process; its key is free again.
const ABANDONED_MS: i64 = 60 * 1000;

/// A stored answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers to repeat.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nothing: the caller may run, and must then [`Idempotency::finish`] or [`Idempotency::release`].
    Free,
    /// The first request still runs.
    Running,
    /// The key came with another request.
    Reused,
    /// The first request's answer.
    Answered(Answer),
}

#[derive(FromRow)]
struct Row {
    fingerprint: Vec<u8>,
    status: Option<i64>,
    headers: Option<String>,
    body: Option<Vec<u8>>,
}

/// The table of answers.
#[derive(Debug, Clone)]
pub struct Idempotency {
    database: Database,
    clock: SharedClock,
}

impl Idempotency {
    /// The answers in `database`.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock) -> Self {
        Self { database, clock }
    }

    /// Takes `key` for a request with this `fingerprint` (SHA-256 of method, path and body), unless it is taken.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(&self, tenant: &Tenant, key: &str, fingerprint: [u8; 32]) -> Result<Claim, StoreError> {
        let now = self.clock.now().as_millisecond();
        let mut transaction = self.database.write().await?;
        sqlx::query("DELETE FROM idempotency_keys WHERE expires_at <= ?").bind(now).execute(&mut *transaction).await?;
        let row: Option<Row> = sqlx::query_as("SELECT * FROM idempotency_keys WHERE tenant = ? AND key = ?")
            .bind(tenant.as_str())
            .bind(key)
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(row) = row {
            transaction.commit().await?;
            return row.claim(key, fingerprint);
        }
        sqlx::query(
            "INSERT INTO idempotency_keys (tenant, key, fingerprint, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(tenant.as_str())
        .bind(key)
        .bind(fingerprint.to_vec())
        .bind(now)
        .bind(now + ABANDONED_MS)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Claim::Free)
    }

    /// Keeps the answer of a request that took its key.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn finish(&self, tenant: &Tenant, key: &str, answer: &Answer) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        sqlx::query(
            "UPDATE idempotency_keys SET status = ?, headers = ?, body = ?, expires_at = ? WHERE tenant = ? AND key = ?",
        )
        .bind(i64::from(answer.status))
        .bind(serde_json::json!(answer.headers).to_string())
        .bind(&answer.body)
        .bind(self.clock.now().as_millisecond() + KEPT_MS)
        .bind(tenant.as_str())
        .bind(key)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Frees the key of a request that changed nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(&self, tenant: &Tenant, key: &str) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        sqlx::query("DELETE FROM idempotency_keys WHERE tenant = ? AND key = ? AND status IS NULL")
            .bind(tenant.as_str())
            .bind(key)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}

impl Row {
    fn claim(self, key: &str, fingerprint: [u8; 32]) -> Result<Claim, StoreError> {
        if self.fingerprint != fingerprint {
            return Ok(Claim::Reused);
        }
        let (Some(status), Some(headers), Some(body)) = (self.status, self.headers, self.body) else {
            return Ok(Claim::Running);
        };
        let wrong = |detail: String| StoreError::inconsistent("idempotency_keys", key, detail);
        let status = u16::try_from(status).map_err(|error| wrong(error.to_string()))?;
        let headers = serde_json::from_str(&headers).map_err(|error| wrong(error.to_string()))?;
        Ok(Claim::Answered(Answer { status, headers, body }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::domain::clock::{ManualClock, from_millis};

    #[tokio::test]
    async fn an_answer_is_kept_for_a_day_and_a_lost_request_frees_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::at(from_millis(1_000_000)));
        let answers = Idempotency::new(Database::open(folder.path()).await.expect("opens"), clock.clone());
        let tenant = Tenant::default();
        let claim = async |print: u8| answers.claim(&tenant, "k", [print; 32]).await.expect("claims");
        assert_eq!(claim(1).await, Claim::Free);
        assert_eq!(claim(1).await, Claim::Running);
        assert_eq!(claim(2).await, Claim::Reused);
        clock.advance(Duration::from_mins(1));
        assert_eq!(claim(1).await, Claim::Free, "the first request was lost");
        let answer = Answer { status: 202, headers: vec![("location".into(), "/x".into())], body: b"{}".to_vec() };
        answers.finish(&tenant, "k", &answer).await.expect("keeps");
        assert_eq!(claim(1).await, Claim::Answered(answer));
        clock.advance(Duration::from_hours(24));
        assert_eq!(claim(2).await, Claim::Free);
        answers.release(&tenant, "k").await.expect("frees");
        assert_eq!(claim(1).await, Claim::Free);
    }
}
