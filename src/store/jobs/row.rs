//! Rows to domain types and back; a row that the code cannot have written is an error that names it.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{EpochCheckpoint, FileId, InputRole, Job, JobInput};
use crate::domain::clock::{SteadyTime, from_millis};
use crate::domain::job::{Effort, Ended, Queued, Running, State};
use crate::store::StoreError;
use crate::store::sql::{Count, FromRow};

/// The columns that hold a [`State`].
#[derive(Debug, FromRow)]
pub(super) struct StateRow {
    pub(super) state: String,
    pub(super) attempt: Count,
    pub(super) stalled: Count,
    pub(super) ran_ms: i64,
    pub(super) worker: Option<String>,
    pub(super) claimed_at: Option<i64>,
    pub(super) lease_until: Option<i64>,
    pub(super) cancel_requested: bool,
    pub(super) finished_at: Option<i64>,
    pub(super) error: Option<String>,
    pub(super) not_before: Option<i64>,
}

impl StateRow {
    /// The columns that hold `state`.
    pub(super) fn of(state: &State) -> Self {
        let effort = state.effort();
        let running = match state {
            State::Running(running) => Some(running),
            _ => None,
        };
        Self {
            state: state.name().to_owned(),
            attempt: Count(effort.attempts),
            stalled: Count(effort.stalled),
            ran_ms: millis(effort.ran),
            worker: running.map(|running| running.worker.to_string()),
            claimed_at: running.map(|running| running.claimed.as_millis()),
            lease_until: running.map(|running| running.lease_until.as_millis()),
            cancel_requested: state.is_cancelling(),
            finished_at: state.finished().map(jiff::Timestamp::as_millisecond),
            error: match state {
                State::Failed(_, problem) => Some(json(problem)),
                _ => None,
            },
            not_before: match state {
                State::Queued(queued) => queued.not_before.map(SteadyTime::as_millis),
                _ => None,
            },
        }
    }

    /// The state of the job `id` that the columns hold.
    pub(super) fn state(self, id: &str) -> Result<State, StoreError> {
        let wrong = |detail: String| StoreError::inconsistent("jobs", id, detail);
        let missing = |column: &str| wrong(format!("a job that is {} has no {column}", self.state));
        let effort = Effort { attempts: self.attempt.0, stalled: self.stalled.0, ran: duration(self.ran_ms) };
        let ended = || {
            let finished = from_millis(self.finished_at.ok_or_else(|| missing("finished_at"))?);
            Ok::<_, StoreError>(Ended { effort, finished })
        };
        Ok(match self.state.as_str() {
            "queued" => State::Queued(Queued { effort, not_before: self.not_before.map(SteadyTime::from_millis) }),
            "running" => State::Running(Running {
                effort,
                worker: parsed(id, self.worker.as_ref().ok_or_else(|| missing("worker"))?)?,
                claimed: SteadyTime::from_millis(self.claimed_at.ok_or_else(|| missing("claimed_at"))?),
                lease_until: SteadyTime::from_millis(self.lease_until.ok_or_else(|| missing("lease_until"))?),
                cancel_requested: self.cancel_requested,
            }),
            "succeeded" => State::Succeeded(ended()?),
            "failed" => State::Failed(ended()?, from_json(id, self.error.as_ref().ok_or_else(|| missing("error"))?)?),
            "cancelled" => State::Cancelled(ended()?),
            other => return Err(wrong(format!("unknown state {other:?}"))),
        })
    }
}

/// The columns that hold a [`Job`].
#[derive(Debug, FromRow)]
pub(super) struct JobRow {
    id: String,
    tenant: String,
    resolved: String,
    plan: String,
    labels: String,
    max_runtime_ms: i64,
    retry_of: Option<String>,
    owner: Option<String>,
    created_at: i64,
    started_at: Option<i64>,
    phases: String,
    progress: Option<String>,
    checkpoint_key: Option<String>,
    checkpoint_epoch: Option<i64>,
    #[sqlx(flatten)]
    state: StateRow,
}

