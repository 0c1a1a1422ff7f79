//! Blobs in a folder.

use std::fs::{self, File};
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

use super::{blocking, sync};
use crate::store::error::StoreError;

/// Bytes per read of a local file: large enough that the thread hop costs little.
const CHUNK: usize = 256 * 1024;

/// A folder of blobs; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    root: PathBuf,
    local: Arc<LocalFileSystem>,
}

impl Folder {
    /// The folder `root`, which is made as needed.
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(StoreError::file(root))?;
        let local = LocalFileSystem::new_with_prefix(root)?.with_fsync(true);
        Ok(Self { root: root.to_owned(), local: Arc::new(local) })
    }

    /// Where it is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// See [`super::Blobs::put_file`].
    pub(super) async fn put_file(&self, from: &Path, key: &str) -> Result<(), StoreError> {
        self.take_in(from, key, |from, to| match relocate(from, to) {
            Err(error) if error.kind() == ErrorKind::NotFound && to.exists() => Ok(()),
            moved => moved,
        })
        .await
    }

    /// See [`super::Blobs::link_file`].
    pub(super) async fn link_file(&self, from: &Path, key: &str) -> Result<(), StoreError> {
        self.take_in(from, key, |from, to| match fs::hard_link(from, to) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => copy(from, to),
            linked => linked,
        })
        .await
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
            fs::create_dir_all(parent).map_err(StoreError::file(parent))?;
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

    /// Where the blob `key` lies; the file may not exist.
    pub(super) fn path_of(&self, key: &str) -> Result<PathBuf, StoreError> {
        let key = Key::parse(key).map_err(object_store::Error::from)?;
        Ok(self.local.path_to_filesystem(&key)?)
    }

    /// The length of the blob `key`; none where there is none.
    pub(super) async fn length(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let path = self.path_of(key)?;
        match tokio::fs::metadata(&path).await {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::file(path)(error)),
        }
    }

    /// Removes the blob `key`; one that is absent already is fine.
    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.local.delete(&Key::parse(key).map_err(object_store::Error::from)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// See [`super::Blobs::prune`].
    pub(super) async fn prune(&self, prefix: &str) {
        fn prune(folder: &Path) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    prune(&entry.path());
                }
            }
            // One that is not empty stays, as it should.
            let _stays = fs::remove_dir(folder);
        }
        if let Ok(folder) = self.path_of(prefix) {
            let _nothing_depends_on_it = tokio::task::spawn_blocking(move || prune(&folder)).await;
        }
    }

    /// See [`super::Blobs::read`].
    pub(super) async fn read(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, StoreError> {
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

    /// See [`super::Blobs::list`].
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<(String, i64)>, StoreError> {
        let prefix = Key::parse(prefix).map_err(object_store::Error::from)?;
        let listed = self.local.list(Some(&prefix));
        let entry = |meta: object_store::ObjectMeta| (meta.location.to_string(), meta.last_modified.timestamp_millis());
        Ok(listed.map_ok(entry).try_collect().await?)
    }
}

/// Moves a file, also to another file system.
pub(in crate::store) fn relocate(from: &Path, to: &Path) -> std::io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            copy(from, to)?;
            fs::remove_file(from)
        }
        renamed => renamed,
    }
}

/// Copies a file to another file system. It has its name there once all of it is on disk.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".copy");
    let part = to.with_file_name(name);
    fs::copy(from, &part)?;
    File::open(&part)?.sync_all()?;
    fs::rename(&part, to)
}
