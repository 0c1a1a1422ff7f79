//! Fused models in other formats, made when somebody asks for them. The latest are kept for a while, so that a download can be resumed.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{OnceCell, Semaphore};

use super::soundness::damaged;
use crate::domain::clock::SharedClock;
use crate::domain::problem::{Code, Problem};
use crate::export::{self, ExportFormat, ExportOptions, Packing};
use crate::model::formats::digest::sha256;
use crate::store::disk::free_bytes;

/// Bytes that are read at once.
const BLOCK: usize = 256 << 10;
/// Files that are made at the same time.
const AT_ONCE: usize = 2;
/// Files that are kept, and for how long after they were asked for.
const KEPT: usize = 8;
const KEPT_FOR: Duration = Duration::from_mins(10);

/// What a file is made of; the same source gives the same bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportSource {
    /// The fused model.
    pub model: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its digest, in hexadecimal.
    pub sha256: String,
    /// Its network as JSON, where it is known.
    pub architecture: Option<PathBuf>,
    /// The format that is wanted.
    pub format: ExportFormat,
    /// What else the file says.
    pub options: ExportOptions,
}

/// A file that has been made. It has no name: its bytes go with the last who holds it.
#[derive(Debug)]
pub struct ExportedFile {
    /// The file.
    pub file: File,
    /// How it is packed.
    pub packing: Packing,
    /// Its length.
    pub bytes: u64,
    /// Its digest, in hexadecimal.
    pub sha256: String,
}

impl ExportedFile {
    /// The bytes of `range`, block by block.
    pub fn read(self: Arc<Self>, range: Range<u64>) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        futures_util::stream::try_unfold((self, range), |(made, range)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let length = usize::try_from(range.end - range.start).unwrap_or(BLOCK).min(BLOCK);
            let read = tokio::task::spawn_blocking(move || {
                let mut block = vec![0; length];
                made.file.read_exact_at(&mut block, range.start).map(|()| (made, block))
            });
            let (made, block) = read.await.map_err(std::io::Error::other)??;
            Ok(Some((Bytes::from(block), (made, range.start + length as u64..range.end))))
        })
    }
}

/// A file that is made once for all who ask for it.
#[derive(Debug)]
struct Entry {
    source: ExportSource,
    asked_ms: i64,
    made: Arc<OnceCell<Arc<ExportedFile>>>,
}

/// Models in other formats.
#[derive(Debug)]
pub struct Exports {
    folder: PathBuf,
    keep_free: u64,
    clock: SharedClock,
    places: Semaphore,
    /// The latest asked for last.
    kept: Mutex<Vec<Entry>>,
}

impl Exports {
    /// Files below the data directory `folder`, of whose disk `keep_free` bytes stay free.
    #[must_use]
    pub fn new(folder: &Path, keep_free: u64, clock: SharedClock) -> Self {
        let kept = Mutex::default();
        Self { folder: folder.join("scratch"), keep_free, clock, places: Semaphore::new(AT_ONCE), kept }
    }

    /// The model in another format.
    ///
    /// # Errors
    /// Where the format cannot hold it, or the disk has no room.
    pub async fn get(&self, source: ExportSource) -> Result<Arc<ExportedFile>, Problem> {
        let made = self.entry(&source);
        let file = made
            .get_or_try_init(|| async {
                let _place = self.places.acquire().await.map_err(|_| Problem::new(Code::Internal, "closed"))?;
                std::fs::create_dir_all(&self.folder).map_err(|error| failed(&error))?;
                // A file in another format is hardly longer than the model.
                if free_bytes(&self.folder)? < source.bytes.saturating_mul(2).saturating_add(self.keep_free) {
                    return Err(Problem::new(
                        Code::DiskFull,
                        "The server's disk has no room for the model in another format.",
                    ));
                }
                let folder = self.folder.clone();
                let made = tokio::task::spawn_blocking(move || make(&source, &folder)).await;
                made.map_err(|error| Problem::new(Code::Internal, format!("Making the file failed: {error}")))?
                    .map(Arc::new)
            })
            .await?;
        Ok(Arc::clone(file))
    }

    /// Forgets files that nobody has asked for in the last minutes.
    pub fn forget(&self) {
        let oldest = self.clock.now().as_millisecond() - KEPT_FOR.as_millis() as i64;
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|entry| entry.asked_ms > oldest);
    }

    fn entry(&self, source: &ExportSource) -> Arc<OnceCell<Arc<ExportedFile>>> {
        self.forget();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|entry| entry.source == *source);
        let made = place.map(|place| kept.remove(place).made).unwrap_or_default();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        let asked_ms = self.clock.now().as_millisecond();
        kept.push(Entry { source: source.clone(), asked_ms, made: Arc::clone(&made) });
        made
    }
}

/// Writes the file and hashes it. The model is compared with its digest each time, and so read before it is mapped: a disk that fails says
/// so to a read, but ends the process that meets it in a map.
fn make(source: &ExportSource, folder: &Path) -> Result<ExportedFile, Problem> {
    let model = File::open(&source.model).and_then(sha256).map_err(|error| failed(&error))?;
    if model != source.sha256 {
        tracing::error!(file = %source.model.display(), "a stored file has other bytes than when it was stored");
        return Err(damaged());
    }
    let file = tempfile::tempfile_in(folder).map_err(|error| failed(&error))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let packing =
        export::convert(&source.model, source.architecture.as_deref(), source.format, &source.options, &mut out)?;
    out.flush().map_err(|error| failed(&error))?;
    let mut file = out.into_inner().map_err(|error| failed(error.error()))?;
    let bytes = file.seek(SeekFrom::End(0)).map_err(|error| failed(&error))?;
    file.seek(SeekFrom::Start(0)).map_err(|error| failed(&error))?;
    let sha256 = sha256(&file).map_err(|error| failed(&error))?;
    Ok(ExportedFile { file, packing, bytes, sha256 })
}

fn failed(error: &std::io::Error) -> Problem {
    Problem::new(Code::of_system(error), format!("The model could not be written in another format: {error}."))
}
