//! Folders that children write to: one per attempt, removed with it; what a killed worker leaves behind goes when the job's
//! next attempt begins, or with the next sweep.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tokio::fs;

use crate::domain::id::JobId;
use crate::domain::job::Fence;
use crate::store::jobs::{JobError, Jobs};

/// An attempt's own folder, removed when dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes the folder `root/<job>-<attempt>`; its path is absolute. Those of the job's earlier attempts, which nobody
    /// may use any more, give up their space first.
    pub(super) async fn make(root: &Path, fence: Fence) -> std::io::Result<Self> {
        let root = std::path::absolute(root)?;
        for attempt in 1..fence.attempt {
            // Nearly always their own workers have removed them.
            let _gone = fs::remove_dir_all(root.join(name(Fence { attempt, ..fence }))).await;
        }
        let path = root.join(name(fence));
        fs::create_dir_all(&path).await?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
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

fn name(fence: Fence) -> String {
    format!("{}-{}", fence.job, fence.attempt)
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
        assert_eq!(parse(&name(fence)), Some(fence));
        assert_eq!(parse("job_1-x"), None);
        assert_eq!(parse("notes"), None);
    }

    #[tokio::test]
    async fn an_attempt_removes_its_folder_and_those_of_attempts_that_could_not() {
        let root = tempfile::tempdir().expect("a folder");
        let fence = Fence { job: JobId::new(), attempt: 1 };
        let killed = Scratch::make(root.path(), fence).await.expect("makes");
        let left = killed.path().to_owned();
        std::mem::forget(killed);
        assert!(left.exists());
        let next = Scratch::make(root.path(), Fence { attempt: 2, ..fence }).await.expect("makes");
        assert!(!left.exists() && next.path().exists());
        drop(next);
        assert!(root.path().read_dir().expect("reads").next().is_none());
    }
}
