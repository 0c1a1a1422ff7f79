//! The engine's promises, with a clock that stands still until told otherwise.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::domain::clock::{ManualClock, from_millis};
use crate::domain::id::WorkerId;
use crate::domain::job::{Fence, Interruption, MAX_STALLED_ATTEMPTS};
use crate::domain::problem::{Code, Problem};
use crate::job::protocol::{EpochMetrics, Level};
use crate::store::Blobs;
use crate::store::idempotency::{Earlier, Idempotency, RequestKey};
use crate::store::listing::Listing;

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
        let database = Database::open(folder.path()).await.expect("opens");
        Self { jobs: Jobs::new(database, clock.clone()), clock, tenant: Tenant::default(), folder }
    }

    async fn sql(&self, sql: &'static str) -> Result<u64, sqlx::Error> {
        let mut transaction = self.jobs.database.write().await.expect("begins");
        let done = sqlx::query(sql).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }

    async fn checkpoint(&self, name: &str) -> CheckpointId {
        let id = CheckpointId::new();
        let mut transaction = self.jobs.database.write().await.expect("begins");
        sqlx::query("INSERT INTO checkpoints VALUES (?1, 'default', ?2, ?3, 1, 'checkpoints/' || ?1, '{}', '{}', 0)")
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
        sqlx::query(
            "INSERT INTO datasets (id, tenant, name, sha256, bytes, blob_key, labels, state, created_at) \
             VALUES (?1, 'default', 'd.npz', ?2, 1, 'datasets/' || ?1, '{}', ?3, 0)",
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
            resolved: json!({ "seed": 0 }),
            plan: json!({}),
            labels: [("team".to_owned(), "vision".to_owned())].into(),
            device: Device::Auto,
            max_runtime: Duration::from_hours(1),
            inputs,
        }
    }

    async fn queue(&self) -> JobId {
        self.jobs.insert(&self.new_job(Vec::new()), None).await.expect("inserts")
    }

    async fn claim(&self) -> Option<Claim> {
        let claimant = Claimant { worker: WorkerId::new(), devices: vec![Device::Cpu], lease: LEASE };
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
    JobInput { role: Role::Member(0), file, name: "m0".to_owned(), sha256: "0".repeat(64) }
}

