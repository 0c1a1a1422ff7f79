//! Blobs of jobs that nobody refers to any more: replaced checkpoints, results of attempts that lost their fence.

use std::collections::BTreeSet;

use super::{JobError, Jobs};
use crate::domain::id::JobId;
use crate::domain::job::Fence;
use crate::store::{Blobs, StoreError};

/// The folder of all blobs of jobs.
const FOLDER: &str = "jobs";

impl Jobs {
    /// The key under which an attempt stores the blob `name`. No other attempt uses it.
    #[must_use]
    pub fn blob_key(fence: Fence, name: &str) -> String {
        format!("{FOLDER}/{}/{}/{name}", fence.job, fence.attempt)
    }

    /// Removes the blob `key` unless a job refers to it.
    ///
    /// # Errors
    /// When the database or the blob store fails.
    pub async fn drop_blob(&self, blobs: &Blobs, key: &str) -> Result<(), StoreError> {
        if self.is_referenced(key).await? { Ok(()) } else { blobs.delete(key).await }
    }

    /// Removes the blobs of a job that is not running (or gone) which no job refers to.
    ///
    /// # Errors
    /// When the database or the blob store fails.
    pub async fn sweep_job(&self, blobs: &Blobs, job: JobId) -> Result<(), StoreError> {
        for (key, _) in blobs.list(&format!("{FOLDER}/{job}")).await? {
            self.drop_blob(blobs, &key).await?;
        }
        Ok(())
    }

    /// Does so for every job that has ended or is gone; for the start of a server.
    ///
    /// # Errors
    /// When the database or the blob store fails.
    pub async fn sweep_all(&self, blobs: &Blobs) -> Result<(), StoreError> {
        let job_of = |key: String| key.split('/').nth(1).and_then(|id| id.parse::<JobId>().ok());
        let jobs: BTreeSet<JobId> = blobs.list(FOLDER).await?.into_iter().filter_map(|(key, _)| job_of(key)).collect();
        for job in jobs {
            match self.watch(job).await {
                Ok(glimpse) if !glimpse.ended => {}
                Ok(_) | Err(JobError::NotFound(_)) => self.sweep_job(blobs, job).await?,
                Err(JobError::Store(error)) => return Err(error),
                Err(JobError::Transition(_) | JobError::InputsGone(_) | JobError::KeyReused) => {}
            }
        }
        Ok(())
    }

    async fn is_referenced(&self, key: &str) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM job_artifacts WHERE blob_key = ?1) \
             OR EXISTS (SELECT 1 FROM jobs WHERE checkpoint_key = ?1)",
        )
        .bind(key)
        .fetch_one(self.database.reader())
        .await?)
    }
}
