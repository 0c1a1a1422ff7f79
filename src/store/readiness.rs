//! Whether the storage can be written, found out by writing.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};

use super::sql;
use super::{Database, StoreError};
use crate::domain::clock::SharedClock;
use crate::domain::problem::Code;

/// For how long one answer serves every request.
const FRESH: Duration = Duration::from_secs(1);

/// Writes a row, once a second at most.
#[derive(Debug, Clone)]
pub struct Readiness {
    database: Database,
    clock: SharedClock,
    latest: Arc<Mutex<Option<Answer>>>,
}

/// What the last try has shown.
#[derive(Debug, Clone, Copy)]
struct Answer {
    at: Instant,
    outcome: Result<(), Code>,
}

impl Readiness {
    /// Tries `database`.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock) -> Self {
        Self { database, clock, latest: Arc::default() }
    }

    /// Whether a row could be written within the last second.
    ///
    /// # Errors
    /// Why it could not.
    pub async fn probe(&self) -> Result<(), Code> {
        let mut latest = self.latest.lock().await;
        if let Some(Answer { at, outcome }) = *latest
            && at.elapsed() < FRESH
        {
            return outcome;
        }
        let outcome = self.write().await.map_err(|error| {
            tracing::warn!(%error, "the storage cannot be written");
            error.code()
        });
        *latest = Some(Answer { at: Instant::now(), outcome });
        outcome
    }

    async fn write(&self) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        sql::query("UPDATE data_folder SET probed_at = $1")
            .bind(self.clock.now().as_millisecond())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}
