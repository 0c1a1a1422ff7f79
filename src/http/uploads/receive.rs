//! Moves a body into a staging file, in batches: while one is written and hashed, the next one arrives. A batch never waits
//! for more bytes, so that a bad header is seen as soon as it is there, and it is as large as the disk is slow.

use bytes::Bytes;
use tokio::task::{JoinError, JoinHandle};

use super::incoming::Incoming;
use super::refusal::{disk_full, intake_problem, superseded};
use crate::domain::problem::{Code, Problem};
use crate::http::state::AppState;
use crate::store::StoreError;
use crate::store::files::Kind;
use crate::store::intake::{Gate, Intake, IntakeError};
use crate::store::multipart::MultipartUpload;
use crate::store::staging::Held;
use crate::store::uploads::Upload;

/// Bytes that wait at most while others are written.
const BATCH: usize = 1 << 20;

/// How receiving ended.
pub(super) enum End {
    /// The body is complete.
    Complete(Intake),
    /// It stopped; what arrived is on disk and can be resumed.
    Cut(Problem),
    /// Its content cannot be used.
    Unusable(Problem),
}

/// What the body may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Length of this body, if it was announced.
    pub(super) length: Option<u64>,
    /// Largest file, in bytes.
    pub(super) limit: u64,
    /// Bytes that its tenant may still have.
    pub(super) room: Option<u64>,
    /// What the file is.
    pub(super) kind: Kind,
    /// Whether nothing of this body counts unless all of it arrives.
    pub(super) is_indivisible: bool,
}

/// Reads the whole body into `intake`, which goes on with `upload`; what arrives goes on to `multipart`, where uploads go to a bucket.
pub(super) async fn receive(
    state: &AppState,
    upload: &Upload,
    incoming: &mut Incoming,
    intake: Intake,
    multipart: Option<&mut MultipartUpload>,
    bounds: Bounds,
) -> Result<End, StoreError> {
    let begun_at = intake.length();
    let mut writer = Writer {
        state,
        upload,
        multipart,
        acknowledged: begun_at,
        is_indivisible: bounds.is_indivisible,
        work: Work::Idle(intake),
    };
    let mut batch = Batch::default();
    let mut received = 0;
    let stopped = loop {
        writer.start(&mut batch);
        let next = tokio::select! {
            biased;
            written = writer.written() => {
                if let Some(end) = writer.settle(written).await? {
                    return Ok(end);
                }
                continue;
            }
            next = incoming.next(), if batch.bytes < BATCH => next,
        };
        let bytes = match next {
            None => break None,
            Some(Err(problem)) => break Some(problem),
            Some(Ok(bytes)) => bytes,
        };
        received += bytes.len() as u64;
        state.metrics.uploaded(bounds.kind, bytes.len() as u64);
        if let Some(problem) = out_of_bounds(begun_at, received, bounds) {
            writer.written_if_busy().await;
            return Ok(End::Unusable(problem));
        }
        batch.push(bytes);
    };
    while writer.is_busy() || batch.bytes > 0 {
        writer.start(&mut batch);
        let written = writer.written().await;
        if let Some(end) = writer.settle(written).await? {
            return Ok(end);
        }
    }
    let missing = bounds.length.filter(|&length| received < length && stopped.is_none());
    let missing =
        missing.map(|length| Problem::new(Code::BadRequest, format!("The body has {received} of {length} bytes.")));
    writer.end(stopped.or(missing)).await
}

/// Bytes that wait to be written.
#[derive(Default)]
struct Batch {
    parts: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.parts.push(bytes);
    }
}

fn out_of_bounds(begun_at: u64, received: u64, bounds: Bounds) -> Option<Problem> {
    if begun_at + received > bounds.limit {
        return Some(Problem::new(Code::TooLarge, format!("The file is larger than {} bytes.", bounds.limit)));
    }
    if let Some(room) = bounds.room.filter(|room| begun_at + received > *room) {
        let detail = format!(
            "The tenant may have {room} more bytes, and the file is larger. Delete what is not needed any more."
        );
        return Some(Problem::new(Code::QuotaExceeded, detail));
    }
    let length = bounds.length.filter(|&length| received > length)?;
    Some(Problem::new(Code::BadRequest, format!("The body is longer than the {length} bytes it announced.")))
}

/// At most one batch is being written at any time.
struct Writer<'a> {
    state: &'a AppState,
    upload: &'a Upload,
    multipart: Option<&'a mut MultipartUpload>,
    acknowledged: u64,
    is_indivisible: bool,
    work: Work,
}

type Written = (Intake, Result<(), IntakeError>);

enum Work {
    Idle(Intake),
    Busy(JoinHandle<Written>),
    Lost,
}

