//! A server with jobs whose results are known, and what must hold of them in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engraft::domain::access::Tenant;
use engraft::domain::clock::ManualClock;
use engraft::domain::id::JobId;
use engraft::domain::job::State;
use engraft::store::jobs::{Event, EventKind, Job};
use engraft::store::listing::Listing;
use engraft::store::sweep::{BETWEEN_LOOKS, Sweeper};
use engraft::store::trash::Trash;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::common::app::{TestApp, database};
use crate::common::bucket::Bucket;
use crate::common::inputs;
use crate::common::samples::{files, sha256};
use crate::processes::{Home, Lease, Worker, working_below};
use crate::strikes::Victim;

/// Epochs of a job.
const EPOCHS: usize = 10;
/// When this is over, something hangs: a test takes a minute and a half, on a machine that is very busy some minutes more.
pub(crate) const LIMIT: Duration = Duration::from_mins(15);
/// Where the blobs are in a bucket.
pub(crate) const PREFIX: &str = "cluster";
/// Kinds of jobs.
pub(crate) const KINDS: usize = 2;

pub(crate) const ONE_SECOND: Lease = Lease { lease: "1", heartbeat: "0.3" };
const UNDISTURBED: Lease = Lease { lease: "600", heartbeat: "10" };

/// A server without workers in this process, its jobs, and what they must come to.
pub(crate) struct Lab {
    pub(crate) app: TestApp,
    /// The bucket that has the blobs, if not the server's data directory.
    pub(crate) bucket: Option<Bucket>,
    /// Where workers run; their scratch folders are there.
    pub(crate) homes: Vec<Home>,
    /// When this is over, something hangs.
    pub(crate) limit: Duration,
    /// How many jobs are unfinished at any time, until the last strike.
    pub(crate) unfinished_jobs: usize,
    /// What a worker that takes a killed one's place promises.
    pub(crate) lease: Lease,
    pub(crate) jobs: Vec<(JobId, usize)>,
    /// For each kind of job the digests of its artifacts.
    pub(crate) expected: Vec<BTreeMap<String, String>>,
    /// Whom the strikes hit while a job was in which phase.
    pub(crate) strikes: BTreeMap<(Victim, &'static str), usize>,
    pub(crate) begun: Instant,
}

/// The id of a job that a server has accepted.
async fn posted(response: reqwest::Response) -> JobId {
    let status = response.status();
    let view: Value = response.json().await.expect("JSON");
    assert_eq!(status, reqwest::StatusCode::ACCEPTED, "{view:#}");
    view["id"].as_str().expect("an id").parse().expect("an id")
}

/// The kinds of jobs; the same kind has the same result.
fn kinds() -> [Value; KINDS] {
    let job = |members: &[&str], finetune: Value, seed: u64| {
        json!({
            "members": members, "architecture": { "assume": true }, "dataset": { "name": "noise.safetensors", "validation_fraction": 0.1 },
            "finetune": finetune, "seed": seed,
        })
    };
    [
        job(&["m0.safetensors", "m1.safetensors"], json!({ "epochs": EPOCHS, "batch_size": 256 }), 1),
        job(
            &["m2.safetensors", "m0.safetensors", "m1.safetensors"],
            json!({ "epochs": EPOCHS, "batch_size": 256, "objective": "cross_entropy" }),
            2,
        ),
    ]
}

impl Lab {
    /// On the server's own data directory, which its workers share.
    pub(crate) async fn new(app: TestApp) -> Self {
        let (data_dir, log) = (app.folder.path().to_owned(), app.folder.path().join("workers.log"));
        let variables = BTreeMap::from([("ENGRAFT_DATABASE".to_owned(), database(&data_dir))]);
        Self::at(app, None, vec![Home { data_dir, variables, log }]).await
    }

    /// On blobs in `bucket`, with workers that run at `homes`.
    pub(crate) async fn at(app: TestApp, bucket: Option<Bucket>, homes: Vec<Home>) -> Self {
        for seed in 0..3 {
            let response = app.put(&format!("/v1/checkpoints/m{seed}.safetensors"), inputs::member(seed)).send().await;
            assert!(response.expect("an answer").status().is_success());
        }
        let response = app.put("/v1/datasets/noise.safetensors", inputs::dataset()).send().await.expect("an answer");
        assert!(response.status().is_success());
        assert_eq!(app.dataset("noise.safetensors").await["state"], "ready");
        let (jobs, expected, strikes, begun) = (Vec::new(), Vec::new(), BTreeMap::new(), Instant::now());
        let (limit, unfinished_jobs, lease) = (LIMIT, 4, ONE_SECOND);
        Self { app, bucket, homes, limit, unfinished_jobs, lease, jobs, expected, strikes, begun }
    }

