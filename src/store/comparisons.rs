//! Groups of jobs that are compared. Their jobs are jobs like any other; a group says which place in a grid each has.

use jiff::Timestamp;

use super::idempotency::RequestKey;
use super::jobs::{JobError, JobOrigin, Jobs, NewJob, once, remove};
use super::listing::Listing;
use super::sql;
use super::{Blobs, Database, StoreError};
use crate::domain::access::Tenant;
use crate::domain::clock::{SharedClock, from_millis};
use crate::domain::comparison::StateCounts;
use crate::domain::id::{ComparisonId, JobId};
use crate::domain::problem::Problem;
use crate::store::sql::FromRow;

/// A group to be queued.
#[derive(Debug, Clone)]
pub struct NewComparison {
    /// Whose it is.
    pub tenant: Tenant,
    /// What it is about.
    pub title: String,
    /// Whether its plan was shortened.
    pub quick: bool,
    /// Its jobs, in order.
    pub runs: Vec<(GridPlace, NewJob)>,
}

/// Where a job stands in the grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GridPlace {
    /// Which members.
    pub ensemble: String,
    /// Which method.
    pub method: String,
    /// Which target.
    pub target: String,
    /// Which seed.
    pub seed: u64,
}

/// A group without its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredComparison {
    /// Its id.
    pub id: ComparisonId,
    /// What it is about.
    pub title: String,
    /// Whether its plan was shortened.
    pub quick: bool,
    /// When it was queued.
    pub created: Timestamp,
    /// How many of its runs are in which state.
    pub counts: StateCounts,
}

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRun {
    /// Its place.
    pub place: GridPlace,
    /// Its latest job; none once that has been deleted.
    pub job: Option<RunJob>,
}

/// The job of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunJob {
    /// Its id.
    pub id: JobId,
    /// Its state, as it is shown.
    pub state: String,
    /// Seconds that its attempts have run.
    pub seconds: f64,
    /// Why it failed.
    pub error: Option<Problem>,
    /// Its report: the blob's key and length.
    pub report: Option<(String, u64)>,
}

/// What became of an attempt to delete a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComparisonDeletion {
    /// There is none.
    Absent,
    /// One of its jobs has not ended.
    Active,
    /// It is gone, with its jobs.
    Done,
}

#[derive(FromRow)]
struct SummaryRow {
    id: String,
    title: String,
    quick: bool,
    created_at: i64,
    state: Option<String>,
    runs: i64,
}

#[derive(FromRow)]
struct RunRow {
    ensemble: String,
    method: String,
    target: String,
    seed: String,
    job_id: Option<String>,
    state: Option<String>,
    ran_ms: Option<i64>,
    error: Option<String>,
    blob_key: Option<String>,
    bytes: Option<i64>,
}

impl TryFrom<RunRow> for StoredRun {
    type Error = StoreError;

    fn try_from(row: RunRow) -> Result<Self, StoreError> {
        let wrong = |detail: String| {
            StoreError::inconsistent("comparison_runs", row.job_id.clone().unwrap_or_default(), detail)
        };
        let seed = row.seed.parse().map_err(|_| wrong(format!("the seed `{}`", row.seed)))?;
        let place = GridPlace { ensemble: row.ensemble, method: row.method, target: row.target, seed };
        let Some((id, state)) = row.job_id.as_ref().zip(row.state) else { return Ok(Self { place, job: None }) };
        let error = row.error.as_deref().map(serde_json::from_str).transpose();
        let job = RunJob {
            id: id.parse().map_err(|error| wrong(format!("{error}")))?,
            state,
            seconds: row.ran_ms.unwrap_or_default() as f64 / 1000.0,
            error: error.map_err(|error| wrong(error.to_string()))?,
            report: row.blob_key.zip(row.bytes.and_then(|bytes| u64::try_from(bytes).ok())),
        };
        Ok(Self { place, job: Some(job) })
    }
}

/// The tables of groups; clones share the database.
#[derive(Debug, Clone)]
pub struct Comparisons {
    database: Database,
    jobs: Jobs,
    clock: SharedClock,
}

impl Comparisons {
    /// The groups in `database`.
    #[must_use]
    pub fn new(database: Database, jobs: Jobs, clock: SharedClock) -> Self {
        Self { database, jobs, clock }
    }