fn dataset(id: DatasetId) -> JobInput {
    let file = Some(FileId::Dataset(id));
    JobInput { role: Role::Dataset, file, name: "d.npz".to_owned(), sha256: "0".repeat(64) }
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

#[tokio::test]
async fn a_job_runs_and_publishes_once() {
    let house = House::new().await;
    let first = house.queue().await;
    let second = house.queue().await;
    assert_eq!(house.jobs.queue_position(second).await.expect("counts"), 2);
    let claim = house.claim().await.expect("a job");
    assert_eq!((claim.fence, claim.resolved), (Fence { job: first, attempt: 1 }, json!({ "seed": 0 })), "oldest first");
    let fence = claim.fence;
    house.jobs.enter_phase(fence, Phase::Load).await.expect("writes");
    house.clock.advance(Duration::from_secs(2));
    house.jobs.enter_phase(fence, Phase::Finetune).await.expect("writes");
    house.jobs.publish(fence, &[model(fence)]).await.expect("publishes");
    let job = house.job(first).await;
    assert_eq!(job.state.name(), "succeeded");
    assert_eq!(job.state.effort().ran, Duration::from_secs(2));
    assert!(job.phases.iter().all(|phase| phase.ended.is_some()), "{:?}", job.phases);
    assert_eq!(house.jobs.artifacts(first).await.expect("reads"), [model(fence)]);
    lost(house.jobs.publish(fence, &[model(fence)]).await);
    assert_eq!(house.history(first).await, ["queued", "running", "succeeded"]);
    assert_eq!(house.state(second).await, "queued");
}

#[tokio::test]
async fn a_lapsed_lease_is_queued_again_and_the_zombie_writes_nothing() {
    let house = House::new().await;
    let zombie = house.running().await;
    house.clock.advance(LEASE);
    assert!(house.claim().await.is_none(), "the lease still holds");
    house.jobs.renew(zombie, LEASE).await.expect("renews");
    house.clock.advance(LEASE + Duration::from_millis(1));
    let heir = house.claim().await.expect("the lapsed job").fence;
    assert_eq!(heir, Fence { job: zombie.job, attempt: 2 });

    let jobs = &house.jobs;
    lost(jobs.renew(zombie, LEASE).await);
    lost(jobs.enter_phase(zombie, Phase::Load).await);
    let progress =
        Progress { phase: Phase::Load, fraction: 0.5, epoch: None, step: None, images_per_s: None, eta_s: None };
    lost(jobs.report_progress(zombie, &progress).await);
    lost(jobs.add_metrics(zombie, &metrics(1, 0.5)).await);
    lost(jobs.log(zombie, &[line("boo")]).await);
    lost(jobs.save_checkpoint(zombie, 1, "k").await);
    lost(jobs.publish(zombie, &[model(zombie)]).await);
    lost(jobs.fail(zombie, Problem::new(Code::Internal, "boo")).await);
    lost(jobs.fail_out_of_time(zombie).await);
    lost(jobs.end_cancelled(zombie).await);
    lost(jobs.interrupt(zombie, Interruption::Crashed).await);
    assert!(jobs.artifacts(zombie.job).await.expect("reads").is_empty());
    assert_eq!(house.history(zombie.job).await, ["queued", "running", "queued", "running"]);

    jobs.publish(heir, &[model(heir)]).await.expect("publishes");
    assert_eq!(jobs.artifacts(heir.job).await.expect("reads")[0].blob_key, model(heir).blob_key);
}

#[tokio::test]
async fn cancelling_ends_a_waiting_job_and_flags_a_running_one() {
    let house = House::new().await;
    let (jobs, tenant) = (&house.jobs, &house.tenant);
    let waiting = house.queue().await;
    assert!(jobs.cancel(tenant, waiting).await.expect("cancels"));
    assert!(!jobs.cancel(tenant, waiting).await.expect("stays"));
    assert_eq!(house.history(waiting).await, ["queued", "cancelled"]);

    let fence = house.running().await;
    assert!(jobs.cancel(tenant, fence.job).await.expect("flags"));
    assert!(!jobs.cancel(tenant, fence.job).await.expect("is flagged"));
    assert_eq!(house.state(fence.job).await, "running");
    assert!(jobs.renew(fence, LEASE).await.expect("renews").cancel_requested);
    jobs.end_cancelled(fence).await.expect("ends");
    assert_eq!(house.state(fence.job).await, "cancelled");
}

#[tokio::test]
async fn a_publish_that_commits_before_the_cancel_takes_effect_wins() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.cancel(&house.tenant, fence.job).await.expect("flags");
    house.jobs.publish(fence, &[model(fence)]).await.expect("publishes");
    lost(house.jobs.end_cancelled(fence).await);
    assert_eq!(house.state(fence.job).await, "succeeded");
}

#[tokio::test]
async fn a_lapsed_lease_with_the_cancel_flag_ends_as_cancelled() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.cancel(&house.tenant, fence.job).await.expect("flags");
    house.clock.advance(LEASE * 2);
    assert!(house.claim().await.is_none());
    assert_eq!(house.state(fence.job).await, "cancelled");
}

#[tokio::test]
async fn attempts_that_get_nowhere_are_a_crash_loop_and_headway_resets_the_count() {
    let house = House::new().await;
    let job = house.queue().await;
    for _ in 0..MAX_STALLED_ATTEMPTS {
        let fence = house.claim().await.expect("queued again").fence;
        house.jobs.interrupt(fence, Interruption::Crashed).await.expect("ends the attempt");
    }
    // A phase that is new is headway, the same phase once more is none; a checkpoint of a later epoch is.
    let fence = house.claim().await.expect("queued again").fence;
    house.jobs.enter_phase(fence, Phase::Load).await.expect("writes");
    house.jobs.interrupt(fence, Interruption::Crashed).await.expect("ends the attempt");
    for attempt in 0..MAX_STALLED_ATTEMPTS {
        let fence = house.claim().await.unwrap_or_else(|| panic!("attempt {attempt}")).fence;
        house.jobs.enter_phase(fence, Phase::Load).await.expect("writes");
        house.jobs.interrupt(fence, Interruption::Crashed).await.expect("ends the attempt");
    }
    let fence = house.claim().await.expect("queued again").fence;
    assert_eq!(house.jobs.save_checkpoint(fence, 1, "one").await.expect("writes"), None);
    house.jobs.interrupt(fence, Interruption::Crashed).await.expect("ends the attempt");
    for _ in 0..=MAX_STALLED_ATTEMPTS {
        let claim = house.claim().await.expect("queued again");
        assert_eq!(claim.checkpoint, Some(EpochCheckpoint { epoch: 1, key: "one".to_owned() }));
        house.jobs.save_checkpoint(claim.fence, 1, "one").await.expect("writes");
        house.jobs.interrupt(claim.fence, Interruption::Crashed).await.expect("ends the attempt");
    }
    let State::Failed(_, problem) = house.job(job).await.state else { panic!("a crash loop must end") };
    assert_eq!(problem.code, Code::CrashLoop);
    assert!(house.claim().await.is_none());
}

