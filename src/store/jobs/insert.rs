//! New jobs: from a request, or repeating one that has ended.

use std::fmt::Display;
use std::str::FromStr;

use crate::store::database::Connection;
use crate::store::sql;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::events::{EventKind, append};
#[cfg(test)]
use super::failure::FailurePoint;
use super::row::{InputRow, JobRow, json as to_json, millis};
use super::{Job, JobError, JobInput, Jobs, NewJob};
use crate::domain::access::Tenant;
use crate::domain::id::{IdError, JobId};
use crate::domain::quota::TenantResource;
use crate::store::idempotency::{self, Earlier, RequestKey};
use crate::store::tenants;

/// Where a repeated job begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryFrom {
    /// At the start.
    Start,
    /// At the last checkpoint; at the start where there is none.
    Checkpoint,
}

/// Where a job comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum JobOrigin {
    /// It was requested by itself.
    Single,
    /// It is a run of a comparison, which may be one of hundreds.
    Comparison,
}

impl Jobs {
    /// Queues a job, unless a request with the same `key` has done so before.
    ///
    /// # Errors
    /// When the key came with another request, or the database fails; among others, when an input has been deleted in the
    /// meantime.
    pub async fn insert(&self, job: &NewJob, key: Option<&RequestKey>) -> Result<JobId, JobError> {
        let mut transaction = self.database.write().await?;
        let id = JobId::new();
        if let Some(before) = once(&mut transaction, &job.tenant, key, id, self.clock.now()).await? {
            return Ok(before);
        }
        self.enqueue(&mut transaction, id, job, JobOrigin::Single).await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::InsertBeforeCommit)?;
        transaction.commit().await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::InsertAfterCommit)?;
        Ok(id)
    }

    /// Queues the job as `id`, in a transaction that may queue others.
    ///
    /// # Errors
    /// When the tenant has as many as it may have, or the database fails; among others, when an input has been deleted in the
    /// meantime.
    pub(in crate::store) async fn enqueue(
        &self,
        conn: &mut Connection,
        id: JobId,
        job: &NewJob,
        origin: JobOrigin,
    ) -> Result<(), JobError> {
        self.check_quota(conn, &job.tenant).await?;
        sql::query(
            "INSERT INTO jobs (id, tenant, owner, resolved, plan, labels, device, max_runtime_ms, priority, compared, created_at, state) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'queued')",
        )
        .bind(id.to_string())
        .bind(job.tenant.as_str())
        .bind(&job.owner)
        .bind(job.resolved.to_string())
        .bind(job.plan.to_string())
        .bind(to_json(&job.labels))
        .bind(job.device.to_string())
        .bind(millis(job.max_runtime))
        .bind(job.priority)
        .bind(origin == JobOrigin::Comparison)
        .bind(self.clock.now().as_millisecond())
        .execute(&mut *conn)
        .await?;
        for input in &job.inputs {
            insert_input(conn, id, input).await?;
        }
        self.announce(conn, id, json!({ "state": "queued" })).await
    }

    /// Queues a job like `job`, which must have ended and whose inputs must still be there, unless a request with the
    /// same `key` has done so before.
    ///
    /// # Errors
    /// When the key came with another request, there is no such job, it is still active, or its inputs are gone.
    pub async fn retry(
        &self,
        tenant: &Tenant,
        job: JobId,
        from: RetryFrom,
        key: Option<&RequestKey>,
    ) -> Result<JobId, JobError> {
        let mut transaction = self.database.write().await?;
        let id = JobId::new();
        if let Some(before) = once(&mut transaction, tenant, key, id, self.clock.now()).await? {
            return Ok(before);
        }
        let old = owned(&mut transaction, tenant, job).await?;
        old.state.ended()?;
        all_inputs_present(&mut transaction, job).await?;
        self.check_quota(&mut transaction, tenant).await?;
        sql::query(
            "INSERT INTO jobs (id, tenant, owner, resolved, plan, labels, device, max_runtime_ms, priority, compared, retry_of, created_at, \
                 state, checkpoint_key, checkpoint_epoch) \
             SELECT $1, tenant, owner, resolved, plan, labels, device, max_runtime_ms, priority, compared, id, $2, 'queued', \
                 CASE WHEN $3 THEN checkpoint_key END, CASE WHEN $3 THEN checkpoint_epoch END FROM jobs WHERE id = $4",
        )
        .bind(id.to_string())
        .bind(self.clock.now().as_millisecond())
        .bind(from == RetryFrom::Checkpoint)
        .bind(job.to_string())
        .execute(&mut *transaction)
        .await?;
        copy_children(&mut transaction, job, id).await?;
        let data = json!({ "state": "queued", "retry_of": job });
        self.announce(&mut transaction, id, data).await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::RetryBeforeCommit)?;
        transaction.commit().await?;
        Ok(id)
    }

    /// Checks that the tenant may have one more job.
    async fn check_quota(&self, conn: &mut Connection, tenant: &Tenant) -> Result<(), JobError> {
        let quota = tenants::quota(conn, tenant, self.quota).await?;
        let limited = quota.limited(&[TenantResource::Queued, TenantResource::Bytes]);
        let usage = tenants::usage(conn, tenant, &limited, None).await?;
        quota.check(TenantResource::Queued, &usage, 1).map_err(JobError::Limited)?;
        // How large its results will be is not known to the byte.
        quota.check(TenantResource::Bytes, &usage, 1).map_err(JobError::Limited)
    }

    async fn announce(&self, conn: &mut Connection, job: JobId, data: Value) -> Result<(), JobError> {
        append(conn, job, EventKind::State, &data, self.clock.now()).await
    }
}

