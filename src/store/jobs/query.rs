//! Looking at jobs, cancelling and deleting them: what their owner may do.

use serde::Deserialize;
use serde_json::Value;

#[cfg(test)]
use super::failure::FailurePoint;
use super::insert::owned;
use super::row::{InputRow, JobRow, from_json, parsed};
use super::sweep::remove;
use super::transition::{Guard, replace};
use super::{Artifact, Glimpse, Job, JobError, Jobs, RunningJob, WholeJob};
use crate::domain::access::Tenant;
use crate::domain::id::JobId;
use crate::domain::job::Fence;
use crate::store::listing::Listing;
use crate::store::sql;
use crate::store::sql::FromRow;
use crate::store::{Blobs, StoreError};

#[derive(FromRow, Deserialize)]
struct ArtifactRow {
    name: String,
    blob_key: String,
    sha256: String,
    bytes: i64,
    media_type: String,
}

impl From<ArtifactRow> for Artifact {
    fn from(row: ArtifactRow) -> Self {
        let ArtifactRow { name, blob_key, sha256, bytes, media_type } = row;
        Self { name, blob_key, sha256, bytes: u64::try_from(bytes).unwrap_or_default(), media_type }
    }
}

/// A job with its files: a JSON list of lists each, whose values stand in the order of the fields of their rows.
#[derive(FromRow)]
struct WholeRow {
    #[sqlx(flatten)]
    job: JobRow,
    input_rows: String,
    artifact_rows: String,
}

impl TryFrom<WholeRow> for WholeJob {
    type Error = StoreError;

    fn try_from(row: WholeRow) -> Result<Self, StoreError> {
        let job = Job::try_from(row.job)?;
        let id = job.id.to_string();
        let (inputs, artifacts): (Vec<InputRow>, Vec<ArtifactRow>) =
            (from_json(&id, &row.input_rows)?, from_json(&id, &row.artifact_rows)?);
        let mut inputs = inputs.into_iter().map(|row| row.input(&id)).collect::<Result<Vec<_>, _>>()?;
        inputs.sort_by_key(|input| input.role);
        let mut artifacts: Vec<_> = artifacts.into_iter().map(Artifact::from).collect();
        artifacts.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self { job, inputs, artifacts })
    }
}

impl Jobs {
    /// The tenant's job.
    ///
    /// # Errors
    /// When there is no such job, or the database fails.
    pub async fn get(&self, tenant: &Tenant, job: JobId) -> Result<Job, JobError> {
        let row: Option<JobRow> = sql::query_as("SELECT * FROM jobs WHERE id = $1 AND tenant = $2")
            .bind(job.to_string())
            .bind(tenant.as_str())
            .fetch_optional(self.database.reader())
            .await?;
        Ok(Job::try_from(row.ok_or(JobError::NotFound(job))?)?)
    }

