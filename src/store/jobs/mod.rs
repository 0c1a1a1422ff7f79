//! Jobs: their rows, and every change of their state.
//!
//! Whoever changes a job reads its state in the transaction that writes it, and each write for a running job says
//! which attempt it comes from; see [`crate::domain::job`] for the rules. Each transition appends to the job's events
//! in the same transaction.

mod attempt;
mod claim;
mod ended;
mod events;
#[cfg(test)]
mod failure;
mod insert;
mod positions;
mod query;
mod queue;
mod report;
mod row;
mod sweep;
#[cfg(test)]
mod tests;
mod transition;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::database::{Extent, WriteTransaction};
use super::steady::Steady;
use super::{Database, StoreError};
use crate::domain::access::Tenant;
use crate::domain::clock::{Moment, SharedClock};
use crate::domain::id::{CheckpointId, DatasetId, JobId, WorkerId};
use crate::domain::job::{State, TransitionError};
use crate::domain::problem::{Code, Problem};
use crate::domain::progress::{Phase, Progress};
use crate::domain::quota::Quota;
use crate::settings::Device;

pub use attempt::{Artifact, Heartbeat};
pub use claim::{Claim, Claimant, ClaimedInput};
pub use events::{Event, EventKind};
pub use insert::RetryFrom;
pub(super) use insert::{JobOrigin, once};
pub use report::LogLine;
pub(super) use sweep::remove;

/// The tables of jobs; clones share the database.
#[derive(Debug, Clone)]
pub struct Jobs {
    database: Database,
    clock: SharedClock,
    steady: Steady,
    /// What tenants may take that have no limits of their own.
    quota: Quota,
    positions: positions::Positions,
    #[cfg(test)]
    failures: failure::Failures,
}

/// Why an operation on a job did not happen.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The job's state does not allow it.
    #[error(transparent)]
    Transition(#[from] TransitionError),
    /// There is no such job, or it is another tenant's.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// Files that the job would read are gone.
    #[error("these inputs of the job have been deleted: {}", .0.join(", "))]
    InputsGone(Vec<String>),
    /// The tenant has as much as it may have.
    #[error("{}", .0.detail)]
    Limited(Problem),
    /// The Idempotency-Key has queued a job for another request.
    #[error("the Idempotency-Key belongs to another request")]
    KeyReused,
}

impl JobError {
    /// What it comes to for the caller.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::NotFound(_) => Code::NotFound,
            Self::KeyReused => Code::IdempotencyKeyReused,
            Self::InputsGone(_) => Code::InvalidRequest,
            Self::Limited(problem) => problem.code,
            Self::Transition(TransitionError::StillActive(_)) => Code::JobActive,
            Self::Transition(TransitionError::FenceLost { .. }) => Code::Internal,
        }
    }
}

impl From<sqlx::Error> for JobError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        let code = error.code();
        let detail = match error {
            JobError::Store(error) => return error.into(),
            JobError::Limited(problem) => return problem,
            JobError::NotFound(id) => format!("There is no job `{id}`; GET /v1/jobs lists them."),
            JobError::KeyReused => "Use a new key for a different request; keys are remembered for 24 h.".to_owned(),
            JobError::InputsGone(_) => format!("It cannot run again: {error}."),
            JobError::Transition(TransitionError::StillActive(_)) => format!("Not now: {error}."),
            JobError::Transition(TransitionError::FenceLost { .. }) => error.to_string(),
        };
        Self::new(code, detail)
    }
}

/// A job to be queued.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Whose it is.
    pub tenant: Tenant,
    /// Who queues it, as the key that is used says; none without one.
    pub owner: Option<String>,
    /// The request with every default filled in, in its JSON form.
    pub resolved: Value,
    /// The plan, in its JSON form.
    pub plan: Value,
    /// The client's own labels.
    pub labels: BTreeMap<String, String>,
    /// Where it wants to run.
    pub device: Device,
    /// Time it may run, over all attempts.
    pub max_runtime: Duration,
    /// From -10 to 10: among the jobs of its tenant a higher one comes first.
    pub priority: i8,
    /// The files it reads.
    pub inputs: Vec<JobInput>,
}