impl Writer<'_> {
    fn is_busy(&self) -> bool {
        matches!(self.work, Work::Busy(_))
    }

    /// Begins to write what waits, unless a batch is being written already.
    fn start(&mut self, batch: &mut Batch) {
        if self.is_busy() || batch.bytes == 0 {
            return;
        }
        if let Work::Idle(mut intake) = std::mem::replace(&mut self.work, Work::Lost) {
            let parts = std::mem::take(batch).parts;
            self.work = Work::Busy(tokio::task::spawn_blocking(move || {
                let result = intake.append(&parts);
                (intake, result)
            }));
        }
    }

    /// Waits for the batch that is being written; for ever if there is none. May be abandoned and called again.
    async fn written(&mut self) -> Result<Written, JoinError> {
        match &mut self.work {
            Work::Busy(handle) => handle.await,
            Work::Idle(_) | Work::Lost => std::future::pending().await,
        }
    }

    /// Waits until nothing is written any more, whatever comes of it.
    async fn written_if_busy(&mut self) {
        if self.is_busy() {
            // The upload is refused already; a failure to write it changes nothing.
            let _ = self.written().await;
        }
    }

    /// Acknowledges what a written batch has brought to the disk, or returns how the upload ends because of it.
    async fn settle(&mut self, written: Result<Written, JoinError>) -> Result<Option<End>, StoreError> {
        self.work = Work::Lost;
        let (intake, result) = written.map_err(|error| lost(&error.to_string()))?;
        match result {
            Ok(()) => {}
            Err(error @ IntakeError::Format(_)) => return Ok(Some(End::Unusable(intake_problem(&error)))),
            Err(error) => return self.keep(intake, intake_problem(&error)).await.map(Some),
        }
        if intake.synced() > self.acknowledged {
            if !self.acknowledge(intake.synced(), false).await? {
                return Ok(Some(End::Cut(superseded())));
            }
            let storage = &self.state.settings.storage;
            if self.state.blobs.room(&storage.data_dir)? < storage.keep_free.0 {
                return Ok(Some(End::Cut(disk_full())));
            }
        }
        self.work = Work::Idle(intake);
        Ok(None)
    }

    async fn end(mut self, stopped: Option<Problem>) -> Result<End, StoreError> {
        match (std::mem::replace(&mut self.work, Work::Lost), stopped) {
            (Work::Idle(intake), None) => Ok(End::Complete(intake)),
            (Work::Idle(intake), Some(problem)) => self.keep(intake, problem).await,
            _ => Err(lost("ended while it was written")),
        }
    }

    /// Syncs what arrived, so that the upload can be resumed.
    async fn keep(&mut self, mut intake: Intake, problem: Problem) -> Result<End, StoreError> {
        let synced = tokio::task::spawn_blocking(move || {
            // If even that fails, what was acknowledged before still stands.
            let _ = intake.sync();
            intake.synced()
        });
        if let Ok(synced) = synced.await
            && !self.acknowledge(synced, true).await?
        {
            return Ok(End::Cut(superseded()));
        }
        Ok(End::Cut(problem))
    }

    /// Acknowledges what has been synced; in a bucket all of it where the request ends with that, else whole parts. False where another
    /// request goes on with the upload.
    async fn acknowledge(&mut self, synced: u64, is_end: bool) -> Result<bool, StoreError> {
        self.acknowledged = synced;
        if self.is_indivisible {
            return Ok(true);
        }
        match &mut self.multipart {
            Some(multipart) if is_end => multipart.keep(synced).await,
            Some(multipart) => multipart.send(synced).await,
            None => {
                self.state.staging.uploads().acknowledge(self.upload.id, synced, self.upload.total).await?;
                Ok(true)
            }
        }
    }
}

fn lost(detail: &str) -> StoreError {
    StoreError::file("staging file")(std::io::Error::other(detail.to_owned()))
}

/// Opens the staging file at the offset where the upload goes on, reading what is there again. Where uploads go to a bucket the file is
/// made to have what can be had of it; the file has `largest` bytes at most.
pub(super) async fn reopen(
    state: &AppState,
    held: Held,
    kind: Kind,
    largest: u64,
) -> Result<(Upload, Intake, Option<MultipartUpload>), Problem> {
    let Held { upload, file } = held;
    let offset = upload.acknowledged;
    let multipart = match state.staging.multipart() {
        None => None,
        Some(all) => {
            let file = file.try_clone().map_err(|error| intake_problem(&error.into()))?;
            Some(all.open(&upload, kind, file, largest).await?)
        }
    };
    let (front, part) = multipart.as_ref().map_or((0, None), |upload| (upload.front(), Some(upload.part())));
    let gate = gate(kind, upload.total);
    let opened = tokio::task::spawn_blocking(move || {
        let intake = if front > 0 { Intake::behind(file, front, offset) } else { Intake::resume(file, offset, gate) };
        Ok(match part {
            Some(part) => intake?.syncing_every(part),
            None => intake?,
        })
    });
    match opened.await {
        Ok(Ok(intake)) => Ok((upload, intake, multipart)),
        Ok(Err(error)) => Err(intake_problem(&error)),
        Err(error) => Err(Problem::new(Code::Internal, format!("The upload could not be read again: {error}"))),
    }
}

/// What looks at the front of a file.
pub(super) fn gate(kind: Kind, total: Option<u64>) -> Gate {
    match kind {
        Kind::Checkpoint => Gate::checkpoint(total),
        Kind::Dataset => Gate::Open,
    }
}