    /// Starts a worker at the first of the homes.
    pub(crate) fn worker(&self, lease: Lease) -> Worker {
        Worker::start(&self.homes[0], lease)
    }

    /// The file that has a blob's bytes.
    pub(crate) fn file_of(&self, key: &str) -> PathBuf {
        match &self.bucket {
            Some(bucket) => bucket.object(&format!("{PREFIX}/{key}")),
            None => self.app.state.blobs.path_of(key).expect("a key"),
        }
    }

    /// Ends a worker softly, once it has got so far as to listen.
    pub(crate) async fn stop(&self, worker: Worker) {
        while !self.app.state.workers.live().await.expect("lists").iter().any(|listed| listed.pid == worker.pid()) {
            self.give_up_when_late("a worker that does not start").await;
            sleep(Duration::from_millis(10)).await;
        }
        worker.stop();
    }

    pub(crate) async fn post(&mut self, kind: usize) {
        let request = self.app.request(reqwest::Method::POST, "/v1/jobs").json(&kinds()[kind]);
        let job = posted(request.send().await.expect("an answer")).await;
        self.jobs.push((job, kind));
    }

    /// Posts a job to the server at `address`, which may die over it; `key` says which one it is.
    pub(crate) async fn post_to(&self, address: SocketAddr, kind: usize, key: &str) -> Option<JobId> {
        let request = self.app.client.post(format!("http://{address}/v1/jobs")).header("idempotency-key", key);
        let response = request.json(&kinds()[kind]).send().await.ok()?;
        Some(posted(response).await)
    }

    /// Runs one job of each kind in peace.
    pub(crate) async fn compute_undisturbed(&mut self) {
        let worker = self.worker(UNDISTURBED);
        for kind in 0..KINDS {
            self.post(kind).await;
        }
        self.wait_for_all().await;
        self.stop(worker).await;
        for (job, _) in std::mem::take(&mut self.jobs) {
            let ended = self.job(job).await;
            assert_eq!(ended.state.effort().attempts, 1, "nobody disturbs this one");
            self.expected.push(self.digests(job).await);
        }
    }

    pub(crate) async fn job(&self, id: JobId) -> Job {
        self.app.state.jobs.get(&Tenant::default(), id).await.expect("a job")
    }

    /// All jobs, or those of one state.
    pub(crate) async fn all(&self, state: Option<&str>) -> Vec<Job> {
        let listing = Listing { limit: 1000, after: None, state: state.map(str::to_owned), labels: BTreeMap::new() };
        self.app.state.jobs.list(&Tenant::default(), &listing).await.expect("lists")
    }

    /// A job that begins to run in between may be there twice.
    pub(crate) async fn unfinished(&self) -> Vec<Job> {
        let mut jobs = self.all(Some("queued")).await;
        jobs.extend(self.all(Some("running")).await);
        jobs
    }

    /// Waits until the job is as `wanted` says.
    pub(crate) async fn wait(&self, id: JobId, wanted: impl Fn(&Job) -> bool) -> Job {
        loop {
            let job = self.job(id).await;
            if wanted(&job) {
                return job;
            }
            self.give_up_when_late("a job that does not go on").await;
            sleep(Duration::from_millis(3)).await;
        }
    }

