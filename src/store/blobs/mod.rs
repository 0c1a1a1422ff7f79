//! Immutable bytes under keys: files of a folder, or objects of a bucket.

mod aws;
mod cache;
mod local;
mod s3;

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use super::disk::free_bytes;
use super::error::StoreError;
use crate::domain::blob_location::BlobLocation;
use crate::model::formats::digest::sha256;
use cache::Cache;
use local::Folder;

pub use aws::{AwsVariables, environment};
pub use cache::LocalFile;
pub(super) use local::relocate;
pub use s3::Bucket;
pub(super) use s3::{part_bytes, read_range};

/// Name of their folder below the data directory, where they are nowhere else.
pub(super) const FOLDER: &str = "blobs";
/// Name of the folder below the data directory for local copies of objects.
const CACHE: &str = "cache";

/// What blobs are kept in.
#[derive(Debug, Clone)]
pub enum Backend {
    /// A folder, which may not exist yet.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Bucket),
}

impl Backend {
    /// What is at `location`; `variables` describe the client of a bucket. Nothing is asked of it yet.
    ///
    /// # Errors
    /// Where `variables` describe none.
    pub fn of(location: &BlobLocation, data_dir: &Path, variables: &AwsVariables) -> Result<Self, StoreError> {
        Ok(match location {
            BlobLocation::DataDir => Self::Folder(data_dir.join(FOLDER)),
            BlobLocation::Folder(folder) => Self::Folder(folder.clone()),
            BlobLocation::Bucket { name, prefix } => Self::Bucket(Bucket::open(name, prefix, variables)?),
        })
    }

    /// What people call it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Bucket(bucket) => bucket.url(),
        }
    }
}

/// The blob store; clones share it.
#[derive(Debug, Clone)]
pub struct Blobs(Kept);

#[derive(Debug, Clone)]
enum Kept {
    Folder(Folder),
    Bucket { bucket: Bucket, cache: Cache },
}

impl Blobs {
    /// The blobs in the folder `blobs` of `data_dir`, which is made as needed.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Ok(Self(Kept::Folder(Folder::open(&data_dir.join(FOLDER))?)))
    }

    /// The blobs in `backend`. Those of a bucket have local copies of `cache_bytes` together below `data_dir`.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn of(backend: &Backend, data_dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        Ok(Self(match backend {
            Backend::Folder(folder) => Kept::Folder(Folder::open(folder)?),
            Backend::Bucket(bucket) => {
                Kept::Bucket { bucket: bucket.clone(), cache: Cache::open(&data_dir.join(CACHE), cache_bytes)? }
            }
        }))
    }

    /// The bucket, where they are objects of one.
    #[must_use]
    pub fn bucket(&self) -> Option<&Bucket> {
        match &self.0 {
            Kept::Folder(_) => None,
            Kept::Bucket { bucket, .. } => Some(bucket),
        }
    }

    /// Bytes that a file may have that is written below `data_dir` and then becomes a blob: the two folders may be on different disks.
    ///
    /// # Errors
    /// When a file system does not say.
    pub fn room(&self, data_dir: &Path) -> Result<u64, StoreError> {
        let beside = free_bytes(data_dir)?;
        self.folder().map_or(Ok(beside), |folder| Ok(beside.min(free_bytes(folder)?)))
    }

    /// The folder, where they are files of one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.0 {
            Kept::Folder(folder) => Some(folder.root()),
            Kept::Bucket { .. } => None,
        }
    }

    /// Takes over the local file `from` as the blob `key`. In a folder: synced, then renamed, then the folders synced; a file on another
    /// file system is copied. In a bucket: sent, then removed. `from` is gone afterwards. A repetition after a failure goes on where that was.
    ///
    /// # Errors
    /// When a step fails; `from` or the blob then still exists.
    pub async fn put_file(&self, from: &Path, key: &str) -> Result<(), StoreError> {
        match &self.0 {
            Kept::Folder(folder) => folder.put_file(from, key).await,
            Kept::Bucket { bucket, .. } => {
                bucket.put_file(from, key).await?;
                match tokio::fs::remove_file(from).await {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::file(from)(error)),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Makes the local file `from` the blob `key` too. In a folder, until one of the two names is removed, they are one file; on another
    /// file system, and in a bucket, the blob is a copy.
    ///
    /// # Errors
    /// When a step fails; `from` is as before then, and there may be a blob.
    pub async fn link_file(&self, from: &Path, key: &str) -> Result<(), StoreError> {
        match &self.0 {
            Kept::Folder(folder) => folder.link_file(from, key).await,
            Kept::Bucket { bucket, .. } => bucket.put_file(from, key).await,
        }
    }

    /// Where the blob `key` lies in the folder. The file may not exist.
    ///
    /// # Errors
    /// When `key` is not a key, or blobs are in a bucket.
    pub fn path_of(&self, key: &str) -> Result<PathBuf, StoreError> {
        match &self.0 {
            Kept::Folder(folder) => folder.path_of(key),
            Kept::Bucket { .. } => {
                let error = std::io::Error::new(std::io::ErrorKind::Unsupported, "it is an object of a bucket");
                Err(StoreError::file(key)(error))
            }
        }
    }

    /// A local file with the bytes of the blob `key`, for memory maps and child processes: the blob itself, which may not exist, or a
    /// copy of an object. A copy is compared with the SHA-256 `digest`, in hexadecimal, where that is known, while it is fetched.
    ///
    /// # Errors
    /// When an object is absent, has other bytes, or cannot be fetched.
    pub async fn local(&self, key: &str, digest: Option<&str>) -> Result<LocalFile, StoreError> {
        match &self.0 {
            Kept::Folder(folder) => Ok(LocalFile::own(folder.path_of(key)?)),
            Kept::Bucket { bucket, cache } => {
                // A key names the same bytes for ever.
                let name = digest.map_or_else(|| format!("key-{}", hex::encode(Sha256::digest(key))), str::to_owned);
                cache.get(key, &name, digest, || bucket.get(key)).await
            }
        }
    }

    /// Makes the local file `from` the copy of an object with this digest, where there are such copies and it has room.
    pub(super) async fn adopt(&self, from: &Path, digest: &str) {
        if let Kept::Bucket { cache, .. } = &self.0 {
            cache.adopt(from, digest).await;
        }
    }

    /// The length of the blob `key`; none where there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn length(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match &self.0 {
            Kept::Folder(folder) => folder.length(key).await,
            Kept::Bucket { bucket, .. } => bucket.length(key).await,
        }
    }

    /// SHA-256 of the blob `key` as it is now, in hexadecimal.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn digest(&self, key: &str) -> Result<String, StoreError> {
        match &self.0 {
            Kept::Folder(folder) => {
                let path = folder.path_of(key)?;
                blocking(move || std::fs::File::open(&path).and_then(sha256).map_err(StoreError::file(path))).await
            }
            Kept::Bucket { bucket, .. } => {
                let (_, mut stream) = bucket.get(key).await?;
                let mut hasher = Sha256::new();
                while let Some(chunk) = stream.try_next().await? {
                    hasher.update(&chunk);
                }
                Ok(hex::encode(hasher.finalize()))
            }
        }
    }

    /// Removes the blob `key`; one that is absent already is fine.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match &self.0 {
            Kept::Folder(folder) => folder.delete(key).await,
            Kept::Bucket { bucket, .. } => bucket.delete(key).await,
        }
    }

    /// Removes the blob `key`, which no row names any more. Where that fails it stays behind, until it is swept.
    pub async fn delete_or_leave(&self, key: &str) {
        if let Err(error) = self.delete(key).await {
            tracing::warn!(key, %error, "a blob that nobody needs could not be removed; it will be swept");
        }
    }

    /// Removes the folder `prefix` and those in it, as far as they are empty. A bucket has none.
    pub async fn prune(&self, prefix: &str) {
        if let Kept::Folder(folder) = &self.0 {
            folder.prune(prefix).await;
        }
    }

    /// Streams the bytes `range` of the blob `key`.
    ///
    /// # Errors
    /// When there is no such blob; a later failure ends the stream with an error.
    pub async fn read(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, StoreError> {
        if range.is_empty() {
            return Ok(futures_util::stream::empty().boxed());
        }
        match &self.0 {
            Kept::Folder(folder) => folder.read(key, range).await,
            Kept::Bucket { bucket, .. } => bucket.read(key, range).await,
        }
    }

    /// Every key below `prefix` (a folder name), with when it was last written, in milliseconds since the epoch.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, i64)>, StoreError> {
        match &self.0 {
            Kept::Folder(folder) => folder.list(prefix).await,
            Kept::Bucket { bucket, .. } => bucket.list(prefix).await,
        }
    }
}