/// What `key` has made before; if nothing, `key` now stands for `id`.
pub(in crate::store) async fn once<I: FromStr<Err = IdError> + Display>(
    conn: &mut Connection,
    tenant: &Tenant,
    key: Option<&RequestKey>,
    id: I,
    now: Timestamp,
) -> Result<Option<I>, JobError> {
    let Some(key) = key else { return Ok(None) };
    let now = now.as_millisecond();
    match idempotency::find(conn, tenant, key, now).await? {
        Some(Earlier::Made { id, .. }) => Ok(Some(id)),
        Some(Earlier::Different) => Err(JobError::KeyReused),
        None => Ok(idempotency::take(conn, tenant, key, id, now).await.map(|()| None)?),
    }
}

/// The tenant's job, read in the transaction that is about to change it.
pub(super) async fn owned(conn: &mut Connection, tenant: &Tenant, job: JobId) -> Result<Job, JobError> {
    let row: Option<JobRow> = sql::query_as("SELECT * FROM jobs WHERE id = $1 AND tenant = $2")
        .bind(job.to_string())
        .bind(tenant.as_str())
        .fetch_optional(conn)
        .await?;
    Ok(Job::try_from(row.ok_or(JobError::NotFound(job))?)?)
}

async fn insert_input(conn: &mut Connection, job: JobId, input: &JobInput) -> Result<(), JobError> {
    let row = InputRow::of(input);
    sql::query(
        "INSERT INTO job_inputs (job_id, role, position, name, sha256, checkpoint_id, dataset_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(job.to_string())
    .bind(row.role)
    .bind(row.position)
    .bind(row.name)
    .bind(row.sha256)
    .bind(row.checkpoint_id)
    .bind(row.dataset_id)
    .execute(conn)
    .await?;
    Ok(())
}

async fn all_inputs_present(conn: &mut Connection, job: JobId) -> Result<(), JobError> {
    let gone: Vec<String> = sql::query_scalar(
        "SELECT name FROM job_inputs WHERE job_id = $1 AND checkpoint_id IS NULL AND dataset_id IS NULL",
    )
    .bind(job.to_string())
    .fetch_all(conn)
    .await?;
    if gone.is_empty() { Ok(()) } else { Err(JobError::InputsGone(gone)) }
}

/// The inputs, the metrics of the epochs that will not be computed again, and the place in a comparison.
async fn copy_children(conn: &mut Connection, old: JobId, new: JobId) -> Result<(), JobError> {
    sql::query(
        "INSERT INTO job_inputs (job_id, role, position, name, sha256, checkpoint_id, dataset_id) \
         SELECT $1, role, position, name, sha256, checkpoint_id, dataset_id FROM job_inputs WHERE job_id = $2",
    )
    .bind(new.to_string())
    .bind(old.to_string())
    .execute(&mut *conn)
    .await?;
    sql::query(
        "INSERT INTO job_metrics (job_id, epoch, data) SELECT jobs.id, epoch, data FROM jobs, job_metrics \
         WHERE jobs.id = $1 AND job_metrics.job_id = $2 AND epoch <= jobs.checkpoint_epoch",
    )
    .bind(new.to_string())
    .bind(old.to_string())
    .execute(&mut *conn)
    .await?;
    // A run that is compared is the latest try.
    sql::query("UPDATE comparison_runs SET job_id = $1 WHERE job_id = $2")
        .bind(new.to_string())
        .bind(old.to_string())
        .execute(conn)
        .await?;
    Ok(())
}
