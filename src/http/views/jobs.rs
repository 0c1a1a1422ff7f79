//! Jobs as they are shown.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::problem::ProblemView;
use super::time;
use crate::domain::job::State;
use crate::domain::progress::{EpochMetrics, Phase, Progress};
use crate::plan::Plan;
use crate::store::jobs::{Artifact, Event, FileId, InputRole, Job, JobInput, PhaseSpan, WholeJob};

/// A job in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobSummary {
    /// Its id.
    #[schema(example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    pub id: String,
    /// The name that its owner has given it.
    #[schema(example = "MNIST, two members")]
    pub name: Option<String>,
    /// The checkpoints that it fuses, as the request names them.
    #[schema(example = json!(["m0.safetensors", "m1.safetensors"]))]
    pub members: Vec<String>,
    /// The dataset that it trains and validates on, likewise.
    #[schema(example = "mnist.tar")]
    pub dataset: Option<String>,
    /// `queued`, `running` or `cancelling`; once it has ended `succeeded`, `failed` or `cancelled`.
    #[schema(value_type = String, example = "running")]
    pub state: &'static str,
    /// How many times a worker has started it.
    #[schema(example = 1)]
    pub attempt: u32,
    /// How far the latest attempt has come.
    pub progress: Option<ProgressView>,
    /// The labels that the client has given it.
    #[schema(example = json!({"team": "vision"}))]
    pub labels: BTreeMap<String, String>,
    /// Who queued it: what is written on the key that was used (`engraft keys create --label`).
    #[schema(example = "ada")]
    pub owner: Option<String>,
    /// The job that this one repeats.
    #[schema(example = "job_019324a5a0007f3e8d1c2b3a4f5e6d7c")]
    pub retry_of: Option<String>,
    /// When it was queued.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    pub created_at: String,
    /// When its first attempt began.
    #[schema(example = "2026-01-31T12:00:01.000Z", format = DateTime)]
    pub started_at: Option<String>,
    /// When it ended.
    #[schema(example = "2026-01-31T12:03:00.000Z", format = DateTime)]
    pub finished_at: Option<String>,
    /// Why it failed.
    pub error: Option<ProblemView>,
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobView {
    #[serde(flatten)]
    summary: JobSummary,
    /// Its position in the queue; 1 is next. Only while it is queued.
    #[schema(example = 1)]
    queue_position: Option<i64>,
    /// The phases of the latest attempt.
    phases: Vec<PhaseView>,
    /// The request with every default filled in. It can be sent as a request itself.
    #[schema(schema_with = super::requested)]
    resolved: Box<RawValue>,
    /// The plan, as `validate_only` shows it; null while a dataset that it needs is being read.
    #[schema(value_type = Option<Plan>)]
    plan: Box<RawValue>,
    /// The files that it reads.
    inputs: Vec<InputView>,
    /// Its results, once it has succeeded.
    artifacts: Vec<ArtifactView>,
}

/// How far an attempt has come.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressView {
    /// The running phase.
    #[schema(value_type = String, example = "finetune")]
    phase: Phase,
    /// How much of the phase is done, in [0, 1].
    #[schema(example = 0.4)]
    fraction: f64,
    /// Finished epochs.
    #[schema(example = 4)]
    epoch: Option<usize>,
    /// Steps done in the running epoch.
    #[schema(example = 17)]
    step: Option<usize>,
    /// Training speed, in images per second.
    #[schema(example = 21000.0)]
    images_per_s: Option<f64>,
    /// Seconds to the end of the phase.
    #[schema(example = 17.5)]
    eta_s: Option<f64>,
    /// How much of the whole job is done, in [0, 1], by the times that its plan expects; null before there is a plan.
    #[schema(example = 0.25)]
    job_fraction: Option<f64>,
    /// Seconds to the end of the job: what the plan expects of what is left, at the pace so far.
    #[schema(example = 61.0)]
    job_eta_s: Option<f64>,
}

/// A phase of an attempt.
#[derive(Debug, Serialize, ToSchema)]
pub struct PhaseView {
    /// `load`, `plan`, `verify`, `score`, `prune`, `compensate`, `finetune`, `evaluate` or `publish`.
    #[schema(value_type = String, example = "score")]
    name: Phase,
    /// When it began.
    #[schema(example = "2026-01-31T12:00:01.000Z", format = DateTime)]
    started: String,
    /// When it ended.
    #[schema(example = "2026-01-31T12:00:02.000Z", format = DateTime)]
    ended: Option<String>,
}

/// A file that a job reads.
#[derive(Debug, Serialize, ToSchema)]
pub struct InputView {
    /// `member`, `dataset`, `validation` or `test`.
    #[schema(value_type = String, example = "member")]
    role: &'static str,
    /// Its name.
    #[schema(example = "m0.safetensors")]
    name: String,
    /// Its id; null after it was deleted.
    #[schema(example = "ckpt_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    id: Option<String>,
    /// SHA-256 of its bytes, in hexadecimal.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    sha256: String,
}

/// A result of a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArtifactView {
    /// `model`, `report`, `report.html`, `architecture` or `provenance`.
    #[schema(example = "model")]
    name: String,
    /// Where to download it.
    #[schema(example = "/v1/jobs/job_019324a5b7c07f3e8d1c2b3a4f5e6d7c/model")]
    href: String,
    /// Its length in bytes.
    #[schema(example = 1_048_576)]
    bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    sha256: String,
    /// Its media type.
    #[schema(example = "application/octet-stream")]
    media_type: String,
}

