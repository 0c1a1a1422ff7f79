//! Figures about what is stored.

use super::{Database, StoreError};
use crate::domain::clock::SharedClock;

/// How many of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Jobs by state.
    pub jobs: Vec<(String, i64)>,
    /// How long the oldest queued job has waited; 0 without one.
    pub queue_age_ms: i64,
}

/// Counts.
#[derive(Debug, Clone)]
pub struct Counting {
    database: Database,
    clock: SharedClock,
}

impl Counting {
    /// Counts in `database`.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock) -> Self {
        Self { database, clock }
    }

    /// The figures of this moment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(&self) -> Result<Census, StoreError> {
        let reader = self.database.reader();
        let jobs = sqlx::query_as(
            "WITH states (state) AS (VALUES ('queued'), ('running'), ('succeeded'), ('failed'), ('cancelled'))
             SELECT states.state, (SELECT count(*) FROM jobs WHERE jobs.state = states.state) FROM states",
        );
        let jobs = jobs.fetch_all(reader).await?;
        let oldest: Option<i64> =
            sqlx::query_scalar("SELECT min(created_at) FROM jobs WHERE state = 'queued'").fetch_one(reader).await?;
        let now = self.clock.now().as_millisecond();
        Ok(Census { jobs, queue_age_ms: oldest.map_or(0, |oldest| (now - oldest).max(0)) })
    }
}