#[tokio::test]
async fn a_job_that_the_machine_has_let_down_waits_and_lets_others_pass() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.enter_phase(fence, Phase::Load).await.expect("writes");
    let problem = Problem::new(Code::DiskFull, "no room.");
    house.jobs.let_down(fence, problem).await.expect("ends the attempt");
    assert!(house.claim().await.is_none(), "too early");
    let other = house.queue().await;
    assert_eq!(house.claim().await.expect("the other one").fence.job, other);
    house.clock.advance(Duration::from_millis(999));
    assert!(house.claim().await.is_none(), "still too early");
    house.clock.advance(Duration::from_millis(1));
    assert_eq!(house.claim().await.expect("the second attempt").fence, Fence { attempt: 2, ..fence });
    let events = house.jobs.events(fence.job, 0, 100).await.expect("reads");
    let waited = events.iter().find(|event| event.data["reason"] == "let_down").expect("an event");
    assert_eq!(waited.data["not_before"], "1970-01-01T00:16:41Z", "{:?}", waited.data);
}

#[tokio::test]
async fn a_lease_begins_when_it_is_granted_however_long_the_claim_has_waited() {
    let house = House::new().await;
    let job = house.queue().await;
    let other_process = Database::open(house.folder.path()).await.expect("opens");
    let long_write = other_process.write().await.expect("begins");
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        house.clock.advance(LEASE * 2);
        drop(long_write);
    };
    let (claim, ()) = tokio::join!(house.claim(), release);
    assert_eq!(claim.expect("a job").fence.job, job);
    assert!(house.claim().await.is_none(), "the lease is good");
}

#[tokio::test]
async fn the_time_limit_counts_all_attempts() {
    let house = House::new().await;
    let fence = house.running().await;
    house.clock.advance(Duration::from_secs(30));
    assert_eq!(house.jobs.renew(fence, LEASE).await.expect("renews").time_left, Duration::from_secs(3570));
    house.jobs.interrupt(fence, Interruption::HandedBack).await.expect("gives back");
    let fence = house.claim().await.expect("queued again").fence;
    house.clock.advance(Duration::from_hours(1));
    assert_eq!(house.jobs.renew(fence, LEASE).await.expect("renews").time_left, Duration::ZERO);
    house.jobs.fail_out_of_time(fence).await.expect("fails");
    let State::Failed(_, problem) = house.job(fence.job).await.state else { panic!("out of time") };
    assert_eq!(problem.code, Code::MaxRuntimeExceeded);
}

#[tokio::test]
async fn an_ended_job_cannot_be_changed_even_by_sql() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.fail(fence, Problem::new(Code::Internal, "broken")).await.expect("fails");
    assert!(house.sql("UPDATE jobs SET state = 'queued', finished_at = NULL, error = NULL").await.is_err());
    assert!(house.sql("UPDATE job_events SET data = '{}'").await.is_err());
    assert_eq!(house.state(fence.job).await, "failed");
}

#[tokio::test]
async fn only_a_worker_with_the_device_claims() {
    let house = House::new().await;
    let job = NewJob { device: Device::Cuda(0), ..house.new_job(Vec::new()) };
    let id = house.jobs.insert(&job, None).await.expect("inserts");
    assert!(house.claim().await.is_none(), "a worker without a GPU");
    let devices = vec![Device::Cuda(0), Device::Cpu];
    let claimant = Claimant { worker: WorkerId::new(), devices, lease: LEASE };
    let claim = house.jobs.claim(&claimant).await.expect("claims").expect("a job");
    assert_eq!((claim.fence.job, claim.device), (id, Device::Cuda(0)));
}

