//! Local files of what lies in a bucket, by digest: each is fetched once by whoever comes first, of all processes that share the
//! folder, and kept until the room is needed for others.
//!
//! A file that is used is locked (shared), and one that is being fetched too (exclusively), under the name `NAME.part`. Locks end with
//! the processes that have them, so nothing has to be tidied up after one that was killed.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{BoxStream, TryStreamExt};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{blocking, sync};
use crate::store::error::StoreError;

/// How soon a file is looked at again that somebody else is fetching.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// What the name of a file ends with that is being fetched.
const PART: &str = ".part";
/// Held for a moment by who makes room.
const LOCK: &str = "lock";
const BUFFER: usize = 1 << 20;

/// A local file with the bytes of a blob. It stays for as long as this is held.
#[derive(Debug)]
pub struct LocalFile {
    path: PathBuf,
    /// Keeps a file of the cache from being removed; a blob's own file needs none.
    _lock: Option<File>,
}

impl LocalFile {
    /// A file that nobody removes while a row names it.
    pub(super) fn own(path: PathBuf) -> Self {
        Self { path, _lock: None }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The bytes of a blob, and how many they are.
pub(super) type Source = (u64, BoxStream<'static, Result<Bytes, object_store::Error>>);

/// A folder of such files; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
    most: u64,
}

impl Cache {
    /// The files in `folder`, which is made as needed, of `most` bytes together.
    pub(super) fn open(folder: &Path, most: u64) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(StoreError::file(folder))?;
        Ok(Self { folder: folder.to_owned(), most })
    }

    /// The file `name`, which is what `open` gives where it is not there yet; with the digest `sha256`, in hexadecimal, where that is known.
    ///
    /// # Errors
    /// When the bytes cannot be had or kept, or are others.
    pub(super) async fn get<F>(
        &self,
        key: &str,
        name: &str,
        sha256: Option<&str>,
        open: impl Fn() -> F,
    ) -> Result<LocalFile, StoreError>
    where
        F: Future<Output = Result<Source, StoreError>>,
    {
        let path = self.folder.join(name);
        loop {
            let wanted = path.clone();
            match blocking(move || take(&wanted).map_err(StoreError::file(wanted))).await? {
                Taken::File(file) => return Ok(file),
                Taken::Busy => {}
                Taken::Absent => {
                    if let Some(part) = self.begin(name).await? {
                        let fetched = self.fetch(key, &part, sha256, open().await).await;
                        self.end(part, &path, fetched).await?;
                        continue;
                    }
                }
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Makes the local file `from`, whose bytes have the digest `sha256`, a file of the cache. Where that is not possible it is none; it
    /// would be fetched.
    pub(super) async fn adopt(&self, from: &Path, sha256: &str) {
        let (cache, from, path) = (self.clone(), from.to_owned(), self.folder.join(sha256));
        let adopted = blocking(move || {
            let length = fs::metadata(&from).map_err(StoreError::file(&from))?.len();
            if length <= cache.most && !path.exists() {
                let _lock = cache.lock()?;
                cache.make_room(length)?;
                fs::rename(&from, &path).map_err(StoreError::file(&path))?;
            }
            Ok(())
        });
        if let Err(error) = adopted.await {
            tracing::warn!(%error, "an upload could not be kept in the cache; it is fetched when it is needed");
        }
    }

    /// Begins to fetch `name`; none where somebody else does, or has done so by now.
    async fn begin(&self, name: &str) -> Result<Option<Part>, StoreError> {
        let (path, whole) = (self.folder.join(format!("{name}{PART}")), self.folder.join(name));
        blocking(move || {
            let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = opened.map_err(StoreError::file(&path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(StoreError::file(&path)(error)),
            }
            // Whoever had the lock may have finished the file or removed it.
            if !is_at(&file, &path).map_err(StoreError::file(&path))? {
                return Ok(None);
            }
            if whole.exists() {
                fs::remove_file(&path).map_err(StoreError::file(&path))?;
                return Ok(None);
            }
            Ok(Some(Part { file, path }))
        })
        .await
    }

    async fn fetch(
        &self,
        key: &str,
        part: &Part,
        sha256: Option<&str>,
        source: Result<Source, StoreError>,
    ) -> Result<(), StoreError> {
        let (bytes, mut stream) = source?;
        let (cache, file) = (self.clone(), part.file.try_clone().map_err(StoreError::file(&part.path))?);
        let path = part.path.clone();
        let file = blocking(move || {
            let _lock = cache.lock()?;
            file.set_len(0).map_err(StoreError::file(&path))?;
            cache.make_room(bytes)?;
            // Others count it at once.
            file.set_len(bytes).map_err(StoreError::file(&path))?;
            Ok(file)
        });
        let mut out = tokio::io::BufWriter::with_capacity(BUFFER, tokio::fs::File::from_std(file.await?));
        let (mut hasher, mut got) = (Sha256::new(), 0);
        while let Some(chunk) = stream.try_next().await? {
            hasher.update(&chunk);
            got += chunk.len() as u64;
            out.write_all(&chunk).await.map_err(StoreError::file(&part.path))?;
        }
        out.flush().await.map_err(StoreError::file(&part.path))?;
        let digest = hex::encode(hasher.finalize());
        if got != bytes || sha256.is_some_and(|expected| expected != digest) {
            let expected = sha256.map_or_else(|| format!("{bytes} bytes"), str::to_owned);
            return Err(StoreError::Damaged { key: key.to_owned(), got: digest, expected });
        }
        Ok(())
    }

    /// Gives a file that was fetched its name, and removes one that was not.
    async fn end(&self, part: Part, path: &Path, fetched: Result<(), StoreError>) -> Result<(), StoreError> {
        let (folder, path) = (self.folder.clone(), path.to_owned());
        blocking(move || {
            let Part { file, path: under } = part;
            let named = fetched.and_then(|()| {
                // The name is believed after every stop of the machine.
                file.sync_all().map_err(StoreError::file(&under))?;
                fs::rename(&under, &path).map_err(StoreError::file(&path))?;
                sync(&folder)
            });
            if named.is_err() {
                // Nobody else has it, and the first error is the one to report.
                let _gone = fs::remove_file(&under);
            }
            named
        })
        .await
    }

    fn lock(&self) -> Result<File, StoreError> {
        let path = self.folder.join(LOCK);
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(StoreError::file(&path))?;
        file.lock().map_err(StoreError::file(&path))?;
        Ok(file)
    }

    /// Removes files until `bytes` more have room: those first that nobody has used for longest. What is used stays; where that is too
    /// much already the cache is larger for a while, since a job needs all of its inputs.
    fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        let mut files = self.files().map_err(StoreError::file(&self.folder))?;
        let mut sum: u64 = files.iter().map(|file| file.bytes).sum();
        files.sort_by_key(|file| file.used);
        for CachedFile { path, bytes: freed, .. } in files {
            let is_part = path.to_string_lossy().ends_with(PART);
            if sum.saturating_add(bytes) <= self.most && !is_part {
                continue;
            }
            if remove_unless_used(&path).map_err(StoreError::file(&path))? {
                sum = sum.saturating_sub(freed);
            }
        }
        if sum.saturating_add(bytes) > self.most {
            let (used, most) = (sum.saturating_add(bytes), self.most);
            tracing::warn!(used, most, "the cache is larger than --cache-size: all that is in it is in use");
        }
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<CachedFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            match fs::metadata(&path) {
                Ok(found) if found.is_file() && path.file_name().is_some_and(|name| name != LOCK) => {
                    files.push(CachedFile { path, bytes: found.len(), used: found.modified()? });
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }
}

/// A file that is being fetched; its lock ends with `file`.
struct Part {
    file: File,
    path: PathBuf,
}

struct CachedFile {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// What came of looking for a file.
enum Taken {
    File(LocalFile),
    /// Somebody is just finishing or removing it.
    Busy,
    Absent,
}

/// Takes a file into use.
fn take(path: &Path) -> io::Result<Taken> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Taken::Absent),
        opened => opened?,
    };
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Taken::Busy),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if !is_at(&file, path)? {
        return Ok(Taken::Absent);
    }
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now })?;
    Ok(Taken::File(LocalFile { path: path.to_owned(), _lock: Some(file) }))
}

/// Removes a file, unless somebody uses or fetches it.
fn remove_unless_used(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if is_at(&file, path)? {
        fs::remove_file(path)?;
    }
    Ok(true)
}

/// Whether `path` still names the open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((own.dev(), own.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::stream::{self, StreamExt};

