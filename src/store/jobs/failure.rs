//! Points in the transactions of jobs at which a test makes the storage fail.

use std::sync::{Arc, Mutex};

use crate::store::StoreError;

/// A point within a transaction, or right behind its commit: the caller does not learn then that it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailurePoint {
    /// A new job is written with its inputs and its first event.
    InsertBeforeCommit,
    InsertAfterCommit,
    /// A repeated job is written, and has taken the place of the first one.
    RetryBeforeCommit,
    /// Lapsed jobs are queued again; none has been claimed yet.
    ClaimAfterSettling,
    /// The claimed job is updated.
    ClaimBeforeCommit,
    ClaimAfterCommit,
    /// The lease is renewed.
    RenewBeforeCommit,
    /// The phase is written, and its event.
    EnterPhaseBeforeCommit,
    /// The progress is replaced.
    ReportProgressBeforeCommit,
    /// The epoch's metrics are written, and their event if they are the first ones of the epoch.
    AddMetricsBeforeCommit,
    AddMetricsAfterCommit,
    /// The plan is replaced.
    ReplacePlanBeforeCommit,
    /// Every line is written.
    LogBeforeCommit,
    /// The job refers to the new checkpoint.
    SaveCheckpointBeforeCommit,
    /// The artifacts are written; the job is still running.
    PublishBeforeState,
    /// The artifacts are written, and the state.
    PublishBeforeCommit,
    PublishAfterCommit,
    /// The attempt has ended without a result.
    LeaveBeforeCommit,
    /// The job has ended before it was claimed, or its end is requested.
    CancelBeforeCommit,
    CancelAfterCommit,
    /// The job is gone with its history; its blobs are still there.
    DeleteBeforeCommit,
    DeleteAfterCommit,
}

/// The points that fail, each once; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures(Arc<Mutex<Vec<FailurePoint>>>);

impl Failures {
    /// Lets the storage fail when `point` is next reached.
    pub(super) fn arm(&self, point: FailurePoint) {
        self.0.lock().expect("no panic").push(point);
    }

    /// Whether every point has failed that was armed.
    pub(super) fn all_met(&self) -> bool {
        self.0.lock().expect("no panic").is_empty()
    }

    /// Fails if `point` is armed.
    pub(super) fn pass(&self, point: FailurePoint) -> Result<(), StoreError> {
        let mut armed = self.0.lock().expect("no panic");
        let Some(index) = armed.iter().position(|one| *one == point) else { return Ok(()) };
        armed.remove(index);
        Err(sqlx::Error::Io(std::io::Error::other(format!("{point:?}"))).into())
    }
}
