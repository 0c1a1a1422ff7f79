//! Time that leases count. Where all processes share a machine it is the machine's own since it was started, on a scale that goes on
//! where that of its earlier starts has ended: setting the date does not move it. Where they share a database server it is the server's.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::database::WriteTransaction;
use super::sql;
use super::{Database, StoreError};
use crate::domain::clock::{Moment, SharedClock, SteadyTime};

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
        match self.database.time().await? {
            Some(time) => Ok(time),
            None => self.machine_time().await,
        }
    }

    /// The present where the machine counts it; none where the database does, whose statements can ask for it themselves.
    ///
    /// # Errors
    /// As [`Self::now`].
    pub(super) async fn of_machine(&self) -> Result<Option<SteadyTime>, StoreError> {
        if self.database.has_time() { Ok(None) } else { self.machine_time().await.map(Some) }
    }

    /// The present, with its date.
    ///
    /// # Errors
    /// As [`Self::now`].
    pub(super) async fn present(&self) -> Result<Moment, StoreError> {
        Ok(Moment { date: self.clock.now(), steady: self.now().await? })
    }

    /// The moment at which a transaction has begun to write. A clock that was read before it waited for others would be behind: a lease
    /// that begins then may be over before it is granted.
    ///
    /// # Errors
    /// When the database fails, the first time.
    pub(super) async fn moment(&self, transaction: &WriteTransaction) -> Result<Moment, StoreError> {
        let steady = match transaction.began() {
            Some(time) => time,
            None => self.machine_time().await?,
        };
        Ok(Moment { date: self.clock.now(), steady })
    }

    /// Does now what the first look at the time does, which writes: not within a transaction.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn prepare(&self) -> Result<(), StoreError> {
        if self.start.initialized() {
            return Ok(());
        }
        self.now().await.map(|_| ())
    }

    async fn machine_time(&self) -> Result<SteadyTime, StoreError> {
        let start = self.settle().await?;
        Ok(SteadyTime::from_millis(start).after(self.clock.since_boot()))
    }

    /// The steady time at which the machine was started. The first process after a start settles it for all: behind every lease
    /// and every pause from before, whose holders are gone with it.
    ///
    /// # Errors
    /// When the database fails.
    async fn settle(&self) -> Result<i64, StoreError> {
        self.start.get_or_try_init(|| self.read()).await.copied()
    }

    async fn read(&self) -> Result<i64, StoreError> {
        let boot = self.clock.boot();
        let known: Option<i64> = sql::query_scalar("SELECT start FROM boots WHERE boot = $1")
            .bind(&boot)
            .fetch_optional(self.database.reader())
            .await?;
        if let Some(start) = known {
            return Ok(start);
        }
        let since_boot = i64::try_from(self.clock.since_boot().as_millis()).unwrap_or(i64::MAX);
        let mut transaction = self.database.write().await?;
        let start = sql::query_scalar(
            "INSERT INTO boots (boot, start) VALUES ($1, (SELECT max(moment) FROM ( \
                 SELECT $2 AS moment UNION ALL SELECT max(lease_until) + 1 FROM jobs UNION ALL SELECT max(not_before) FROM jobs \
                 UNION ALL SELECT max(lease_until) + 1 FROM datasets UNION ALL SELECT max(not_before) FROM datasets \
                 UNION ALL SELECT max(claimed_until) + 1 FROM webhook_deliveries UNION ALL SELECT max(claimed_until) + 1 FROM imports) AS all_of_them) - $3) \
             ON CONFLICT (boot) DO UPDATE SET start = boots.start RETURNING start",
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
