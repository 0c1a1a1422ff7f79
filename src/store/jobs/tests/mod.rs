//! The engine's promises, with a clock that moves by hand.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::domain::clock::{ManualClock, from_millis};
use crate::domain::id::WorkerId;
use crate::domain::job::{Fence, Interruption, MAX_STALLED_ATTEMPTS};
use crate::domain::problem::{Code, Problem};
use crate::domain::progress::{EpochMetrics, Level};
use crate::store::Blobs;
use crate::store::idempotency::{Earlier, Idempotency, RequestKey};
use crate::store::listing::Listing;
use crate::store::sql;
use crate::store::testing;

mod attempts;
mod failures;
mod inputs;
mod journey;
mod queue;
mod reports;
mod snapshot;
mod time;

/// More than any test takes.
const ROOM: u64 = 1 << 40;
const LEASE: Duration = Duration::from_mins(1);

struct House {
    jobs: Jobs,
    clock: Arc<ManualClock>,
    tenant: Tenant,
    folder: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::at(from_millis(1_000_000)));
        let database = testing::open(folder.path()).await;
        Self { jobs: Jobs::new(database, clock.clone()), clock, tenant: Tenant::default(), folder }
    }

    async fn sql(&self, sql: &'static str) -> Result<u64, sqlx::Error> {
        let mut transaction = self.jobs.database.write().await.expect("begins");
        let done = sql::query(sql).execute(&mut *transaction).await?;
        transaction.commit().await.expect("commits");
        Ok(done.rows_affected())
    }

    async fn checkpoint(&self, name: &str) -> CheckpointId {
        let id = CheckpointId::new();
        let mut transaction = self.jobs.database.write().await.expect("begins");
        sql::query("INSERT INTO checkpoints (id, tenant, name, sha256, bytes, blob_key, labels, header, created_at) VALUES ($1, 'default', $2, $3, 1, 'checkpoints/' || $1, '{}', '{}', 0)")
            .bind(id.to_string())
            .bind(name)
            .bind("0".repeat(64))
            .execute(&mut *transaction)
            .await
            .expect("inserts");
        transaction.commit().await.expect("commits");
        id
    }

    async fn dataset(&self, state: &str) -> DatasetId {
        let id = DatasetId::new();
        let mut transaction = self.jobs.database.write().await.expect("begins");
        sql::query(
            "INSERT INTO datasets (id, tenant, name, sha256, bytes, blob_key, labels, state, created_at) \
             VALUES ($1, 'default', 'd.npz', $2, 1, 'datasets/' || $1, '{}', $3, 0)",
        )
        .bind(id.to_string())
        .bind("0".repeat(64))
        .bind(state)
        .execute(&mut *transaction)
        .await
        .expect("inserts");
        transaction.commit().await.expect("commits");
        id
    }

    fn new_job(&self, inputs: Vec<JobInput>) -> NewJob {
        NewJob {
            tenant: self.tenant.clone(),
            owner: None,
            resolved: json!({ "seed": 0 }),
            plan: json!({}),
            labels: [("team".to_owned(), "vision".to_owned())].into(),
            device: Device::Auto,
            max_runtime: Duration::from_hours(1),
            priority: 0,
            inputs,
        }
    }

    async fn queue(&self) -> JobId {
        self.jobs.insert(&self.new_job(Vec::new()), None).await.expect("inserts")
    }

    async fn claim(&self) -> Option<Claim> {
        let claimant = Claimant {
            worker: WorkerId::new(),
            host: "here".to_owned(),
            devices: vec![Device::Cpu],
            lease: LEASE,
            room: ROOM,
        };
        self.jobs.claim(&claimant).await.expect("claims")
    }

    async fn running(&self) -> Fence {
        self.queue().await;
        self.claim().await.expect("a job to claim").fence
    }

    async fn state(&self, job: JobId) -> &'static str {
        self.job(job).await.state.name()
    }

    async fn job(&self, job: JobId) -> Job {
        self.jobs.get(&self.tenant, job).await.expect("a job")
    }

    /// The states the job went through; fails unless the history is without gaps.
    async fn history(&self, job: JobId) -> Vec<String> {
        let events = self.jobs.events(job, 0, 1000).await.expect("reads");
        let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=events.len() as i64).collect::<Vec<_>>(), "no gaps");
        let states = events.iter().filter(|event| event.kind == EventKind::State);
        states.map(|event| event.data["state"].as_str().unwrap_or("?").to_owned()).collect()
    }
}

fn member(id: CheckpointId) -> JobInput {
    let file = Some(FileId::Checkpoint(id));
    JobInput { role: InputRole::Member(0), file, name: "m0".to_owned(), sha256: "0".repeat(64) }
}

fn dataset(id: DatasetId) -> JobInput {
    let file = Some(FileId::Dataset(id));
    JobInput { role: InputRole::Dataset, file, name: "d.npz".to_owned(), sha256: "0".repeat(64) }
}

fn model(fence: Fence) -> Artifact {
    Artifact {
        name: "model".to_owned(),
        blob_key: Jobs::blob_key(fence, "model"),
        sha256: "1".repeat(64),
        bytes: 3,
        media_type: "application/octet-stream".to_owned(),
    }
}

fn lost<T: std::fmt::Debug>(result: Result<T, JobError>) {
    let error = result.expect_err("a write without the fence");
    assert!(matches!(error, JobError::Transition(TransitionError::FenceLost { .. })), "{error}");
}

fn metrics(epoch: usize, loss: f64) -> EpochMetrics {
    EpochMetrics {
        epoch,
        train_loss: Some(loss),
        train_accuracy: None,
        validation: None,
        test: None,
        lr: None,
        images_per_s: None,
    }
}

fn line(text: &str) -> LogLine {
    LogLine { level: Level::Info, message: text.to_owned(), source: "job" }
}

async fn store(house: &House, blobs: &Blobs, key: &str) {
    let staged = house.folder.path().join("staged");
    std::fs::write(&staged, key).expect("writes");
    blobs.put_file(&staged, key).await.expect("stores");
}