/// A file that a job reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobInput {
    /// What for.
    pub role: InputRole,
    /// The file; `None` once it has been deleted.
    pub file: Option<FileId>,
    /// The name that its owner knows it by.
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// What a job reads a file for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InputRole {
    /// The member with this index.
    Member(u32),
    /// To train with.
    Dataset,
    /// To choose the best epoch with.
    Validation,
    /// To measure with.
    Test,
    /// To prove what network the members are.
    Reference,
}

/// An uploaded file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileId {
    /// A checkpoint.
    Checkpoint(CheckpointId),
    /// A dataset.
    Dataset(DatasetId),
}

/// A stored job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where it stands.
    pub state: State,
    /// The request with every default filled in, in its JSON form.
    pub resolved: Box<RawValue>,
    /// What the request names.
    pub names: JobNames,
    /// The plan, in its JSON form.
    pub plan: Box<RawValue>,
    /// The client's own labels.
    pub labels: BTreeMap<String, String>,
    /// Time it may run, over all attempts.
    pub max_runtime: Duration,
    /// The job that this one repeats.
    pub retry_of: Option<JobId>,
    /// Who queued it, as the key that was used says.
    pub owner: Option<String>,
    /// When it was queued first.
    pub created: Timestamp,
    /// When its first attempt began.
    pub started: Option<Timestamp>,
    /// The phases of the latest attempt.
    pub phases: Vec<PhaseSpan>,
    /// How far the latest attempt has come.
    pub progress: Option<Progress>,
    /// From where another attempt would go on.
    pub checkpoint: Option<EpochCheckpoint>,
}

/// What a request for a job names, for lists.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct JobNames {
    /// The job's own name.
    pub name: Option<String>,
    /// The members, in its order.
    #[serde(default)]
    pub members: Vec<String>,
    /// The dataset.
    pub dataset: Option<NamedDataset>,
}

/// A dataset by its name.
#[derive(Debug, Clone, Deserialize)]
pub struct NamedDataset {
    /// The name or the id that the request has for it.
    pub name: String,
}

/// A stored job with its files.
#[derive(Debug, Clone)]
pub struct WholeJob {
    /// The job.
    pub job: Job,
    /// The files that it reads, members first.
    pub inputs: Vec<JobInput>,
    /// Its results, by name; none before it has succeeded.
    pub artifacts: Vec<Artifact>,
}

/// When a phase began and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseSpan {
    /// The phase.
    pub name: Phase,
    /// When it began.
    pub started: Timestamp,
    /// When the next one began, or the attempt ended.
    pub ended: Option<Timestamp>,
}

/// A job that somebody runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningJob {
    /// The job.
    pub job: JobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Who runs it.
    pub worker: WorkerId,
}

/// What a waiting client watches.
#[derive(Debug, Clone, PartialEq)]
pub struct Glimpse {
    /// The state's name, as it is shown.
    pub state: String,
    /// Whether the job never changes again.
    pub ended: bool,
    /// How far the latest attempt has come, as [`Progress`] writes it.
    pub progress: Option<Value>,
}

/// The blob from which another attempt can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochCheckpoint {
    /// Finished epochs.
    pub epoch: u32,
    /// Key of the blob.
    pub key: String,
}

impl Jobs {
    /// The jobs in `database`.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock) -> Self {
        Self {
            steady: Steady::new(database.clone(), clock.clone()),
            database,
            clock,
            quota: Quota::default(),
            positions: positions::Positions::default(),
            #[cfg(test)]
            failures: failure::Failures::default(),
        }
    }

    /// The same jobs where tenants without limits of their own may take so much.
    #[must_use]
    pub fn with_quota(self, quota: Quota) -> Self {
        Self { quota, ..self }
    }

    /// A transaction that may write, and the time at which it began.
    async fn begin(&self) -> Result<(WriteTransaction, Moment), StoreError> {
        self.begin_with(Extent::Everything).await
    }

    /// A transaction for what a running attempt writes of its own job, beside those of others, and the time at which it began.
    async fn begin_for_one(&self) -> Result<(WriteTransaction, Moment), StoreError> {
        self.begin_with(Extent::OneJob).await
    }

    async fn begin_with(&self, extent: Extent) -> Result<(WriteTransaction, Moment), StoreError> {
        self.steady.prepare().await?;
        let transaction = self.database.write_to(extent).await?;
        let moment = self.steady.moment(&transaction).await?;
        Ok((transaction, moment))
    }
}