/// Runs file operations away from the threads that answer requests.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::file("background file operation")(std::io::Error::other(error))),
    }
}

/// Waits until a file's or a folder's content is on disk.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_becomes_a_blob_that_reads_in_ranges_and_goes_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("opens");
        let staged = folder.path().join("staged");
        std::fs::write(&staged, b"0123456789").expect("writes");
        blobs.put_file(&staged, "checkpoints/a").await.expect("moves");
        assert!(!staged.exists());
        blobs.put_file(&staged, "checkpoints/a").await.expect("a repetition finds its work done");
        let middle: Vec<Bytes> =
            blobs.read("checkpoints/a", 2..5).await.expect("opens").try_collect().await.expect("reads");
        assert_eq!(middle.concat(), b"234");
        let nothing: Vec<Bytes> =
            blobs.read("checkpoints/a", 4..4).await.expect("opens").try_collect().await.expect("reads");
        assert!(nothing.is_empty());
        assert_eq!(blobs.list("checkpoints").await.expect("lists").len(), 1);
        blobs.delete("checkpoints/a").await.expect("deletes");
        blobs.delete("checkpoints/a").await.expect("deletes what is gone");
        assert!(blobs.read("checkpoints/a", 0..1).await.is_err());
    }

    #[test]
    fn a_disk_that_is_full_has_no_room_whatever_the_other_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("opens");
        assert!(blobs.room(folder.path()).expect("says") > 0);
        // A file system on which nothing is free.
        assert_eq!(blobs.room(Path::new("/proc")).expect("says"), 0);
        let blobs = Blobs::of(&Backend::Folder("/proc".into()), folder.path(), 0).expect("opens");
        assert_eq!(blobs.room(folder.path()).expect("says"), 0);
    }

    #[test]
    fn a_key_never_leaves_the_store() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("opens");
        assert!(blobs.path_of("../engraft.db").is_err());
        assert!(blobs.path_of("a/../../b").is_err());
    }
}
