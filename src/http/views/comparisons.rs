//! Comparisons as they are shown.

use serde::Serialize;
use utoipa::ToSchema;

use super::time;
use crate::domain::comparison::StateCounts;
use crate::store::comparisons::{StoredComparison, StoredRun};

/// A comparison in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct ComparisonSummary {
    /// Its id.
    #[schema(example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    id: String,
    /// What it is about.
    #[schema(example = "Rankings")]
    title: String,
    /// Whether it runs the short form of the plan.
    #[schema(example = false)]
    quick: bool,
    /// `queued` until a run has begun, `running` until all have ended; then `failed` or `cancelled` where one has, else
    /// `succeeded`.
    #[schema(value_type = String, example = "running")]
    state: &'static str,
    /// Runs by the state of their jobs.
    counts: CountsView,
    /// When it was queued.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    created_at: String,
}

/// How many runs are in which state.
#[derive(Debug, Serialize, ToSchema)]
pub struct CountsView {
    /// All runs.
    #[schema(example = 6)]
    total: usize,
    /// Runs that wait in the queue.
    #[schema(example = 2)]
    queued: usize,
    /// Runs that are running or about to stop.
    #[schema(example = 1)]
    running: usize,
    /// Runs that have succeeded.
    #[schema(example = 3)]
    succeeded: usize,
    /// Runs that have failed.
    #[schema(example = 0)]
    failed: usize,
    /// Runs that were cancelled.
    #[schema(example = 0)]
    cancelled: usize,
    /// Runs whose jobs were deleted.
    #[schema(example = 0)]
    deleted: usize,
}

/// A comparison.
#[derive(Debug, Serialize, ToSchema)]
pub struct ComparisonView {
    #[serde(flatten)]
    summary: ComparisonSummary,
    /// Its runs, in the order of the plan.
    runs: Vec<RunView>,
}

/// A run of a comparison.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunView {
    /// The name of the ensemble.
    #[schema(example = "two")]
    ensemble: String,
    /// The name of the method.
    #[schema(example = "css")]
    method: String,
    /// The name of the target.
    #[schema(example = "member width")]
    target: String,
    /// Seed of every random choice.
    #[schema(example = 0)]
    seed: u64,
    /// The id of its job; null after the job was deleted.
    #[schema(example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    job: Option<String>,
    /// The job's state.
    #[schema(example = "succeeded")]
    state: Option<String>,
}

impl From<StateCounts> for CountsView {
    fn from(counts: StateCounts) -> Self {
        let StateCounts { queued, running, succeeded, failed, cancelled, deleted } = counts;
        Self { total: counts.total(), queued, running, succeeded, failed, cancelled, deleted }
    }
}

impl From<StoredComparison> for ComparisonSummary {
    fn from(summary: StoredComparison) -> Self {
        let StoredComparison { id, title, quick, created, counts } = summary;
        let (state, created_at) = (counts.state(), time(created.as_millisecond()));
        Self { id: id.to_string(), title, quick, state, counts: counts.into(), created_at }
    }
}

impl ComparisonView {
    /// Shows a comparison with its runs.
    #[must_use]
    pub fn new(summary: StoredComparison, runs: Vec<StoredRun>) -> Self {
        Self { summary: summary.into(), runs: runs.into_iter().map(RunView::from).collect() }
    }
}

impl From<StoredRun> for RunView {
    fn from(StoredRun { place, job }: StoredRun) -> Self {
        let (job, state) = job.map(|job| (job.id.to_string(), job.state)).unzip();
        Self { ensemble: place.ensemble, method: place.method, target: place.target, seed: place.seed, job, state }
    }
}

/// What a comparison would take.
#[derive(Debug, Serialize, ToSchema)]
pub struct OutlookView {
    /// What it is about.
    #[schema(example = "Rankings")]
    pub title: String,
    /// Whether this is the short form of the plan.
    #[schema(example = false)]
    pub quick: bool,
    /// Estimate of the time that all its jobs take, one after another; null while a dataset is being read.
    #[schema(example = 120.5)]
    pub seconds_estimate: Option<f64>,
    /// Its jobs, in the order of the plan.
    pub runs: Vec<RunOutlookView>,
}

/// What one job of a comparison would take; null where that depends on a dataset that is still being read.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunOutlookView {
    /// Which ensemble.
    #[schema(example = "two")]
    pub ensemble: String,
    /// Which method.
    #[schema(example = "css")]
    pub method: String,
    /// Which target.
    #[schema(example = "member width")]
    pub target: String,
    /// Seed of every random choice.
    #[schema(example = 0)]
    pub seed: u64,
    /// Trainable weights of the fused network.
    #[schema(example = 269_322)]
    pub parameters: Option<u64>,
    /// Estimate of the memory that it needs beside the mapped files.
    #[schema(example = 64_000_000)]
    pub memory_peak_bytes: Option<u64>,
    /// Estimate of the time that it takes.
    #[schema(example = 12.5)]
    pub seconds_estimate: Option<f64>,
    /// What a user should look at before starting it.
    #[schema(example = json!([]))]
    pub warnings: Vec<String>,
}