    /// Queues all jobs of a group or none, unless a request with the same `key` has done so before.
    ///
    /// # Errors
    /// When the key came with another request, or the database fails; among others, when an input has been deleted in the
    /// meantime.
    pub async fn insert(&self, new: &NewComparison, key: Option<&RequestKey>) -> Result<ComparisonId, JobError> {
        let mut transaction = self.database.write().await?;
        let (id, now) = (ComparisonId::new(), self.clock.now());
        if let Some(before) = once(&mut transaction, &new.tenant, key, id, now).await? {
            return Ok(before);
        }
        sql::query("INSERT INTO comparisons (id, tenant, title, quick, created_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(id.to_string())
            .bind(new.tenant.as_str())
            .bind(&new.title)
            .bind(new.quick)
            .bind(now.as_millisecond())
            .execute(&mut *transaction)
            .await?;
        for ((place, job), position) in new.runs.iter().zip(0_i64..) {
            let job_id = JobId::new();
            self.jobs.enqueue(&mut transaction, job_id, job, JobOrigin::Comparison).await?;
            sql::query(
                "INSERT INTO comparison_runs (comparison_id, position, ensemble, method, target, seed, job_id) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(id.to_string())
            .bind(position)
            .bind(&place.ensemble)
            .bind(&place.method)
            .bind(&place.target)
            .bind(place.seed.to_string())
            .bind(job_id.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(id)
    }

    /// One page of the tenant's groups, newest first, and one more if there are more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, tenant: &Tenant, listing: &Listing) -> Result<Vec<StoredComparison>, StoreError> {
        let rows: Vec<SummaryRow> = sql::query_as(
            "SELECT page.*, jobs.state, count(*) AS runs FROM ( \
                 SELECT id, title, quick, created_at FROM comparisons \
                 WHERE tenant = $1 AND ($2 IS NULL OR id < $2) ORDER BY id DESC LIMIT $3) AS page \
             JOIN comparison_runs ON comparison_runs.comparison_id = page.id LEFT JOIN jobs ON jobs.id = comparison_runs.job_id \
             GROUP BY page.id, page.title, page.quick, page.created_at, jobs.state ORDER BY page.id DESC",
        )
        .bind(tenant.as_str())
        .bind(&listing.after)
        .bind(listing.fetch())
        .fetch_all(self.database.reader())
        .await?;
        let mut summaries: Vec<StoredComparison> = Vec::new();
        for row in rows {
            let id = parse_id(&row.id)?;
            if summaries.last().is_none_or(|summary| summary.id != id) {
                let (title, quick, created) = (row.title, row.quick, from_millis(row.created_at));
                summaries.push(StoredComparison { id, title, quick, created, counts: StateCounts::default() });
            }
            if let Some(summary) = summaries.last_mut() {
                summary.counts.add(row.state.as_deref(), usize::try_from(row.runs).unwrap_or_default());
            }
        }
        Ok(summaries)
    }

    /// The tenant's group with its runs, in order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(
        &self,
        tenant: &Tenant,
        id: ComparisonId,
    ) -> Result<Option<(StoredComparison, Vec<StoredRun>)>, StoreError> {
        let found: Option<(String, bool, i64)> =
            sql::query_as("SELECT title, quick, created_at FROM comparisons WHERE id = $1 AND tenant = $2")
                .bind(id.to_string())
                .bind(tenant.as_str())
                .fetch_optional(self.database.reader())
                .await?;
        let Some((title, quick, created)) = found else { return Ok(None) };
        let rows: Vec<RunRow> = sql::query_as(
            "SELECT ensemble, method, target, seed, comparison_runs.job_id, CASE WHEN cancel_requested THEN 'cancelling' ELSE state END AS state, ran_ms, error, blob_key, bytes \
             FROM comparison_runs LEFT JOIN jobs ON jobs.id = comparison_runs.job_id \
             LEFT JOIN job_artifacts ON job_artifacts.job_id = jobs.id AND job_artifacts.name = 'report' \
             WHERE comparison_id = $1 ORDER BY position",
        )
        .bind(id.to_string())
        .fetch_all(self.database.reader())
        .await?;
        let runs = rows.into_iter().map(StoredRun::try_from).collect::<Result<Vec<_>, _>>()?;
        let counts = runs.iter().map(|run| run.job.as_ref().map(|job| job.state.clone())).collect();
        Ok(Some((StoredComparison { id, title, quick, created: from_millis(created), counts }, runs)))
    }

    /// Removes a group and its jobs, which must have ended, with their history and their blobs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete(
        &self,
        blobs: &Blobs,
        tenant: &Tenant,
        id: ComparisonId,
    ) -> Result<ComparisonDeletion, StoreError> {
        let mut transaction = self.database.write().await?;
        let jobs: Vec<(String, bool)> = sql::query_as(
            "SELECT jobs.id, finished_at IS NOT NULL FROM jobs JOIN comparison_runs ON comparison_runs.job_id = jobs.id WHERE comparison_id = $1",
        )
        .bind(id.to_string())
        .fetch_all(&mut *transaction)
        .await?;
        let deleted = sql::query("DELETE FROM comparisons WHERE id = $1 AND tenant = $2")
            .bind(id.to_string())
            .bind(tenant.as_str())
            .execute(&mut *transaction)
            .await?;
        if deleted.rows_affected() == 0 {
            return Ok(ComparisonDeletion::Absent);
        }
        if jobs.iter().any(|(_, ended)| !ended) {
            return Ok(ComparisonDeletion::Active);
        }
        let mut gone = Vec::with_capacity(jobs.len());
        for (job, _) in jobs {
            let keys = remove(&mut transaction, &job).await?;
            gone.push((job.parse().map_err(|error| StoreError::inconsistent("jobs", &job, error))?, keys));
        }
        transaction.commit().await?;
        for (job, keys) in gone {
            self.jobs.discard(blobs, job, &keys).await;
        }
        Ok(ComparisonDeletion::Done)
    }
}

fn parse_id(id: &str) -> Result<ComparisonId, StoreError> {
    id.parse().map_err(|error| StoreError::inconsistent("comparisons", id, error))
}