#[tokio::test]
async fn a_job_waits_for_its_dataset_and_fails_with_it() {
    let house = House::new().await;
    let id = house.dataset("validating").await;
    let good = house.jobs.insert(&house.new_job(vec![dataset(id)]), None).await.expect("inserts");
    let overtaker = house.queue().await;
    assert_eq!(house.claim().await.expect("the other one").fence.job, overtaker);
    assert!(house.claim().await.is_none());
    house.sql("UPDATE datasets SET state = 'ready', facts = '{}'").await.expect("updates");
    let claim = house.claim().await.expect("now it is ready");
    assert_eq!((claim.fence.job, claim.inputs[0].blob_key.clone()), (good, format!("datasets/{id}")));

    house
        .sql("UPDATE datasets SET state = 'invalid', facts = NULL, problem = '{\"detail\": \"no x\"}'")
        .await
        .expect("updates");
    let bad = house.jobs.insert(&house.new_job(vec![dataset(id)]), None).await.expect("inserts");
    assert!(house.claim().await.is_none());
    let State::Failed(_, problem) = house.job(bad).await.state else { panic!("its dataset is invalid") };
    assert_eq!(problem.code, Code::DatasetInvalid);
    assert!(problem.detail.contains("no x"), "{}", problem.detail);
}

#[tokio::test]
async fn inputs_of_live_jobs_stay_and_a_retry_needs_them() {
    let house = House::new().await;
    let (jobs, tenant) = (&house.jobs, &house.tenant);
    let file = house.checkpoint("m0").await;
    let id = jobs.insert(&house.new_job(vec![member(file)]), None).await.expect("inserts");
    assert!(house.sql("DELETE FROM checkpoints").await.is_err(), "in use");
    let active = jobs.retry(tenant, id, RetryFrom::Start, None).await.expect_err("still active");
    assert!(matches!(active, JobError::Transition(TransitionError::StillActive("queued"))));
    jobs.cancel(tenant, id).await.expect("cancels");
    let again = jobs.retry(tenant, id, RetryFrom::Start, None).await.expect("retries");
    assert_eq!(house.job(again).await.retry_of, Some(id));
    assert_eq!(jobs.inputs(again).await.expect("reads"), [member(file)]);
    jobs.cancel(tenant, again).await.expect("cancels");
    assert_eq!(house.sql("DELETE FROM checkpoints").await.expect("free now"), 1);
    let gone = jobs.retry(tenant, id, RetryFrom::Start, None).await.expect_err("the member is gone");
    assert!(matches!(gone, JobError::InputsGone(names) if names == ["m0"]));
    assert_eq!(jobs.inputs(id).await.expect("reads")[0].name, "m0", "the name is remembered");
}

#[tokio::test]
async fn a_retry_goes_on_from_the_checkpoint_and_shares_its_blob() {
    let house = House::new().await;
    let (jobs, tenant) = (&house.jobs, &house.tenant);
    let blobs = Blobs::open(house.folder.path()).expect("opens");
    let fence = house.running().await;
    for epoch in [1, 2, 3] {
        jobs.add_metrics(fence, &metrics(epoch, 0.5)).await.expect("writes");
    }
    let key = Jobs::blob_key(fence, "checkpoint-2");
    store(&house, &blobs, &key).await;
    jobs.save_checkpoint(fence, 2, &key).await.expect("writes");
    store(&house, &blobs, &Jobs::blob_key(fence, "orphan")).await;
    jobs.fail(fence, Problem::new(Code::TrainingDiverged, "nan")).await.expect("fails");

    let again = jobs.retry(tenant, fence.job, RetryFrom::Checkpoint, None).await.expect("retries");
    assert_eq!(jobs.metrics(again).await.expect("reads").len(), 2, "up to the checkpoint");
    let afresh = jobs.retry(tenant, fence.job, RetryFrom::Start, None).await.expect("retries");
    assert_eq!(house.job(afresh).await.checkpoint, None);
    jobs.delete(tenant, fence.job).await.expect("deletes");
    jobs.sweep_all(&blobs).await.expect("sweeps");
    let listed = blobs.list("jobs").await.expect("lists");
    assert_eq!(listed.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), [key.as_str()], "only what is in use");
    assert_eq!(house.job(again).await.retry_of, None, "the first job is gone");

    let heir = house.claim().await.expect("the retry").fence;
    let old = jobs.save_checkpoint(heir, 3, "jobs/other").await.expect("writes").expect("a checkpoint before");
    jobs.drop_blob(&blobs, &old).await.expect("drops");
    assert!(blobs.list("jobs").await.expect("lists").is_empty());
}