    pub(crate) async fn wait_for_all(&self) {
        while !self.unfinished().await.is_empty() {
            self.give_up_when_late("jobs that do not end").await;
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fails with what is known of the unfinished jobs when the test takes far too long.
    pub(crate) async fn give_up_when_late(&self, why: &str) {
        if self.begun.elapsed() < self.limit {
            return;
        }
        let mut report = vec![format!("{why} after {:?}; struck so far: {:?}", self.limit, self.strikes)];
        for job in self.unfinished().await {
            report.push(format!("{}: {:?}, checkpoint {:?}", job.id, job.state, job.checkpoint));
            for event in self.events(job.id).await.iter().rev().take(30).rev() {
                report.push(format!("  {} {:?} {}", event.seq, event.kind, event.data));
            }
        }
        for home in &self.homes {
            let log = std::fs::read_to_string(&home.log).unwrap_or_default();
            let skipped = log.lines().count().saturating_sub(60);
            report.extend(log.lines().skip(skipped).map(str::to_owned));
        }
        panic!("{}", report.join("\n"));
    }

    pub(crate) async fn events(&self, job: JobId) -> Vec<Event> {
        self.app.state.jobs.events(job, 0, u32::MAX).await.expect("reads")
    }

    /// The digest of each artifact's bytes, except of the report, which has times.
    pub(crate) async fn digests(&self, job: JobId) -> BTreeMap<String, String> {
        let artifacts = self.app.state.jobs.artifacts(job).await.expect("reads");
        let names: Vec<&str> = artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
        assert_eq!(
            names,
            ["architecture", "card", "model", "model.py", "provenance", "report", "report.html"],
            "{job}"
        );
        let mut digests = BTreeMap::new();
        for artifact in artifacts {
            let digest = sha256(&std::fs::read(self.file_of(&artifact.blob_key)).expect("the artifact's bytes"));
            assert_eq!(digest, artifact.sha256, "{job}: {}", artifact.name);
            digests.insert(artifact.name, digest);
        }
        digests.remove("report");
        digests.remove("report.html");
        digests
    }

    /// What must hold when all is over. Returns how many attempts were cut short.
    pub(crate) async fn check(&self) -> usize {
        let mut interruptions = 0;
        for (job, kind) in &self.jobs {
            interruptions += self.check_history(*job).await;
            assert_eq!(&self.digests(*job).await, &self.expected[*kind], "{job} differs from the undisturbed result");
        }
        let mut keys = BTreeSet::new();
        for job in self.all(None).await {
            let artifacts = self.app.state.jobs.artifacts(job.id).await.expect("reads");
            keys.extend(artifacts.into_iter().map(|artifact| artifact.blob_key));
        }
        self.check_leftovers(&keys).await;
        interruptions
    }

    /// The job's history is whole: no gap, one state after the other, one end. Returns how many attempts were cut short.
    pub(crate) async fn check_history(&self, id: JobId) -> usize {
        let (job, events) = (self.job(id).await, self.events(id).await);
        assert!(matches!(job.state, State::Succeeded(_)), "{id} was lost: {:?}\n{events:#?}", job.state);
        assert_eq!((job.checkpoint, job.state.effort().attempts > 0), (None, true), "{id}");
        assert!(events.iter().enumerate().all(|(index, event)| event.seq == index as i64 + 1), "{id}: {events:#?}");
        let attempts = job.state.effort().attempts;
        let states: Vec<(&str, u32)> = events
            .iter()
            .filter(|event| event.kind == EventKind::State)
            .map(|event| (event.data["state"].as_str().expect("a state"), event.attempt))
            .collect();
        let mut expected = vec![("queued", 0)];
        for attempt in 1..=attempts {
            expected.extend([("running", attempt), ("queued", attempt)]);
        }
        expected.pop();
        expected.push(("succeeded", attempts));
        assert_eq!(states, expected, "{id}");
        assert_eq!(events.last().map(|event| event.kind), Some(EventKind::State), "{id}: something after the end");
        let reported = events.iter().filter(|event| event.kind == EventKind::Metric).map(|event| &event.data["epoch"]);
        let epochs: Vec<Value> = (0..=EPOCHS).map(|epoch| json!(epoch)).collect();
        assert!(reported.eq(&epochs), "{id}: each epoch is told once");
        let metrics = self.app.state.jobs.metrics(id).await.expect("reads");
        assert!(metrics.iter().map(|metric| &metric["epoch"]).eq(&epochs), "{id}: each epoch counts once");
        attempts as usize - 1
    }

    /// A worker that starts sweeps what the killed ones have left, and the server, a day later, blobs that no row names; nobody
    /// still computes.
    pub(crate) async fn check_leftovers(&self, keys: &BTreeSet<String>) {
        let workers: Vec<Worker> = self.homes.iter().map(|home| Worker::start(home, self.lease)).collect();
        let scratch: Vec<PathBuf> = self.homes.iter().map(|home| home.data_dir.join("scratch")).collect();
        let state = &self.app.state;
        let clock = Arc::new(ManualClock::at(state.clock.now() + Duration::from_hours(25)));
        let trash = Trash::new(self.app.folder.path(), Duration::from_hours(24), clock.clone());
        let mut sweeper = Sweeper::new(state.database.clone(), state.blobs.clone(), trash, clock.clone());
        loop {
            sweeper.look().await.expect("looks");
            clock.advance(BETWEEN_LOOKS);
            let blobs = self.app.state.blobs.list("jobs").await.expect("lists");
            let blobs: BTreeSet<String> = blobs.into_iter().map(|(key, _)| key).collect();
            assert!(keys.is_subset(&blobs), "an artifact's bytes are gone");
            let folders: Vec<_> = scratch.iter().flat_map(|scratch| files(scratch)).collect();
            let processes: Vec<_> = scratch.iter().flat_map(|scratch| working_below(scratch)).collect();
            if &blobs == keys && folders.is_empty() && processes.is_empty() {
                break;
            }
            let orphans: Vec<&String> = blobs.difference(keys).collect();
            self.give_up_when_late(&format!("left over: {orphans:?} {folders:?} {processes:?}")).await;
            sleep(Duration::from_millis(50)).await;
        }
        for worker in workers {
            self.stop(worker).await;
        }
    }
}
