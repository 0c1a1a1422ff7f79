//! Folders that children write to: one per attempt, removed with it; what a crash leaves behind is swept at the next start.

use std::path::{Path, PathBuf};

use tokio::fs;

use crate::domain::id::JobId;
use crate::domain::job::Fence;
use crate::store::jobs::{JobError, Jobs};

/// An attempt's own folder, removed when dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes the folder `root/<job>-<attempt>`; its path is absolute.
    pub(super) async fn make(root: &Path, fence: Fence) -> std::io::Result<Self> {
        let path = std::path::absolute(root)?.join(format!("{}-{}", fence.job, fence.attempt));
        fs::create_dir_all(&path).await?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a scratch folder could not be removed");
        }
    }
}

/// Removes the folders of attempts that no longer hold their job.
pub(super) async fn sweep(root: &Path, jobs: &Jobs) -> Result<(), JobError> {
    let Ok(mut entries) = fs::read_dir(root).await else { return Ok(()) };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let Some(fence) = entry.file_name().to_str().and_then(parse) else { continue };
        if !jobs.is_held(fence).await? {
            // Two workers that start together sweep the same folder.
            let _gone = fs::remove_dir_all(entry.path()).await;
        }
    }
    Ok(())
}

fn parse(name: &str) -> Option<Fence> {
    let (job, attempt) = name.rsplit_once('-')?;
    Some(Fence { job: job.parse::<JobId>().ok()?, attempt: attempt.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folders_name_tells_the_attempt() {
        let fence = Fence { job: JobId::new(), attempt: 12 };
        assert_eq!(parse(&format!("{}-{}", fence.job, fence.attempt)), Some(fence));
        assert_eq!(parse("job_1-x"), None);
        assert_eq!(parse("notes"), None);
    }
}
