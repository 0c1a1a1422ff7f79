//! The files of unfinished uploads: one each, locked while a request writes to it, so that two requests (of two
//! processes, even) never write to the same one.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::StoreError;
use super::blobs::{blocking, sync};
use super::files::Kind;
use super::multipart::MultipartUploads;
use super::trash::Trash;
use super::uploads::{Upload, Uploads};
use crate::domain::access::Tenant;
use crate::domain::clock::Clock;
use crate::domain::id::UploadId;
use crate::domain::name::FileName;

/// How often, and how soon again, a file is tried that is locked.
const LOCK_TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// Files that belong to no upload are left alone for this long.
const YOUNGEST_STRANGER: Duration = Duration::from_hours(24);

/// An upload that this request alone may go on with. The lock ends with `file`.
#[derive(Debug)]
pub struct Held {
    /// The upload.
    pub upload: Upload,
    /// Its staging file; may be longer than what was acknowledged.
    pub file: File,
}

/// The folder of unfinished uploads.
#[derive(Debug, Clone)]
pub struct Staging {
    folder: PathBuf,
    uploads: Uploads,
    /// Where the bytes are kept, if not in the files here.
    multipart: Option<MultipartUploads>,
}

impl Staging {
    /// The folder `staging` of `data_dir`, which is made as needed.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(data_dir: &Path, uploads: Uploads) -> Result<Self, StoreError> {
        let folder = data_dir.join("staging");
        if !folder.exists() {
            std::fs::create_dir_all(&folder).map_err(StoreError::file(&folder))?;
            sync(data_dir)?;
        }
        Ok(Self { folder, uploads, multipart: None })
    }

    /// The same for uploads whose bytes are kept in a bucket: the files are what one request works with.
    #[must_use]
    pub fn with_bucket(self, multipart: Option<MultipartUploads>) -> Self {
        Self { multipart, ..self }
    }

    /// The uploads to a bucket, where they go to one.
    #[must_use]
    pub fn multipart(&self) -> Option<&MultipartUploads> {
        self.multipart.as_ref()
    }

    /// The rows behind the files.
    #[must_use]
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// Where the bytes of an upload lie.
    #[must_use]
    pub fn path(&self, id: UploadId) -> PathBuf {
        self.folder.join(format!("{id}.part"))
    }

    /// Takes the upload to this name, or begins one; none while another request has it.
    ///
    /// # Errors
    /// When the database or the file system fails.
    pub async fn hold(&self, kind: Kind, tenant: &Tenant, name: &FileName) -> Result<Option<Held>, StoreError> {
        let found = self.uploads.find_or_begin(kind, tenant, name).await?;
        let path = self.path(found.id);
        let Some(file) = lock_soon(path).await? else { return Ok(None) };
        // Whoever had the lock before may have finished the upload; its name is free then, but its id is not ours.
        let Some(mut upload) = self.uploads.get(found.id).await? else { return Ok(None) };
        let is_there = if let Some(multipart) = &self.multipart {
            multipart.knows(upload.id).await?
        } else {
            let length = file.metadata().map_err(StoreError::file(self.path(found.id)))?.len();
            // A file of the same length has a hole where parts went to a bucket, as long as there was one.
            length >= upload.acknowledged && !self.uploads.forget_parts(upload.id).await?
        };
        if !is_there {
            upload.acknowledged = 0;
        }
        Ok(Some(Held { upload, file }))
    }

    /// Waits until no request writes to an upload, but no longer than `patience`: one whose connection was cut still stores what it has.
    ///
    /// # Errors
    /// When the file system fails.
    pub async fn settle(&self, id: UploadId, patience: Duration) -> Result<(), StoreError> {
        let settled = async {
            loop {
                let path = self.path(id);
                if blocking(move || is_free(&path)).await? {
                    return Ok(());
                }
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
        };
        tokio::time::timeout(patience, settled).await.unwrap_or(Ok(()))
    }

    /// Forgets an upload and its bytes.
    ///
    /// # Errors
    /// When the database or the file system fails.
    pub async fn discard(&self, id: UploadId) -> Result<(), StoreError> {
        self.uploads.remove(id).await?;
        self.forget_file(id).await;
        if let Some(multipart) = &self.multipart
            && let Err(error) = multipart.discard(id).await
        {
            tracing::warn!(upload = %id, %error, "what is left of an upload in the bucket could not be given up; it will be swept");
        }
        Ok(())
    }

    /// Forgets an upload unless a request is writing to it; false where one is.
    ///
    /// # Errors
    /// When the database or the file system fails.
    pub async fn abandon(&self, id: UploadId) -> Result<bool, StoreError> {
        let path = self.path(id);
        let Some(_lock) = blocking(move || lock(&path, true)).await? else { return Ok(false) };
        self.discard(id).await?;
        Ok(true)
    }

    /// Forgets the bytes of an upload that has become a file. Where that fails they stay behind, until they are swept.
    pub(super) async fn forget(&self, id: UploadId) {
        self.forget_file(id).await;
        if let Some(multipart) = &self.multipart
            && let Err(error) = multipart.forget(id).await
        {
            tracing::warn!(upload = %id, %error, "a finished upload could not be forgotten; it will be swept");
        }
    }

    /// Removes the file of an upload that has no row any more. Where that fails it stays behind, until it is swept.
    async fn forget_file(&self, id: UploadId) {
        let path = self.path(id);
        if let Err(error) = blocking(move || remove(&path)).await {
            tracing::warn!(upload = %id, %error, "the file of a finished upload could not be removed; it will be swept");
        }
    }

    /// Removes expired uploads. Files that belong to none go to `trash` once they are older than a day. Uploads in use stay.
    /// Says how many went.
    ///
    /// # Errors
    /// When the database or the file system fails.
    pub async fn sweep(&self, trash: &Trash, clock: &dyn Clock) -> Result<usize, StoreError> {
        let mut removed = 0;
        for id in self.uploads.expired().await? {
            removed += usize::from(self.abandon(id).await?);
        }
        if let Some(multipart) = &self.multipart {
            removed += multipart.sweep().await?;
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(clock.now().as_millisecond().unsigned_abs());
        let newest = now.checked_sub(YOUNGEST_STRANGER).unwrap_or(SystemTime::UNIX_EPOCH);
        for id in self.files()? {
            let path = self.path(id);
            let Some(held) = blocking(move || lock(&path, false)).await? else { continue };
            let written =
                held.metadata().and_then(|found| found.modified()).map_err(StoreError::file(self.path(id)))?;
            if written <= newest && self.uploads.get(id).await?.is_none() {
                trash.take(self.path(id), &format!("staging/{id}.part")).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn files(&self) -> Result<Vec<UploadId>, StoreError> {
        let entries = std::fs::read_dir(&self.folder).map_err(StoreError::file(&self.folder))?;
        let id = |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".part")?.parse().ok();
        Ok(entries.filter_map(Result::ok).filter_map(id).collect())
    }
}

/// Opens and locks a file; none if it stays locked. A child process that is being started has all open files for a moment, and
/// with them a lock that its request has given up.
async fn lock_soon(path: PathBuf) -> Result<Option<File>, StoreError> {
    for _ in 0..LOCK_TRIES {
        let path = path.clone();
        if let Some(file) = blocking(move || lock(&path, true)).await? {
            return Ok(Some(file));
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    Ok(None)
}

/// Opens and locks a file; none if it is locked, or absent and not to be made.
fn lock(path: &Path, create: bool) -> Result<Option<File>, StoreError> {
    let file = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !create {
                return Ok(None);
            }
            let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
            let file = file.map_err(StoreError::file(path))?;
            // What is acknowledged later must be found again, name and all.
            path.parent().map_or(Ok(()), sync)?;
            file
        }
        opened => opened.map_err(StoreError::file(path))?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(StoreError::file(path)(error)),
    }
}

/// Whether nobody has locked a file, or there is none.
fn is_free(path: &Path) -> Result<bool, StoreError> {
    Ok(!path.exists() || lock(path, false)?.is_some())
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::file(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::domain::clock::{ManualClock, SystemClock};
    use crate::store::testing;

    #[tokio::test]
    async fn an_upload_belongs_to_one_request_and_goes_when_it_expires() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let database = testing::open(folder.path()).await;
        let uploads = Uploads::new(database, clock.clone(), Duration::from_mins(1));
        let staging = Staging::open(folder.path(), uploads).expect("opens");
        let (tenant, name) = (Tenant::default(), "a".parse().expect("a name"));
        let hold = async || staging.hold(Kind::Checkpoint, &tenant, &name).await.expect("works");
        let mut held = hold().await.expect("free");
        assert!(hold().await.is_none(), "two requests must not share an upload");
        held.file.write_all(b"12345").expect("writes");
        staging.uploads().acknowledge(held.upload.id, 3, Some(9)).await.expect("writes");
        let id = held.upload.id;
        drop(held);
        let again = hold().await.expect("free again").upload;
        assert_eq!(again, Upload { id, acknowledged: 3, total: Some(9) });
        let trash = Trash::new(folder.path(), Duration::from_hours(24), clock.clone());
        let sweep = async || staging.sweep(&trash, &*clock).await.expect("sweeps");
        assert_eq!(sweep().await, 0);
        clock.advance(Duration::from_mins(1));
        std::fs::write(staging.path(UploadId::new()), b"of nobody").expect("writes");
        assert_eq!(sweep().await, 1, "the expired one");
        clock.advance(Duration::from_hours(25));
        assert_eq!(sweep().await, 1, "the one of nobody");
        assert!(folder.path().join("trash").exists());
        assert!(!staging.path(id).exists());
        let fresh = hold().await.expect("free").upload;
        assert_eq!((fresh.acknowledged, fresh.id == id), (0, false));
        std::fs::remove_file(staging.path(fresh.id)).expect("removes");
        staging.uploads().acknowledge(fresh.id, 3, None).await.expect("writes");
        assert_eq!(hold().await.expect("free").upload.acknowledged, 0, "bytes that are lost are not acknowledged");
    }
}