    use super::*;

    fn source(bytes: &[u8]) -> Source {
        let chunks: Vec<Result<Bytes, object_store::Error>> =
            bytes.chunks(3).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        (bytes.len() as u64, stream::iter(chunks).boxed())
    }

    fn name(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    async fn get(cache: &Cache, bytes: &[u8]) -> Result<LocalFile, StoreError> {
        let name = name(bytes);
        cache.get("k", &name, Some(&name), || async { Ok(source(bytes)) }).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_comes_first_fetches_for_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let (bytes, fetches) = (b"0123456789".as_slice(), AtomicUsize::new(0));
        let digest = name(bytes);
        // Each has the folder as another process would.
        let all = (0..8).map(|_| async {
            let cache = Cache::open(folder.path(), 1 << 20).expect("opens");
            let fetch = || async {
                fetches.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(source(bytes))
            };
            let file = cache.get("k", &digest, Some(&digest), fetch).await.expect("a file");
            fs::read(file.path()).expect("reads")
        });
        let read = futures_util::future::join_all(all).await;
        assert!(read.iter().all(|found| found == bytes));
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn the_least_recently_used_goes_and_what_is_used_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 25).expect("opens");
        let exists = |bytes: &[u8]| folder.path().join(name(bytes)).exists();
        let [a, b, c, d] = [[b'a'; 10], [b'b'; 10], [b'c'; 10], [b'd'; 10]];
        let held = get(&cache, &a).await.expect("a file");
        drop(get(&cache, &b).await.expect("a file"));
        drop(get(&cache, &c).await.expect("a file"));
        assert!(exists(&a) && !exists(&b) && exists(&c), "`a` is older, and used");
        drop(held);
        drop(get(&cache, &a).await.expect("there already"));
        drop(get(&cache, &d).await.expect("a file"));
        assert!(exists(&a) && !exists(&c) && exists(&d), "`a` was used last");
        let (_a, _d) = (get(&cache, &a).await.expect("a file"), get(&cache, &d).await.expect("a file"));
        let _b = get(&cache, &b).await.expect("a job needs all of its inputs");
        assert!(exists(&a) && exists(&b) && exists(&d));
    }

    #[tokio::test]
    async fn other_bytes_are_refused_and_what_a_killed_process_left_is_fetched_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 1 << 20).expect("opens");
        let digest = name(b"right");
        fs::write(folder.path().join(format!("{digest}{PART}")), b"half of it and more").expect("writes");
        let wrong = cache.get("k", &digest, Some(&digest), || async { Ok(source(b"wrong")) }).await;
        assert!(matches!(wrong, Err(StoreError::Damaged { .. })), "{wrong:?}");
        let files = || fs::read_dir(folder.path()).expect("reads").count();
        assert_eq!(files(), 1, "the lock alone");
        let right = get(&cache, b"right").await.expect("a file");
        assert_eq!(fs::read(right.path()).expect("reads"), b"right");
    }

    #[tokio::test]
    async fn an_upload_is_adopted_where_it_has_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(&folder.path().join("cache"), 8).expect("opens");
        for (bytes, is_kept) in [(b"small".as_slice(), true), (b"larger than all", false)] {
            let staged = folder.path().join("staged");
            fs::write(&staged, bytes).expect("writes");
            cache.adopt(&staged, &name(bytes)).await;
            assert_eq!(folder.path().join("cache").join(name(bytes)).exists(), is_kept);
        }
    }
}
