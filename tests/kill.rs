//! Workers and their children are killed with SIGKILL, a hundred times at random points, while jobs run side by side
//! under leases of one second. No job may be lost, none may be published twice, and each result must equal, bit for
//! bit, that of the same job undisturbed.

#![cfg(target_os = "linux")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use engraft::domain::access::Tenant;
use engraft::domain::id::JobId;
use engraft::domain::job::State;
use engraft::model::formats::safetensors::encode_header;
use engraft::model::header::{Dtype, TensorInfo};
use engraft::store::jobs::{EventKind, Job, Jobs};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::TestApp;

const KILLS: usize = 100;
/// Worker processes, each with two slots.
const WORKERS: usize = 2;
/// Jobs that are kept going at the same time.
const ACTIVE: usize = 6;
/// Different jobs; each is run undisturbed first.
const SEEDS: u64 = 3;
/// One kill in so many hits a worker, with all its jobs; the others hit one child.
const WORKER_EVERY: u32 = 4;
const PATIENCE: Duration = Duration::from_mins(4);

const INPUTS: usize = 32;
const CLASSES: usize = 4;
const EXAMPLES: usize = 1024;
const HIDDEN: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_and_results_are_equal_bit_for_bit_after_a_hundred_kills() {
    let mut random = ChaCha8Rng::seed_from_u64(20_240_823);
    let yard = Yard::open(&mut random).await;
    let mut pool = Pool::start(yard.folder());

    let mut undisturbed = BTreeMap::new();
    for seed in 0..SEEDS {
        let job = yard.queue(seed).await;
        yard.wait_for(&[job]).await;
        undisturbed.insert(seed, yard.result(job).await);
    }

    let mut jobs: Vec<(u64, JobId)> = Vec::new();
    let mut killed = 0;
    let mut headway = 0;
    let begun = Instant::now();
    while killed < KILLS {
        assert!(begun.elapsed() < PATIENCE, "only {killed} kills: {:#?}", yard.states(&jobs).await);
        while yard.active(&jobs).await < ACTIVE {
            let seed = jobs.len() as u64 % SEEDS;
            jobs.push((seed, yard.queue(seed).await));
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(20..500))).await;
        // However slow the machine is, work is done between two kills; where exactly the next one hits is left to chance.
        let now = yard.headway(&jobs).await;
        if now > headway {
            headway = now;
            killed += usize::from(pool.kill_someone(&mut random));
        }
    }
    let ids: Vec<JobId> = jobs.iter().map(|(_, job)| *job).collect();
    yard.wait_for(&ids).await;
    let seconds = begun.elapsed().as_secs_f64();

    let mut resumed = 0;
    let mut attempts = 0;
    for (seed, job) in &jobs {
        assert_eq!(yard.result(*job).await, undisturbed[seed], "{job} with seed {seed}");
        resumed += usize::from(yard.check_history(*job).await);
        attempts += yard.job(*job).await.state.effort().attempts;
    }
    assert!(resumed > 0, "no job went on from a checkpoint of an earlier attempt");
    eprintln!(
        "{killed} kills, {} jobs, {attempts} attempts, {resumed} resumed from a checkpoint, {seconds:.1} s",
        jobs.len()
    );

    pool.end();
    // A worker that starts tidies up what the killed ones have left.
    let mut last = Pool::start(yard.folder());
    yard.check_disk(&jobs).await;
    last.end();
    assert_eq!(processes_below(yard.folder()), BTreeSet::new(), "a child has outlived its supervisor");
    yard.app.stop().await;
}

/// What a job leaves that must not depend on what happened on the way.
#[derive(Debug, PartialEq)]
struct JobResult {
    digests: BTreeMap<String, String>,
    metrics: Vec<Value>,
}

/// A server without workers, with members and data of its own.
struct Yard {
    app: TestApp,
    jobs: Jobs,
}