impl TryFrom<JobRow> for Job {
    type Error = StoreError;

    fn try_from(row: JobRow) -> Result<Self, StoreError> {
        let id = row.id.as_str();
        Ok(Self {
            id: parsed(id, id)?,
            tenant: parsed(id, &row.tenant)?,
            names: from_json(id, &row.resolved)?,
            resolved: from_json(id, &row.resolved)?,
            plan: from_json(id, &row.plan)?,
            labels: from_json(id, &row.labels)?,
            max_runtime: duration(row.max_runtime_ms),
            owner: row.owner,
            retry_of: row.retry_of.as_deref().map(|other| parsed(id, other)).transpose()?,
            created: from_millis(row.created_at),
            started: row.started_at.map(from_millis),
            phases: from_json(id, &row.phases)?,
            progress: row.progress.as_deref().map(|text| from_json(id, text)).transpose()?,
            checkpoint: checkpoint(row.checkpoint_key, row.checkpoint_epoch),
            state: row.state.state(id)?,
        })
    }
}

/// The columns that hold a [`JobInput`].
#[derive(Debug, FromRow, Deserialize)]
pub(super) struct InputRow {
    pub(super) role: String,
    pub(super) position: Count,
    pub(super) name: String,
    pub(super) sha256: String,
    pub(super) checkpoint_id: Option<String>,
    pub(super) dataset_id: Option<String>,
}

impl InputRow {
    /// The columns that hold `input`.
    pub(super) fn of(input: &JobInput) -> Self {
        let (role, position) = match input.role {
            InputRole::Member(index) => ("member", index),
            InputRole::Dataset => ("dataset", 0),
            InputRole::Validation => ("validation", 0),
            InputRole::Test => ("test", 0),
            InputRole::Reference => ("reference", 0),
        };
        let (checkpoint_id, dataset_id) = match input.file {
            Some(FileId::Checkpoint(id)) => (Some(id.to_string()), None),
            Some(FileId::Dataset(id)) => (None, Some(id.to_string())),
            None => (None, None),
        };
        let (name, sha256) = (input.name.clone(), input.sha256.clone());
        Self { role: role.to_owned(), position: Count(position), name, sha256, checkpoint_id, dataset_id }
    }

    /// The input of the job `id` that the columns hold.
    pub(super) fn input(self, id: &str) -> Result<JobInput, StoreError> {
        let role = match self.role.as_str() {
            "member" => InputRole::Member(self.position.0),
            "dataset" => InputRole::Dataset,
            "validation" => InputRole::Validation,
            "test" => InputRole::Test,
            "reference" => InputRole::Reference,
            other => return Err(StoreError::inconsistent("job_inputs", id, format!("unknown role {other:?}"))),
        };
        let file = match (self.checkpoint_id, self.dataset_id) {
            (Some(file), None) => Some(FileId::Checkpoint(parsed(id, &file)?)),
            (None, Some(file)) => Some(FileId::Dataset(parsed(id, &file)?)),
            _ => None,
        };
        Ok(JobInput { role, file, name: self.name, sha256: self.sha256 })
    }
}

/// The checkpoint in the two columns that are null together.
pub(super) fn checkpoint(key: Option<String>, epoch: Option<i64>) -> Option<EpochCheckpoint> {
    let epoch = epoch.and_then(|epoch| u32::try_from(epoch).ok());
    key.zip(epoch).map(|(key, epoch)| EpochCheckpoint { epoch, key })
}

/// Text in a row of the job `id` as what it stands for.
pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(id: &str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|error| StoreError::inconsistent("jobs", id, error))
}

/// JSON in a row of the job `id` as what it stands for.
pub(super) fn from_json<T: DeserializeOwned>(id: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::inconsistent("jobs", id, error))
}

/// Plain data as JSON text.
pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::json!(value).to_string()
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}