/// Something that has happened to a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventView {
    /// The position in the history of the job: 1, 2, 3, … `Last-Event-ID` and `after` take it.
    #[schema(example = 3)]
    seq: i64,
    /// When it happened.
    #[schema(example = "2026-01-31T12:00:02.000Z", format = DateTime)]
    at: String,
    /// `state`, `progress`, `metric`, `warning` or `log`.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "state")]
    kind: &'static str,
    /// The attempt that it belongs to; 0 before the first.
    #[schema(example = 1)]
    attempt: u32,
    /// The details, which depend on the type.
    #[schema(value_type = Object, example = json!({"state": "running"}))]
    data: Value,
}

/// A line of a job's log.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogView {
    /// The position in the history of the job. `after` takes it.
    #[schema(example = 7)]
    seq: i64,
    /// When it was written.
    #[schema(example = "2026-01-31T12:00:02.000Z", format = DateTime)]
    at: String,
    /// The attempt that it belongs to.
    #[schema(example = 1)]
    attempt: u32,
    /// `info` or `warning`.
    #[schema(value_type = String, example = "info")]
    level: &'static str,
    /// Where it comes from: `job`, `stderr` (of the process that computes) or `worker`.
    #[schema(example = "job")]
    source: String,
    /// The text of the line.
    #[schema(example = "best epoch: 3")]
    message: String,
}

/// The epochs of a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct MetricsView {
    /// One entry per finished epoch; epoch 0 is the network before its first step.
    #[schema(value_type = Vec<EpochMetrics>)]
    pub data: Vec<Value>,
}

impl From<&Job> for JobSummary {
    fn from(job: &Job) -> Self {
        let error = match &job.state {
            State::Failed(_, problem) => Some(ProblemView::new(problem, None)),
            _ => None,
        };
        let shown = |time_: jiff::Timestamp| time(time_.as_millisecond());
        Self {
            id: job.id.to_string(),
            name: job.names.name.clone(),
            members: job.names.members.clone(),
            dataset: job.names.dataset.as_ref().map(|dataset| dataset.name.clone()),
            state: job.state.shown(),
            attempt: job.state.effort().attempts,
            progress: job.progress.map(ProgressView::from),
            labels: job.labels.clone(),
            owner: job.owner.clone(),
            retry_of: job.retry_of.map(|id| id.to_string()),
            created_at: shown(job.created),
            started_at: job.started.map(shown),
            finished_at: job.state.finished().map(shown),
            error,
        }
    }
}

impl JobView {
    /// Shows a job with what belongs to it.
    #[must_use]
    pub fn new(whole: WholeJob, queue_position: Option<i64>) -> Self {
        let WholeJob { job, inputs, artifacts } = whole;
        let artifact = |artifact| ArtifactView::new(&job, artifact);
        Self {
            artifacts: artifacts.into_iter().map(artifact).collect(),
            summary: JobSummary::from(&job),
            queue_position,
            phases: job.phases.into_iter().map(PhaseView::from).collect(),
            resolved: job.resolved,
            plan: job.plan,
            inputs: inputs.into_iter().map(InputView::from).collect(),
        }
    }
}

impl ArtifactView {
    fn new(job: &Job, artifact: Artifact) -> Self {
        let Artifact { name, bytes, sha256, media_type, .. } = artifact;
        Self { href: format!("/v1/jobs/{}/{name}", job.id), name, bytes, sha256, media_type }
    }
}

impl From<Progress> for ProgressView {
    fn from(progress: Progress) -> Self {
        let Progress { phase, fraction, epoch, step, images_per_s, eta_s, job_fraction, job_eta_s } = progress;
        Self { phase, fraction, epoch, step, images_per_s, eta_s, job_fraction, job_eta_s }
    }
}

impl From<PhaseSpan> for PhaseView {
    fn from(span: PhaseSpan) -> Self {
        let shown = |time_: jiff::Timestamp| time(time_.as_millisecond());
        Self { name: span.name, started: shown(span.started), ended: span.ended.map(shown) }
    }
}

impl From<JobInput> for InputView {
    fn from(input: JobInput) -> Self {
        let role = match input.role {
            InputRole::Member(_) => "member",
            InputRole::Dataset => "dataset",
            InputRole::Validation => "validation",
            InputRole::Test => "test",
            InputRole::Reference => "reference",
        };
        let id = input.file.map(|file| match file {
            FileId::Checkpoint(id) => id.to_string(),
            FileId::Dataset(id) => id.to_string(),
        });
        Self { role, name: input.name, id, sha256: input.sha256 }
    }
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        let Event { seq, at, kind, attempt, data } = event;
        Self { seq, at: time(at.as_millisecond()), kind: kind.as_str(), attempt, data }
    }
}

impl From<Event> for LogView {
    fn from(event: Event) -> Self {
        let text = |name: &str| event.data[name].as_str().unwrap_or_default().to_owned();
        let (source, message) = (text("source"), text("message"));
        let level = if event.kind == crate::store::jobs::EventKind::Warning { "warning" } else { "info" };
        Self { seq: event.seq, at: time(event.at.as_millisecond()), attempt: event.attempt, level, source, message }
    }
}

impl LogView {
    /// The line as text.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {:7} [{} {}] {}\n", self.at, self.level, self.source, self.attempt, self.message)
    }
}
