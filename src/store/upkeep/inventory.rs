//! Every file that a database names.

use crate::store::database::Connection;
use crate::store::sql;
use crate::store::sql::FromRow;

use crate::store::StoreError;

/// A blob and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(super) struct Named {
    /// Its key.
    pub(super) blob_key: String,
    /// What it is to its owner, as in `checkpoint m0.safetensors`.
    pub(super) what: String,
    /// Its owner.
    pub(super) tenant: String,
    /// SHA-256, in hexadecimal; none of a checkpoint that a job goes on from.
    pub(super) sha256: Option<String>,
    /// Its length, where that is known.
    pub(super) bytes: Option<i64>,
}

/// All blobs that the database names, by key.
pub(super) async fn named(conn: &mut Connection) -> Result<Vec<Named>, StoreError> {
    Ok(sql::query_as(
        "SELECT blob_key, 'checkpoint ' || name AS what, tenant, sha256, bytes FROM checkpoints \
         UNION ALL SELECT blob_key, 'dataset ' || name, tenant, sha256, bytes FROM datasets \
         UNION ALL SELECT blob_key, name || ' of ' || jobs.id, tenant, sha256, bytes FROM job_artifacts \
             JOIN jobs ON jobs.id = job_artifacts.job_id \
         UNION ALL SELECT checkpoint_key, 'epoch checkpoint of ' || min(id), min(tenant), NULL, NULL FROM jobs \
             WHERE checkpoint_key IS NOT NULL GROUP BY checkpoint_key \
         ORDER BY 1",
    )
    .fetch_all(conn)
    .await?)
}

/// Whether the database names this blob.
pub(super) async fn is_named(conn: &mut Connection, key: &str) -> Result<bool, StoreError> {
    Ok(sql::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM checkpoints WHERE blob_key = $1) OR EXISTS (SELECT 1 FROM datasets WHERE blob_key = $1) \
         OR EXISTS (SELECT 1 FROM job_artifacts WHERE blob_key = $1) OR EXISTS (SELECT 1 FROM jobs WHERE checkpoint_key = $1)",
    )
    .bind(key)
    .fetch_one(conn)
    .await?)
}
