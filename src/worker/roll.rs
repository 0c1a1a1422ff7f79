//! Which workers are alive: each holds a lock on a file of its own, which the system lets go when the process ends, however it ends.
//! So the jobs of a process that was killed go on at once, not when their leases lapse, and never those of one that lives.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::domain::id::WorkerId;
use crate::store::StoreError;
use crate::store::jobs::{JobError, Jobs};
use crate::store::workers::Workers;

/// This worker's entry; it goes with the value.
#[derive(Debug)]
pub(super) struct RollEntry {
    path: PathBuf,
    _locked: File,
}

impl RollEntry {
    /// Enters a worker in the folder `roll`.
    ///
    /// # Errors
    /// When the file system fails.
    pub(super) fn new(roll: &Path, id: WorkerId) -> io::Result<Self> {
        fs::create_dir_all(roll)?;
        let path = path(roll, id);
        let file = File::create(&path)?;
        file.lock()?;
        Ok(Self { path, _locked: file })
    }
}

impl Drop for RollEntry {
    fn drop(&mut self) {
        // One that stays says the same without its lock: nobody is alive.
        let _stays = fs::remove_file(&self.path);
    }
}

/// Gives back the jobs of workers that have entered themselves in `roll` and are gone, and takes them off the list. Says how many
/// jobs.
///
/// # Errors
/// When the database or the file system fails.
pub(super) async fn release(roll: &Path, jobs: &Jobs, workers: &Workers) -> Result<usize, JobError> {
    let mut released = 0;
    for entry in fs::read_dir(roll).map_err(StoreError::file(roll))? {
        let path = entry.map_err(StoreError::file(roll))?.path();
        let Some(worker) = worker(&path) else { continue };
        // The lock is kept until the jobs are given back, so that one process does it.
        if let Some(_gone) = take_over(&path) {
            released += jobs.abandon(worker).await?;
            workers.remove(worker).await?;
            // The next look would find it again, and no jobs.
            let _stays = fs::remove_file(&path);
        }
    }
    Ok(released)
}

/// Whose entry a file is.
fn worker(path: &Path) -> Option<WorkerId> {
    path.file_name()?.to_str()?.strip_suffix(".lock")?.parse().ok()
}

fn path(roll: &Path, id: WorkerId) -> PathBuf {
    roll.join(format!("{id}.lock"))
}

/// The file of a worker that is gone, locked; none where it lives, or has never entered itself: an earlier version did not.
fn take_over(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    match file.try_lock() {
        Ok(()) => Some(file),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_gone_when_its_lock_is_and_not_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let roll = folder.path().join("workers");
        let id = WorkerId::new();
        assert!(take_over(&path(&roll, id)).is_none(), "it has never been here");
        let entry = RollEntry::new(&roll, id).expect("enters");
        assert!(take_over(&path(&roll, id)).is_none(), "it lives");
        drop(entry);
        assert!(!path(&roll, id).exists());
        // As a killed process leaves it.
        File::create(path(&roll, id)).expect("writes");
        assert!(take_over(&path(&roll, id)).is_some());
    }
}
