//! Blobs of jobs, and those that nobody refers to any more: replaced checkpoints, results of attempts that lost their fence.

use crate::store::database::Connection;
use crate::store::sql;

use super::Jobs;
use crate::domain::id::JobId;
use crate::domain::job::Fence;
use crate::store::{Blobs, StoreError};

impl Jobs {
    /// The folder of all blobs of jobs.
    pub(in crate::store) const FOLDER: &'static str = "jobs";

    /// The key under which an attempt stores the blob `name`. No other attempt uses it.
    #[must_use]
    pub fn blob_key(fence: Fence, name: &str) -> String {
        format!("{}/{}/{}/{name}", Self::FOLDER, fence.job, fence.attempt)
    }

    /// Removes the blob `key` unless a job refers to it. Where that fails it stays behind, until it is swept.
    pub async fn drop_blob(&self, blobs: &Blobs, key: &str) {
        match self.is_referenced(key).await {
            Ok(true) => {}
            Ok(false) => blobs.delete_or_leave(key).await,
            Err(error) => {
                tracing::warn!(key, %error, "whether a job needs this blob is unknown; it stays until it is swept");
            }
        }
    }

    /// Removes those of a deleted job's blobs that no other job refers to, a retry for example, and its empty folders.
    pub async fn discard(&self, blobs: &Blobs, job: JobId, keys: &[String]) {
        for key in keys {
            self.drop_blob(blobs, key).await;
        }
        blobs.prune(&format!("{}/{job}", Self::FOLDER)).await;
    }

    async fn is_referenced(&self, key: &str) -> Result<bool, StoreError> {
        Ok(sql::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM job_artifacts WHERE blob_key = $1) \
             OR EXISTS (SELECT 1 FROM jobs WHERE checkpoint_key = $1)",
        )
        .bind(key)
        .fetch_one(self.database.reader())
        .await?)
    }
}

/// Removes the row of a job, with its history. Returns the keys of the blobs it referred to.
pub(in crate::store) async fn remove(conn: &mut Connection, job: &str) -> Result<Vec<String>, sqlx::Error> {
    let keys = sql::query_scalar(
        "SELECT blob_key FROM job_artifacts WHERE job_id = $1
         UNION SELECT checkpoint_key FROM jobs WHERE id = $1 AND checkpoint_key IS NOT NULL",
    )
    .bind(job)
    .fetch_all(&mut *conn)
    .await?;
    sql::query("DELETE FROM jobs WHERE id = $1").bind(job).execute(conn).await?;
    Ok(keys)
}