    /// The tenant's jobs, newest first, up to one more than `listing` shows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, tenant: &Tenant, listing: &Listing) -> Result<Vec<Job>, StoreError> {
        let rows: Vec<JobRow> = sql::query_as(sql::each(
            "SELECT * FROM jobs WHERE tenant = $1 AND ($2 IS NULL OR id < $2) \
             AND ($3 IS NULL OR CASE WHEN cancel_requested THEN 'cancelling' ELSE state END = $3) \
             AND NOT EXISTS ( \
                 SELECT 1 FROM json_each($4) AS wanted WHERE NOT EXISTS ( \
                     SELECT 1 FROM json_each(jobs.labels) AS label \
                     WHERE label.key = wanted.key AND label.value = wanted.value)) \
             ORDER BY id DESC LIMIT $5",
            "SELECT * FROM jobs WHERE tenant = $1 AND ($2 IS NULL OR id < $2) \
             AND ($3 IS NULL OR CASE WHEN cancel_requested THEN 'cancelling' ELSE state END = $3) \
             AND labels::jsonb @> $4::jsonb ORDER BY id DESC LIMIT $5",
        ))
        .bind(tenant.as_str())
        .bind(listing.after.as_deref())
        .bind(listing.state.as_deref())
        .bind(listing.labels_json())
        .bind(listing.fetch())
        .fetch_all(self.database.reader())
        .await?;
        rows.into_iter().map(Job::try_from).collect()
    }

    /// Every tenant's running jobs and who runs them, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn running(&self) -> Result<Vec<RunningJob>, StoreError> {
        let rows: Vec<(String, String, String)> =
            sql::query_as("SELECT id, tenant, worker FROM jobs WHERE state = 'running' ORDER BY id")
                .fetch_all(self.database.reader())
                .await?;
        let running = |(id, tenant, worker): (String, String, String)| {
            Ok(RunningJob { job: parsed(&id, &id)?, tenant: parsed(&id, &tenant)?, worker: parsed(&id, &worker)? })
        };
        rows.into_iter().map(running).collect()
    }

    /// The tenant's job with its files, by one statement: clients poll for it.
    ///
    /// # Errors
    /// When there is no such job, or the database fails.
    pub async fn get_whole(&self, tenant: &Tenant, job: JobId) -> Result<WholeJob, JobError> {
        let row: Option<WholeRow> = sql::query_as(sql::each(
            "SELECT jobs.*, \
                 (SELECT json_group_array(json_array(role, position, name, sha256, checkpoint_id, dataset_id)) \
                  FROM job_inputs WHERE job_id = jobs.id) AS input_rows, \
                 (SELECT json_group_array(json_array(name, blob_key, sha256, bytes, media_type)) \
                  FROM job_artifacts WHERE job_id = jobs.id) AS artifact_rows \
             FROM jobs WHERE id = $1 AND tenant = $2",
            "SELECT jobs.*, \
                 (SELECT coalesce(json_agg(json_build_array(role, position, name, sha256, checkpoint_id, dataset_id)), '[]')::text \
                  FROM job_inputs WHERE job_id = jobs.id) AS input_rows, \
                 (SELECT coalesce(json_agg(json_build_array(name, blob_key, sha256, bytes, media_type)), '[]')::text \
                  FROM job_artifacts WHERE job_id = jobs.id) AS artifact_rows \
             FROM jobs WHERE id = $1 AND tenant = $2",
        ))
        .bind(job.to_string())
        .bind(tenant.as_str())
        .fetch_optional(self.database.reader())
        .await?;
        Ok(WholeJob::try_from(row.ok_or(JobError::NotFound(job))?)?)
    }

    /// The results of the job, by name; none before it has succeeded.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn artifacts(&self, job: JobId) -> Result<Vec<Artifact>, StoreError> {
        let rows: Vec<ArtifactRow> = sql::query_as("SELECT * FROM job_artifacts WHERE job_id = $1 ORDER BY name")
            .bind(job.to_string())
            .fetch_all(self.database.reader())
            .await?;
        Ok(rows.into_iter().map(Artifact::from).collect())
    }

    /// The little that a waiting client watches.
    ///
    /// # Errors
    /// When there is no such job, or the database fails.
    pub async fn watch(&self, job: JobId) -> Result<Glimpse, JobError> {
        let id = job.to_string();
        let row: Option<(String, bool, Option<String>)> = sql::query_as(
            "SELECT CASE WHEN cancel_requested THEN 'cancelling' ELSE state END, finished_at IS NOT NULL, progress FROM jobs WHERE id = $1",
        )
        .bind(&id)
        .fetch_optional(self.database.reader())
        .await?;
        let (state, ended, progress) = row.ok_or(JobError::NotFound(job))?;
        let progress = progress.as_deref().map(|text| from_json(&id, text)).transpose()?;
        Ok(Glimpse { state, ended, progress })
    }

    /// Whether the attempt still holds its job.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_held(&self, fence: Fence) -> Result<bool, JobError> {
        Ok(sql::query_scalar("SELECT EXISTS (SELECT 1 FROM jobs WHERE id = $1 AND attempt = $2 AND state = 'running')")
            .bind(fence.job.to_string())
            .bind(fence.attempt)
            .fetch_one(self.database.reader())
            .await?)
    }

    /// Whether the end of the job that the attempt holds has been requested.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_cancelling(&self, fence: Fence) -> Result<bool, JobError> {
        let query = "SELECT EXISTS (SELECT 1 FROM jobs WHERE id = $1 AND attempt = $2 AND cancel_requested)";
        let query = sql::query_scalar(query).bind(fence.job.to_string()).bind(fence.attempt);
        Ok(query.fetch_one(self.database.reader()).await?)
    }

    /// Requests the end of the job; true where that changed anything.
    ///
    /// # Errors
    /// When there is no such job, or the database fails.
    pub async fn cancel(&self, tenant: &Tenant, job: JobId) -> Result<bool, JobError> {
        let (mut transaction, now) = self.begin().await?;
        let found = owned(&mut transaction, tenant, job).await?;
        let guard = Guard::of(job, &found.state);
        if found.state.is_terminal() || found.state.is_cancelling() {
            return Ok(false);
        }
        let new = found.state.cancel(now);
        replace(&mut transaction, guard, &new, Value::Null, now).await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::CancelBeforeCommit)?;
        transaction.commit().await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::CancelAfterCommit)?;
        Ok(true)
    }

    /// Removes a job that has ended, with its history and its blobs.
    ///
    /// # Errors
    /// When there is no such job, it is still active, or the database fails.
    pub async fn delete(&self, blobs: &Blobs, tenant: &Tenant, job: JobId) -> Result<(), JobError> {
        let mut transaction = self.database.write().await?;
        owned(&mut transaction, tenant, job).await?.state.ended()?;
        let keys = remove(&mut transaction, &job.to_string()).await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::DeleteBeforeCommit)?;
        transaction.commit().await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::DeleteAfterCommit)?;
        self.discard(blobs, job, &keys).await;
        Ok(())
    }
}
