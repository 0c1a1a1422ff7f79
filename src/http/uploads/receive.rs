//! Moves a body into a staging file, in batches: while one is written and hashed, the next one arrives.

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::incoming::Incoming;
use super::refusal::{disk_full, intake_problem};
use crate::domain::problem::{Code, Problem};
use crate::http::state::AppState;
use crate::store::StoreError;
use crate::store::files::Kind;
use crate::store::intake::{Intake, IntakeError};
use crate::store::staging::{Held, free_bytes};
use crate::store::uploads::Upload;

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
    /// What the file is.
    pub(super) kind: Kind,
}

/// Reads the whole body into `intake`, which goes on with `upload`.
pub(super) async fn receive(
    state: &AppState,
    upload: &Upload,
    incoming: &mut Incoming,
    intake: Intake,
    bounds: Bounds,
) -> Result<End, StoreError> {
    let begun_at = intake.length();
    let mut writer = Writer { state, upload, acknowledged: begun_at, work: Work::Idle(intake) };
    let mut batch = Vec::new();
    let (mut batched, mut received) = (0, 0);
    let stopped = loop {
        let bytes = match incoming.next().await {
            None => break None,
            Some(Err(problem)) => break Some(problem),
            Some(Ok(bytes)) => bytes,
        };
        received += bytes.len() as u64;
        state.metrics.uploaded(bounds.kind, bytes.len() as u64);
        batched += bytes.len();
        if let Some(problem) = out_of_bounds(begun_at, received, bounds) {
            writer.rest().await;
            return Ok(End::Unusable(problem));
        }
        batch.push(bytes);
        if batched >= BATCH {
            batched = 0;
            if let Err(end) = writer.write(std::mem::take(&mut batch)).await? {
                return Ok(end);
            }
        }
    };
    if let Err(end) = writer.write(batch).await? {
        return Ok(end);
    }
    let missing = bounds.length.filter(|&length| received < length && stopped.is_none());
    let missing =
        missing.map(|length| Problem::new(Code::BadRequest, format!("The body has {received} of {length} bytes.")));
    writer.end(stopped.or(missing)).await
}

fn out_of_bounds(begun_at: u64, received: u64, bounds: Bounds) -> Option<Problem> {
    if begun_at + received > bounds.limit {
        return Some(Problem::new(Code::TooLarge, format!("The file is larger than {} bytes.", bounds.limit)));
    }
    let length = bounds.length.filter(|&length| received > length)?;
    Some(Problem::new(Code::BadRequest, format!("The body is longer than the {length} bytes it announced.")))
}

/// At most one batch is being written at any time.
struct Writer<'a> {
    state: &'a AppState,
    upload: &'a Upload,
    acknowledged: u64,
    work: Work,
}

enum Work {
    Idle(Intake),
    Busy(JoinHandle<(Intake, Result<(), IntakeError>)>),
    Lost,
}

impl Writer<'_> {
    /// Waits for the batch before, then begins to write this one. The inner error ends the upload.
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<Result<(), End>, StoreError> {
        let mut intake = match self.idle().await? {
            Ok(intake) => intake,
            Err(end) => return Ok(Err(end)),
        };
        if intake.synced() > self.acknowledged {
            self.acknowledge(intake.synced()).await?;
            if free_bytes(&self.state.settings.storage.data_dir)? < self.state.settings.storage.keep_free.0 {
                return Ok(Err(End::Cut(disk_full())));
            }
        }
        self.work = Work::Busy(tokio::task::spawn_blocking(move || {
            let result = intake.append(&batch);
            (intake, result)
        }));
        Ok(Ok(()))
    }

    /// Waits for the batch that is being written.
    async fn idle(&mut self) -> Result<Result<Intake, End>, StoreError> {
        let lost = |error: String| StoreError::file("staging file")(std::io::Error::other(error));
        let (intake, result) = match std::mem::replace(&mut self.work, Work::Lost) {
            Work::Idle(intake) => return Ok(Ok(intake)),
            Work::Busy(handle) => handle.await.map_err(|error| lost(error.to_string()))?,
            Work::Lost => return Err(lost("written to after it ended".to_owned())),
        };
        match result {
            Ok(()) => Ok(Ok(intake)),
            Err(error @ IntakeError::Format(_)) => Ok(Err(End::Unusable(intake_problem(&error)))),
            Err(error) => self.keep(intake, intake_problem(&error)).await.map(Err),
        }
    }

    /// Waits until nothing is written any more, whatever comes of it.
    async fn rest(&mut self) {
        if let Work::Busy(handle) = std::mem::replace(&mut self.work, Work::Lost) {
            // The upload is refused already; a failure to write it changes nothing.
            let _ = handle.await;
        }
    }

    async fn end(mut self, stopped: Option<Problem>) -> Result<End, StoreError> {
        match (self.idle().await?, stopped) {
            (Err(end), _) => Ok(end),
            (Ok(intake), None) => Ok(End::Complete(intake)),
            (Ok(intake), Some(problem)) => self.keep(intake, problem).await,
        }
    }

    /// Syncs what arrived, so that the upload can be resumed.
    async fn keep(&mut self, mut intake: Intake, problem: Problem) -> Result<End, StoreError> {
        let synced = tokio::task::spawn_blocking(move || {
            // If even that fails, what was acknowledged before still stands.
            let _ = intake.sync();
            intake.synced()
        });
        if let Ok(synced) = synced.await {
            self.acknowledge(synced).await?;
        }
        Ok(End::Cut(problem))
    }

    async fn acknowledge(&mut self, synced: u64) -> Result<(), StoreError> {
        self.acknowledged = synced;
        self.state.staging.uploads().acknowledge(self.upload.id, synced, self.upload.total).await
    }
}

/// Opens the staging file at the offset where the upload goes on, reading what is there again.
pub(super) async fn reopen(held: Held, gate: crate::store::intake::Gate) -> Result<(Upload, Intake), Problem> {
    let Held { upload, file } = held;
    let offset = upload.acknowledged;
    let opened = tokio::task::spawn_blocking(move || Intake::resume(file, offset, gate)).await;
    match opened {
        Ok(Ok(intake)) => Ok((upload, intake)),
        Ok(Err(error)) => Err(intake_problem(&error)),
        Err(error) => Err(Problem::new(Code::Internal, format!("The upload could not be read again: {error}"))),
    }
}
