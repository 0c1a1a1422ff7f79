//! Figures about what is stored.

use super::sql;
use super::tenants::{TenantUse, Tenants};
use super::{Database, StoreError};
use crate::domain::clock::SharedClock;

/// How many of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Jobs by state.
    pub jobs: Vec<(String, i64)>,
    /// How long the oldest queued job has waited; 0 without one.
    pub queue_age_ms: i64,
    /// Datasets by state.
    pub datasets: Vec<(String, i64)>,
    /// Unfinished uploads, and the bytes that are stored of them.
    pub uploads: (i64, i64),
    /// Every tenant.
    pub tenants: Vec<TenantUse>,
}

/// Counts.
#[derive(Debug, Clone)]
pub struct Counting {
    database: Database,
    tenants: Tenants,
    clock: SharedClock,
}

impl Counting {
    /// Counts in `database`.
    #[must_use]
    pub fn new(database: Database, tenants: Tenants, clock: SharedClock) -> Self {
        Self { database, tenants, clock }
    }

    /// The figures of this moment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(&self) -> Result<Census, StoreError> {
        let reader = self.database.reader();
        let jobs = sql::query_as(
            "WITH states (state) AS (VALUES ('queued'), ('running'), ('succeeded'), ('failed'), ('cancelled'))
             SELECT states.state, (SELECT count(*) FROM jobs WHERE jobs.state = states.state) FROM states",
        );
        let jobs = jobs.fetch_all(reader).await?;
        let oldest: Option<i64> =
            sql::query_scalar("SELECT min(created_at) FROM jobs WHERE state = 'queued'").fetch_one(reader).await?;
        let datasets = sql::query_as(
            "WITH states (state) AS (VALUES ('validating'), ('ready'), ('invalid'))
             SELECT states.state, (SELECT count(*) FROM datasets WHERE datasets.state = states.state) FROM states",
        );
        let datasets = datasets.fetch_all(reader).await?;
        let uploads = sql::query_as("SELECT count(*), CAST(coalesce(sum(acknowledged), 0) AS BIGINT) FROM uploads")
            .fetch_one(reader)
            .await?;
        let now = self.clock.now().as_millisecond();
        let queue_age_ms = oldest.map_or(0, |oldest| (now - oldest).max(0));
        Ok(Census { jobs, queue_age_ms, datasets, uploads, tenants: self.tenants.list().await? })
    }
}