impl Yard {
    async fn open(random: &mut ChaCha8Rng) -> Self {
        let app = TestApp::start().await;
        for member in 0..2 {
            let path = format!("/v1/checkpoints/m{member}.safetensors");
            let response = app.put(&path, network(random)).send().await.expect("an answer");
            assert_eq!(response.status(), StatusCode::CREATED);
        }
        let response = app.put("/v1/datasets/dots.safetensors", dots(random)).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::CREATED);
        let dataset = app.dataset("dots.safetensors").await;
        assert_eq!(dataset["state"], "ready", "{dataset:#}");
        let jobs = app.state.jobs.clone();
        Self { app, jobs }
    }

    fn folder(&self) -> &Path {
        self.app.folder.path()
    }

    async fn queue(&self, seed: u64) -> JobId {
        let body = json!({
            "members": ["m0.safetensors", "m1.safetensors"], "dataset": "dots.safetensors", "seed": seed,
            "finetune": {"epochs": 8, "batch_size": 16},
        });
        let request = self.app.request(reqwest::Method::POST, "/v1/jobs").json(&body);
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let view: Value = response.json().await.expect("JSON");
        assert_eq!(status, StatusCode::ACCEPTED, "{view:#}");
        view["id"].as_str().expect("an id").parse().expect("a job's id")
    }

    async fn job(&self, job: JobId) -> Job {
        self.jobs.get(&Tenant::default(), job).await.expect("a job is never lost")
    }

    async fn states(&self, jobs: &[(u64, JobId)]) -> Vec<State> {
        let mut states = Vec::new();
        for (_, job) in jobs {
            states.push(self.job(*job).await.state);
        }
        states
    }

    async fn active(&self, jobs: &[(u64, JobId)]) -> usize {
        self.states(jobs).await.iter().filter(|state| !state.is_terminal()).count()
    }

    /// Grows with every phase, epoch and end of a job.
    async fn headway(&self, jobs: &[(u64, JobId)]) -> usize {
        let mut headway = 0;
        for (_, job) in jobs {
            headway += self.jobs.events(*job, 0, 10_000).await.expect("reads").len();
        }
        headway
    }

    async fn wait_for(&self, jobs: &[JobId]) {
        let begun = Instant::now();
        for job in jobs {
            while !self.job(*job).await.state.is_terminal() {
                assert!(begun.elapsed() < PATIENCE, "{job} does not end: {:#?}", self.job(*job).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn result(&self, job: JobId) -> JobResult {
        let state = self.job(job).await.state;
        let log = self.jobs.last_logs(job, 50).await.expect("reads");
        assert!(matches!(state, State::Succeeded(_)), "{job}: {state:?}\n{log:#?}");
        let artifacts = self.jobs.artifacts(job).await.expect("reads");
        // The report has latencies, which differ between any two runs; the model, its graph and its origin must not.
        let lasting = artifacts.into_iter().filter(|artifact| artifact.name != "report");
        let mut metrics = self.jobs.metrics(job).await.expect("reads");
        for epoch in &mut metrics {
            epoch["images_per_s"] = Value::Null;
        }
        JobResult { digests: lasting.map(|artifact| (artifact.name, artifact.sha256)).collect(), metrics }
    }

    /// Checks that the history tells one story; true if an attempt went on from another one's checkpoint.
    async fn check_history(&self, job: JobId) -> bool {
        let events = self.jobs.events(job, 0, 10_000).await.expect("reads");
        let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=events.len() as i64).collect::<Vec<_>>(), "{job} has a gap in its history");
        let states = events.iter().filter(|event| event.kind == EventKind::State);
        let states: Vec<&str> = states.filter_map(|event| event.data["state"].as_str()).collect();
        assert_eq!(states.iter().filter(|state| **state == "succeeded").count(), 1, "{job}: {states:?}");
        assert_eq!(states.last(), Some(&"succeeded"), "{job}: {states:?}");
        let begun = states.iter().filter(|state| **state == "running").count();
        assert_eq!(begun, self.job(job).await.state.effort().attempts as usize, "{job}: {states:?}");
        let metrics = events.iter().filter(|event| event.kind == EventKind::Metric);
        let epochs: Vec<(i64, u32)> =
            metrics.filter_map(|event| Some((event.data["epoch"].as_i64()?, event.attempt))).collect();
        assert!(epochs.is_sorted(), "{job}: an epoch was reported again: {epochs:?}");
        epochs.iter().map(|(_, attempt)| attempt).collect::<BTreeSet<_>>().len() > 1
    }

    /// Checks that the blobs are the published results, each once, and nothing else.
    async fn check_disk(&self, jobs: &[(u64, JobId)]) {
        let tenant = Tenant::default();
        let mut expected = BTreeSet::new();
        let undisturbed =
            engraft::store::listing::Listing { limit: 1000, after: None, state: None, labels: BTreeMap::new() };
        for job in self.jobs.list(&tenant, &undisturbed).await.expect("lists") {
            expected.extend(self.jobs.artifacts(job.id).await.expect("reads").into_iter().map(|one| one.blob_key));
        }
        assert!(expected.len() >= jobs.len() * 4, "every job has four results");
        let begun = Instant::now();
        loop {
            let listed = self.app.state.blobs.list("jobs").await.expect("lists");
            let found: BTreeSet<String> = listed.into_iter().map(|(key, _)| key).collect();
            let scratch = fs::read_dir(self.folder().join("scratch")).map_or(0, Iterator::count);
            if found == expected && scratch == 0 {
                return;
            }
            let missing: Vec<_> = expected.difference(&found).collect();
            assert!(missing.is_empty(), "published results are gone: {missing:?}");
            let left: Vec<_> = found.difference(&expected).collect();
            assert!(begun.elapsed() < Duration::from_secs(20), "not tidied up: {left:?}, {scratch} scratch folders");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Worker processes that are replaced when they die.
struct Pool {
    folder: PathBuf,
    workers: Vec<Child>,
}

impl Pool {
    fn start(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), workers: (0..WORKERS).map(|_| start_worker(folder)).collect() }
    }

    /// Kills a worker or a child; false if there was nobody to kill.
    fn kill_someone(&mut self, random: &mut ChaCha8Rng) -> bool {
        if random.random_range(0..WORKER_EVERY) == 0 {
            let victim = random.random_range(0..self.workers.len());
            self.workers[victim].kill().expect("kills");
            self.workers[victim].wait().expect("ends");
            self.workers[victim] = start_worker(&self.folder);
            return true;
        }
        let children: Vec<i32> = processes_below(&self.folder).into_iter().collect();
        if children.is_empty() {
            return false;
        }
        let victim = children[random.random_range(0..children.len())];
        Pid::from_raw(victim).is_some_and(|victim| kill_process(victim, Signal::KILL).is_ok())
    }

    /// Asks all workers to end, and waits for it.
    fn end(&mut self) {
        for worker in &self.workers {
            let pid = Pid::from_raw(worker.id() as i32).expect("a process id");
            kill_process(pid, Signal::TERM).expect("signals");
        }
        for mut worker in self.workers.drain(..) {
            let status = worker.wait().expect("ends");
            assert!(status.success(), "a worker that was asked to end: {status}");
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            if worker.kill().is_ok() {
                let _ended = worker.wait();
            }
        }
    }
}

fn start_worker(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_engraft"))
        .args(["worker", "--workers", "2", "--threads", "1", "--lease", "1", "--heartbeat", "0.2", "--device", "cpu"])
        .arg("--data-dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a worker")
}

/// The children that compute: their working directory is their attempt's scratch folder.
fn processes_below(folder: &Path) -> BTreeSet<i32> {
    let scratch = fs::canonicalize(folder).expect("a folder").join("scratch");
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| cwd.starts_with(&scratch))).collect()
}

