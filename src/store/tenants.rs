//! What tenants may take, what they have taken, and whose turn it is.

use super::database::Connection;
use super::sql;

use super::{Database, StoreError};
use crate::domain::access::Tenant;
use crate::domain::id::UploadId;
use crate::domain::quota::{Quota, TenantResource, Usage};

/// An hour in milliseconds.
pub(super) const HOUR_MS: i64 = 60 * 60 * 1000;

/// A tenant with its limits and what it has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantUse {
    /// The tenant.
    pub tenant: Tenant,
    /// What it may take.
    pub quota: Quota,
    /// What it has taken.
    pub usage: Usage,
}

/// Limits and uses of all tenants; clones share the database.
#[derive(Debug, Clone)]
pub struct Tenants {
    database: Database,
    default: Quota,
}

impl Tenants {
    /// The tenants of `database`; `default` holds for those without limits of their own.
    #[must_use]
    pub fn new(database: Database, default: Quota) -> Self {
        Self { database, default }
    }

    /// What a tenant may take.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn quota(&self, tenant: &Tenant) -> Result<Quota, StoreError> {
        quota(&mut self.database.reader().acquire().await?, tenant, self.default).await
    }

    /// What a tenant has taken of some resources, apart from the upload `except`; others count as nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn usage(
        &self,
        tenant: &Tenant,
        resources: &[TenantResource],
        except: Option<UploadId>,
    ) -> Result<Usage, StoreError> {
        usage(&mut self.database.reader().acquire().await?, tenant, resources, except).await
    }

    /// Gives a tenant a limit of its own, 0 for none; without `most` the server's default holds again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set(&self, tenant: &Tenant, resource: TenantResource, most: Option<u64>) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        sql::query("DELETE FROM tenant_limits WHERE tenant = $1 AND resource = $2")
            .bind(tenant.as_str())
            .bind(resource.as_str())
            .execute(&mut *transaction)
            .await?;
        if let Some(most) = most {
            sql::query("INSERT INTO tenant_limits (tenant, resource, most) VALUES ($1, $2, $3)")
                .bind(tenant.as_str())
                .bind(resource.as_str())
                .bind(i64::try_from(most).unwrap_or(i64::MAX))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await
    }

    /// Every tenant that has a key, a limit, a file or a job, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self) -> Result<Vec<TenantUse>, StoreError> {
        let mut conn = self.database.reader().acquire().await?;
        let names: Vec<String> = sql::query_scalar(
            "SELECT tenant FROM api_keys UNION SELECT tenant FROM tenant_limits UNION SELECT tenant FROM checkpoints \
             UNION SELECT tenant FROM datasets UNION SELECT tenant FROM uploads UNION SELECT tenant FROM jobs ORDER BY 1",
        )
        .fetch_all(&mut conn)
        .await?;
        let mut list = Vec::with_capacity(names.len());
        for name in names {
            let tenant: Tenant =
                name.parse().map_err(|error| StoreError::inconsistent("tenants", name.clone(), error))?;
            let quota = quota(&mut conn, &tenant, self.default).await?;
            let usage = usage(&mut conn, &tenant, &TenantResource::ALL, None).await?;
            list.push(TenantUse { tenant, quota, usage });
        }
        Ok(list)
    }
}

/// What a tenant may take, read in the transaction that is about to take it.
pub(super) async fn quota(conn: &mut Connection, tenant: &Tenant, default: Quota) -> Result<Quota, StoreError> {
    let own: Vec<(String, i64)> = sql::query_as("SELECT resource, most FROM tenant_limits WHERE tenant = $1")
        .bind(tenant.as_str())
        .fetch_all(conn)
        .await?;
    own.into_iter().try_fold(default, |quota, (resource, most)| {
        let wrong = |detail| StoreError::inconsistent("tenant_limits", tenant.as_str(), detail);
        let resource: TenantResource = resource.parse().map_err(wrong)?;
        Ok(quota.with(resource, u64::try_from(most).unwrap_or_default()))
    })
}