#[tokio::test]
async fn a_key_queues_one_job_for_a_day_with_or_without_its_answer() {
    let house = House::new().await;
    let keys = Idempotency::new(house.jobs.database.clone(), house.clock.clone());
    let key = RequestKey { key: "k".into(), fingerprint: [1; 32] };
    let other = RequestKey { fingerprint: [2; 32], ..key.clone() };
    let job = house.new_job(Vec::new());
    let insert = async |key: &RequestKey| house.jobs.insert(&job, Some(key)).await;
    let (first, second) = tokio::join!(insert(&key), insert(&key));
    let id = first.expect("inserts");
    assert_eq!(second.expect("the same"), id, "whoever comes first queues it");
    assert!(matches!(insert(&other).await, Err(JobError::KeyReused)));
    let earlier = async |key: &RequestKey| keys.earlier(&house.tenant, key).await.expect("reads");
    assert_eq!(
        earlier(&key).await,
        Some(Earlier::Queued { job: id, answer: None }),
        "the server ended before it answered"
    );
    assert_eq!(earlier(&other).await, Some(Earlier::Different));
    keys.keep(&house.tenant, &key, b"first").await.expect("keeps");
    keys.keep(&house.tenant, &key, b"second").await.expect("keeps");
    assert_eq!(earlier(&key).await, Some(Earlier::Queued { job: id, answer: Some(b"first".to_vec()) }));

    let fresh = RequestKey { key: "fresh".into(), ..key.clone() };
    let active = house.jobs.retry(&house.tenant, id, RetryFrom::Start, Some(&fresh)).await;
    active.expect_err("still active");
    assert_eq!(earlier(&fresh).await, None, "a request that queued nothing leaves its key free");
    house.clock.advance(Duration::from_hours(24));
    assert_ne!(insert(&other).await.expect("the key is free again"), id);
}

#[tokio::test]
async fn metrics_of_an_epoch_that_is_computed_again_replace_the_old_ones() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.add_metrics(fence, &metrics(1, 0.5)).await.expect("writes");
    house.jobs.interrupt(fence, Interruption::Crashed).await.expect("crashes");
    let fence = house.claim().await.expect("again").fence;
    house.jobs.add_metrics(fence, &metrics(1, 0.25)).await.expect("writes");
    let stored = house.jobs.metrics(fence.job).await.expect("reads");
    assert_eq!((stored.len(), &stored[0]["train_loss"]), (1, &json!(0.25)));
    let events = house.jobs.events(fence.job, 0, 100).await.expect("reads");
    assert_eq!(events.iter().filter(|event| event.kind == EventKind::Metric).count(), 1);
}

#[tokio::test]
async fn logs_page_forwards_and_from_the_end() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.log(fence, &["a", "b", "c"].map(line)).await.expect("writes");
    let texts = |events: Vec<Event>| events.iter().map(|event| event.data["message"].clone()).collect::<Vec<_>>();
    assert_eq!(texts(house.jobs.last_logs(fence.job, 2).await.expect("reads")), ["b", "c"]);
    let first = house.jobs.logs(fence.job, 0, 1).await.expect("reads");
    assert_eq!(texts(house.jobs.logs(fence.job, first[0].seq, 10).await.expect("reads")), ["b", "c"]);
}

#[tokio::test]
async fn lists_show_the_tenants_own_jobs_newest_first() {
    let house = House::new().await;
    let first = house.queue().await;
    let second = house.queue().await;
    let other = NewJob { labels: [("team".to_owned(), "audio".to_owned())].into(), ..house.new_job(Vec::new()) };
    let third = house.jobs.insert(&other, None).await.expect("inserts");
    house.jobs.cancel(&house.tenant, second).await.expect("cancels");
    let all = Listing { limit: 10, after: None, state: None, labels: BTreeMap::new() };
    let list = async |listing: Listing| {
        let jobs = house.jobs.list(&house.tenant, &listing).await.expect("lists");
        jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(list(all.clone()).await, [third, second, first]);
    assert_eq!(list(Listing { after: Some(second.to_string()), ..all.clone() }).await, [first]);
    assert_eq!(list(Listing { state: Some("queued".to_owned()), ..all.clone() }).await, [third, first]);
    let labels = [("team".to_owned(), "vision".to_owned())].into();
    assert_eq!(list(Listing { labels, ..all.clone() }).await, [second, first]);
    let stranger: Tenant = "stranger".parse().expect("a tenant");
    assert!(house.jobs.list(&stranger, &all).await.expect("lists").is_empty());
    assert!(matches!(house.jobs.get(&stranger, first).await, Err(JobError::NotFound(_))));
    assert!(matches!(house.jobs.cancel(&stranger, first).await, Err(JobError::NotFound(_))));
    assert!(matches!(house.jobs.delete(&stranger, second).await, Err(JobError::NotFound(_))));
    assert!(matches!(house.jobs.delete(&house.tenant, first).await, Err(JobError::Transition(_))), "still active");
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