/// A small network with random weights.
fn network(random: &mut ChaCha8Rng) -> Vec<u8> {
    let shapes: [(&str, Vec<usize>); 6] = [
        ("fc1.weight", vec![HIDDEN, INPUTS]),
        ("fc1.bias", vec![HIDDEN]),
        ("fc2.weight", vec![HIDDEN, HIDDEN]),
        ("fc2.bias", vec![HIDDEN]),
        ("fc3.weight", vec![CLASSES, HIDDEN]),
        ("fc3.bias", vec![CLASSES]),
    ];
    let tensors: Vec<TensorInfo> = shapes
        .into_iter()
        .map(|(name, shape)| TensorInfo { name: name.to_owned(), dtype: Dtype::F32, shape })
        .collect();
    let mut file = encode_header(&tensors, &BTreeMap::new());
    let elements: usize = tensors.iter().map(TensorInfo::elements).sum();
    file.extend((0..elements).flat_map(|_| random.random_range(-0.2_f32..0.2).to_le_bytes()));
    file
}

/// A dataset of noisy points around one centre per class.
fn dots(random: &mut ChaCha8Rng) -> Vec<u8> {
    let tensor = |name: &str, dtype, shape: Vec<usize>| TensorInfo { name: name.to_owned(), dtype, shape };
    let tensors = [tensor("x", Dtype::F32, vec![EXAMPLES, INPUTS]), tensor("y", Dtype::I64, vec![EXAMPLES])];
    let mut file = encode_header(&tensors, &BTreeMap::new());
    let centres: Vec<f32> = (0..CLASSES * INPUTS).map(|_| random.random_range(-1.0..1.0)).collect();
    for example in 0..EXAMPLES {
        let centre = &centres[example % CLASSES * INPUTS..][..INPUTS];
        file.extend(centre.iter().flat_map(|value| (value + random.random_range(-2.0_f32..2.0)).to_le_bytes()));
    }
    file.extend((0..EXAMPLES).flat_map(|example| ((example % CLASSES) as i64).to_le_bytes()));
    file
}
