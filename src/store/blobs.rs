//! Immutable bytes under keys, in an object store below the data directory.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::error::StoreError;

/// Name of their folder below the data directory.
pub(super) const FOLDER: &str = "blobs";

/// Bytes per read of a local file: large enough that the thread hop costs little.
const CHUNK: usize = 256 * 1024;

/// The blob store; clones share it.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
    local: Arc<LocalFileSystem>,
}

impl Blobs {
    /// The blobs in the folder `blobs` of `data_dir`, which is made as needed.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let folder = data_dir.join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(StoreError::file(&folder))?;
        let local = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
        Ok(Self { root: folder, local: Arc::new(local) })
    }

    /// Takes over the local file `from`, which must lie on the same file system, as the blob `key`: synced, then
    /// renamed, then the folders synced. `from` is gone afterwards. A repetition after a failure goes on where that was.
    ///
    /// # Errors
    /// When a step fails; `from` or the blob then still exists.
    pub async fn put_file(&self, from: &Path, key: &str) -> Result<(), StoreError> {
        self.take_in(from, key, |from, to| match std::fs::rename(from, to) {
            Err(error) if error.kind() == ErrorKind::NotFound && to.exists() => Ok(()),
            renamed => renamed,
        })
        .await
    }

    /// Makes the local file `from`, which must lie on the same file system, the blob `key` too: until one of the two names is
    /// removed, they are one file.
    ///
    /// # Errors
    /// When a step fails; `from` is as before then, and there may be a blob.
    pub async fn link_file(&self, from: &Path, key: &str) -> Result<(), StoreError> {
        self.take_in(from, key, |from, to| std::fs::hard_link(from, to)).await
    }

    async fn take_in(
        &self,
        from: &Path,
        key: &str,
        enter: impl FnOnce(&Path, &Path) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (from, to, root) = (from.to_owned(), self.path_of(key)?, self.root.clone());
        blocking(move || {
            let parent = to.parent().unwrap_or(&root);
            std::fs::create_dir_all(parent).map_err(StoreError::file(parent))?;
            match sync(&from) {
                Err(StoreError::File { source, .. }) if source.kind() == ErrorKind::NotFound && to.exists() => {
                    sync(&to)?;
                }
                synced => synced?,
            }
            enter(&from, &to).map_err(StoreError::file(&from))?;
            // A new folder is an entry of the one above it.
            parent.ancestors().take_while(|folder| folder.starts_with(&root)).try_for_each(sync)
        })
        .await
    }

    /// Where the blob `key` lies, for memory maps and child processes. The file may not exist.
    ///
    /// # Errors
    /// When `key` is not a key.
    pub fn path_of(&self, key: &str) -> Result<PathBuf, StoreError> {
        let key = Key::parse(key).map_err(object_store::Error::from)?;
        Ok(self.local.path_to_filesystem(&key)?)
    }

    /// Removes the blob `key`; one that is absent already is fine.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.local.delete(&Key::parse(key).map_err(object_store::Error::from)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the blob `key`, which no row names any more. Where that fails it stays behind, until it is swept.
    pub async fn delete_or_leave(&self, key: &str) {
        if let Err(error) = self.delete(key).await {
            tracing::warn!(key, %error, "a blob that nobody needs could not be removed; it will be swept");
        }
    }

    /// Removes the folder `prefix` and those in it, as far as they are empty.
    pub async fn prune(&self, prefix: &str) {
        fn prune(folder: &Path) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    prune(&entry.path());
                }
            }
            // One that is not empty stays, as it should.
            let _stays = std::fs::remove_dir(folder);
        }
        if let Ok(folder) = self.path_of(prefix) {
            let _nothing_depends_on_it = tokio::task::spawn_blocking(move || prune(&folder)).await;
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
        let key = Key::parse(key).map_err(object_store::Error::from)?;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = self.local.get_opts(&key, options).await?;
        let range = found.range.clone();
        match found.payload {
            GetResultPayload::File(file, path) => {
                let mut file = tokio::fs::File::from_std(file);
                file.seek(std::io::SeekFrom::Start(range.start)).await.map_err(StoreError::file(path))?;
                Ok(ReaderStream::with_capacity(file.take(range.end - range.start), CHUNK).boxed())
            }
            GetResultPayload::Stream(stream) => Ok(stream.map_err(std::io::Error::other).boxed()),
        }
    }

    /// Every key below `prefix` (a folder name), with when it was last written, in milliseconds since the epoch.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, i64)>, StoreError> {
        let prefix = Key::parse(prefix).map_err(object_store::Error::from)?;
        let listed = self.local.list(Some(&prefix));
        let entry = |meta: object_store::ObjectMeta| (meta.location.to_string(), meta.last_modified.timestamp_millis());
        Ok(listed.map_ok(entry).try_collect().await?)
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
    fn a_key_never_leaves_the_store() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("opens");
        assert!(blobs.path_of("../engraft.db").is_err());
        assert!(blobs.path_of("a/../../b").is_err());
    }
}
