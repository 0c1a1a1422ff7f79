//! A file that holds some room free: on a full disk even a deletion needs some, for the database writes down what is to go.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::StoreError;
use super::blobs::blocking;
use super::disk::free_bytes;
use crate::domain::problem::{Code, Problem};

/// Size of the file: several times what deleting a comparison of 500 jobs writes.
const BYTES: u64 = 16 << 20;

/// The reserve of a data directory.
#[derive(Debug, Clone)]
pub struct Reserve {
    path: PathBuf,
    keep_free: u64,
}

impl Reserve {
    /// The file `reserve` of `data_dir`. It is made while more than `keep_free` bytes are free beside it.
    #[must_use]
    pub fn new(data_dir: &Path, keep_free: u64) -> Self {
        Self { path: data_dir.join("reserve"), keep_free }
    }

    /// Makes the file, if it is not there and there is room.
    ///
    /// # Errors
    /// When the file system fails.
    pub async fn fill(&self) -> Result<(), StoreError> {
        let Self { path, keep_free } = self.clone();
        blocking(move || {
            let folder = path.parent().unwrap_or(Path::new("."));
            if path.exists() || free_bytes(folder)? < keep_free.saturating_add(2 * BYTES) {
                return Ok(());
            }
            let made = File::create(&path).and_then(|mut file| {
                match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
                    Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                        std::io::copy(&mut std::io::repeat(0).take(BYTES), &mut file)?;
                    }
                    reserved => reserved?,
                }
                file.sync_all()
            });
            made.map_err(|error| {
                // Half a reserve would never be filled.
                let _gone = std::fs::remove_file(&path);
                StoreError::file(path)(error)
            })
        })
        .await
    }

    /// Does something that makes room; where the disk is too full for that, once more without the reserve.
    ///
    /// # Errors
    /// What `delete` fails with.
    pub async fn free<T, F>(&self, delete: impl Fn() -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        match delete().await {
            Err(problem) if problem.code == Code::DiskFull && std::fs::remove_file(&self.path).is_ok() => {
                tracing::warn!("the disk is full: the reserve was given up for a deletion");
                delete().await
            }
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_deletion_that_finds_no_room_gets_the_reserve() {
        let folder = tempfile::tempdir().expect("a folder");
        let reserve = Reserve::new(folder.path(), 0);
        reserve.fill().await.expect("makes it");
        let file = folder.path().join("reserve");
        assert_eq!(file.metadata().expect("is there").len(), BYTES);
        let calls = AtomicU32::new(0);
        let delete = || {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            std::future::ready(if file.exists() { Err(Problem::new(Code::DiskFull, "full")) } else { Ok(call) })
        };
        assert_eq!(reserve.free(delete).await, Ok(1), "the second time");
        let hopeless = || std::future::ready(Err::<(), _>(Problem::new(Code::DiskFull, "full")));
        assert_eq!(reserve.free(hopeless).await.map_err(|problem| problem.code), Err(Code::DiskFull));
        Reserve::new(folder.path(), u64::MAX).fill().await.expect("does nothing");
        assert!(!file.exists(), "there is no room for it");
    }
}
