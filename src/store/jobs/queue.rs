//! The order in which jobs are claimed: tenants take turns, and a tenant's jobs come by priority and age, those of comparisons behind
//! others.

use crate::store::database::Connection;
use crate::store::sql;
use sqlx::FromRow;

use super::Jobs;
use crate::domain::id::JobId;
use crate::store::StoreError;

/// A tenant with waiting jobs.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(super) struct Waiting {
    /// Its name.
    pub(super) tenant: String,
    /// Its running jobs.
    pub(super) running: i64,
}

/// The tenants with waiting jobs: those with the fewest running ones first, and of these the one whose turn is longest ago.
pub(super) async fn in_turn(conn: &mut Connection) -> Result<Vec<Waiting>, StoreError> {
    Ok(sql::query_as(
        // From one tenant to the next along the index: neither database does that for DISTINCT, and there may be many jobs of a few tenants.
        "WITH RECURSIVE waiting (tenant) AS ( \
             SELECT min(tenant) FROM jobs WHERE state = 'queued' \
             UNION ALL SELECT (SELECT min(tenant) FROM jobs WHERE state = 'queued' AND tenant > waiting.tenant) \
             FROM waiting WHERE waiting.tenant IS NOT NULL) \
         SELECT waiting.tenant, \
             (SELECT count(*) FROM jobs AS other WHERE other.state = 'running' AND other.tenant = waiting.tenant) AS running \
         FROM waiting LEFT JOIN tenant_turns ON tenant_turns.tenant = waiting.tenant \
         WHERE waiting.tenant IS NOT NULL ORDER BY running, coalesce(tenant_turns.job, 0), waiting.tenant",
    )
    .fetch_all(conn)
    .await?)
}

/// How many jobs of its tenant stand before a waiting job, and its tenant; none where it does not wait.
async fn place(conn: &mut Connection, job: JobId) -> Result<Option<(String, i64)>, StoreError> {
    Ok(sql::query_as(
        "SELECT own.tenant, (SELECT count(*) FROM jobs AS other WHERE other.state = 'queued' AND other.tenant = own.tenant \
             AND (-other.priority, other.compared, other.id) < (-own.priority, own.compared, own.id)) \
         FROM jobs AS own WHERE own.id = $1 AND own.state = 'queued'",
    )
    .bind(job.to_string())
    .fetch_optional(conn)
    .await?)
}

/// How many jobs of a tenant wait, counted up to `most`.
async fn queued(conn: &mut Connection, tenant: &str, most: i64) -> Result<i64, StoreError> {
    let some = "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'queued' AND tenant = $1 LIMIT $2) AS counted";
    Ok(sql::query_scalar(some).bind(tenant).bind(most).fetch_one(conn).await?)
}

impl Jobs {
    /// When a waiting job's turn comes; 1 is next. Others may take theirs later than expected, and new ones may come before it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queue_position(&self, job: JobId) -> Result<Option<i64>, StoreError> {
        let mut conn = self.database.reader().acquire().await?;
        let Some((tenant, before)) = place(&mut conn, job).await? else { return Ok(None) };
        let turns = in_turn(&mut conn).await?;
        let own = turns.iter().position(|waiting| waiting.tenant == tenant).unwrap_or(turns.len());
        let mut position = before + 1;
        for (place, waiting) in turns.iter().enumerate().filter(|(place, _)| *place != own) {
            // While it waits for its turn number `before + 1`, each other tenant has as many, and those ahead of its own one more.
            position += queued(&mut conn, &waiting.tenant, before + i64::from(place < own)).await?;
        }
        Ok(Some(position))
    }
}