/// What a tenant has taken of some resources, apart from the upload `except`; others count as nothing. An unfinished upload counts
/// with its whole length where that is known.
pub(super) async fn usage(
    conn: &mut Connection,
    tenant: &Tenant,
    resources: &[TenantResource],
    except: Option<UploadId>,
) -> Result<Usage, StoreError> {
    let except = except.map(|id| id.to_string());
    let mut usage = Usage::default();
    for resource in resources {
        let Some(count) = counting(*resource) else { continue };
        let used: i64 = sql::query_scalar(count).bind(tenant.as_str()).bind(&except).fetch_one(&mut *conn).await?;
        usage = usage.with(*resource, u64::try_from(used).unwrap_or_default());
    }
    Ok(usage)
}

/// The query that counts a resource, of the tenant `?1` without the upload `?2`; none for what is not stored.
fn counting(resource: TenantResource) -> Option<&'static str> {
    Some(match resource {
        TenantResource::Bytes => {
            "SELECT CAST((SELECT coalesce(sum(bytes), 0) FROM checkpoints WHERE tenant = $1) \
                 + (SELECT coalesce(sum(bytes), 0) FROM datasets WHERE tenant = $1) \
                 + (SELECT coalesce(sum(bytes), 0) FROM job_artifacts JOIN jobs ON jobs.id = job_id WHERE tenant = $1) \
                 + (SELECT coalesce(sum(coalesce(total, acknowledged)), 0) FROM uploads \
                    WHERE tenant = $1 AND id IS DISTINCT FROM $2) AS BIGINT)"
        }
        TenantResource::Files => {
            "SELECT (SELECT count(*) FROM checkpoints WHERE tenant = $1) + (SELECT count(*) FROM datasets WHERE tenant = $1)"
        }
        TenantResource::Uploads => "SELECT count(*) FROM uploads WHERE tenant = $1 AND id IS DISTINCT FROM $2",
        TenantResource::Queued => "SELECT count(*) FROM jobs WHERE tenant = $1 AND state = 'queued'",
        TenantResource::Running => "SELECT count(*) FROM jobs WHERE tenant = $1 AND state = 'running'",
        TenantResource::ReadingSeconds => {
            "SELECT coalesce((SELECT reading_ms / 1000 FROM tenant_turns WHERE tenant = $1), 0)"
        }
        TenantResource::RequestsPerSecond => return None,
    })
}

/// What tenants take turns in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    /// Having a job run.
    Job,
    /// Having a dataset read.
    Dataset,
}

/// Puts a tenant behind all others: it has had its turn.
pub(super) async fn served(conn: &mut Connection, tenant: &str, turn: Turn) -> Result<(), StoreError> {
    let statement = match turn {
        Turn::Job => {
            "INSERT INTO tenant_turns (tenant, job) VALUES ($1, (SELECT coalesce(max(job), 0) + 1 FROM tenant_turns)) \
             ON CONFLICT (tenant) DO UPDATE SET job = excluded.job"
        }
        Turn::Dataset => {
            "INSERT INTO tenant_turns (tenant, dataset) VALUES ($1, (SELECT coalesce(max(dataset), 0) + 1 FROM tenant_turns)) \
             ON CONFLICT (tenant) DO UPDATE SET dataset = excluded.dataset"
        }
    };
    sql::query(statement).bind(tenant).execute(conn).await?;
    Ok(())
}

/// Counts that a tenant's datasets were read for `read` until the steady time `now`.
pub(super) async fn has_read(conn: &mut Connection, tenant: &str, read: i64, now: i64) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO tenant_turns (tenant, reading_since, reading_ms) VALUES ($1, $2 - $3, $3)
         ON CONFLICT (tenant) DO UPDATE SET
             reading_since = CASE tenant_turns.reading_ms WHEN 0 THEN excluded.reading_since ELSE tenant_turns.reading_since END,
             reading_ms = tenant_turns.reading_ms + excluded.reading_ms",
    )
    .bind(tenant)
    .bind(now)
    .bind(read.max(0))
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets what was read in hours that are over at the steady time `now`.
pub(super) async fn begin_reading_hours(conn: &mut Connection, now: i64) -> Result<(), StoreError> {
    sql::query("UPDATE tenant_turns SET reading_ms = 0 WHERE reading_ms > 0 AND reading_since <= $1")
        .bind(now - HOUR_MS)
        .execute(conn)
        .await?;
    Ok(())
}
