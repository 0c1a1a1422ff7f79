//! Time that setting the date does not move, for leases: the machine's own time since it was started, on a scale that goes on
//! where that of its earlier starts has ended.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::{Database, StoreError};
use crate::domain::clock::{SharedClock, SteadyTime};

/// The steady time of a data directory; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Steady {
    database: Database,
    clock: SharedClock,
    /// The steady time at which the machine was started.
    start: Arc<OnceCell<i64>>,
}

impl Steady {
    pub(super) fn new(database: Database, clock: SharedClock) -> Self {
        Self { database, clock, start: Arc::default() }
    }

    /// The present.
    ///
    /// # Errors
    /// When the database fails, the first time.
    pub(super) async fn now(&self) -> Result<SteadyTime, StoreError> {
        let start = self.settle().await?;
        Ok(SteadyTime::from_millis(start).after(self.clock.since_boot()))
    }

    /// The steady time at which the machine was started. The first process after a start settles it for all: behind every lease
    /// and every pause from before, whose holders are gone with it.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn settle(&self) -> Result<i64, StoreError> {
        self.start.get_or_try_init(|| self.read()).await.copied()
    }

    async fn read(&self) -> Result<i64, StoreError> {
        let boot = self.clock.boot();
        let known: Option<i64> = sqlx::query_scalar("SELECT start FROM boots WHERE boot = ?")
            .bind(&boot)
            .fetch_optional(self.database.reader())
            .await?;
        if let Some(start) = known {
            return Ok(start);
        }
        let since_boot = i64::try_from(self.clock.since_boot().as_millis()).unwrap_or(i64::MAX);
        let mut transaction = self.database.write().await?;
        let start = sqlx::query_scalar(
            "INSERT INTO boots (boot, start) VALUES (?1, max(?2, \
                 (SELECT coalesce(max(lease_until) + 1, 0) FROM jobs), (SELECT coalesce(max(not_before), 0) FROM jobs), \
                 (SELECT coalesce(max(lease_until) + 1, 0) FROM datasets), (SELECT coalesce(max(not_before), 0) FROM datasets), \
                 (SELECT coalesce(max(claimed_until) + 1, 0) FROM webhook_deliveries), (SELECT coalesce(max(claimed_until) + 1, 0) FROM imports)) - ?3) \
             ON CONFLICT (boot) DO UPDATE SET start = start RETURNING start",
        )
        .bind(boot)
        .bind(self.clock.now().as_millisecond())
        .bind(since_boot)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(start)
    }
}
