//! The supervisor against children that are shell scripts: each does one thing that a child may do, or must not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::roll::RollEntry;
use super::{Policy, Program, Stint, Worker, run};
use crate::domain::access::Tenant;
use crate::domain::clock::{Clock, ManualClock, SharedClock, SteadyTime, SystemClock, from_millis};
use crate::domain::gpu::Gpus;
use crate::domain::id::{JobId, WorkerId};
use crate::domain::job::{MAX_STALLED_ATTEMPTS, State};
use crate::domain::problem::Code;
use crate::domain::progress::Phase;
use crate::domain::quota::Quota;
use crate::plan::parse::parse;
use crate::runtime::lifecycle::Shutdown;
use crate::settings::Device;
use crate::store::jobs::{Claimant, Event, Job, Jobs, NewJob};
use crate::store::workers::Workers;
use crate::store::{Blobs, testing};

/// What every script can use: `say` a message, `file` an output.
const PRELUDE: &str = r#"
say() { printf '%s\n' "$1"; }
file() { printf '%s' "$2" > "$1"; printf '{"name":"%s","path":"%s/%s","sha256":"%064d","bytes":%d,"media_type":"text/plain"}' "$1" "$PWD" "$1" 0 ${#2}; }
finish() { say "{\"type\":\"finished\",\"artifacts\":[$(file model weights),$(file report '{}')]}"; }
read -r task
"#;

mod gpus;
mod speed;
mod transient;
mod workers;

struct House {
    folder: tempfile::TempDir,
    worker: Worker,
    shutdown: Shutdown,
    running: Option<JoinHandle<()>>,
}

impl House {
    async fn new(script: &str) -> Self {
        Self::at(Arc::new(SystemClock), script).await
    }

    async fn at(clock: SharedClock, script: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = testing::open(folder.path()).await;
        let blobs = Blobs::open(folder.path()).expect("opens");
        let args = ["-c".into(), format!("{PRELUDE}{script}").into()].into();
        let policy = Policy {
            memory_limit: None,
            scratch_limit: None,
            keep_free: 0,
            quota: Quota::default(),
            slots: vec![Device::Cpu; 2],
            gpus: Gpus::default(),
            gpu_memory_limit: None,
            threads: 1,
            lease: Duration::from_secs(2),
            heartbeat: Duration::from_millis(50),
            poll: Duration::from_millis(20),
            grace: Duration::from_millis(300),
            program: Program { path: "/bin/sh".into(), args },
            stopwatch: None,
        };
        let scratch = folder.path().join("scratch");
        let worker = Worker::new(policy, &database, blobs, clock, scratch);
        Self { folder, worker, shutdown: Shutdown::new(), running: None }
    }

    fn jobs(&self) -> &Jobs {
        &self.worker.jobs
    }

    fn start(&mut self) {
        let (worker, shutdown) = (self.worker.clone(), self.shutdown.clone());
        self.running =
            Some(tokio::spawn(async { run(worker, Stint::default(), Arc::new(Notify::new()), shutdown).await }));
    }

    async fn queue(&self, max_runtime: Duration) -> JobId {
        let request = parse(&json!({ "members": ["m0.safetensors", "m1.safetensors"] })).expect("a valid body");
        let job = NewJob {
            tenant: Tenant::default(),
            owner: None,
            device: request.device,
            resolved: Value::from(request),
            plan: json!({}),
            labels: BTreeMap::new(),
            max_runtime,
            priority: 0,
            inputs: Vec::new(),
        };
        self.jobs().insert(&job, None).await.expect("inserts")
    }

    async fn job(&self, id: JobId) -> Job {
        self.jobs().get(&Tenant::default(), id).await.expect("a job")
    }

    /// Waits until the job is as `wanted` says.
    async fn wait(&self, id: JobId, what: &str, wanted: impl Fn(&Job) -> bool) -> Job {
        for _ in 0..1500 {
            let job = self.job(id).await;
            if wanted(&job) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the job was never {what}: {:?}\n{:#?}", self.job(id).await, self.logs(id).await)
    }

    async fn run_to_end(&mut self) -> Job {
        self.start();
        let id = self.queue(Duration::from_hours(1)).await;
        self.wait(id, "ended", |job| job.state.is_terminal()).await
    }

    async fn logs(&self, id: JobId) -> Vec<String> {
        let text = |event: Event| event.data["message"].as_str().unwrap_or_default().to_owned();
        self.jobs().last_logs(id, 100).await.expect("reads").into_iter().map(text).collect()
    }

    async fn stop(mut self) -> tempfile::TempDir {
        self.shutdown.drain();
        if let Some(running) = self.running.take() {
            running.await.expect("ends");
        }
        let live = Workers::live(&self.worker.workers).await.expect("reads");
        assert!(live.is_empty(), "a worker that has ended is still listed");
        self.folder
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn a_child_that_finishes_leaves_results_metrics_and_a_log() {
    let mut house = House::new(
        r#"
        say '{"type":"phase","phase":"load"}'
        say '{"type":"log","level":"warning","message":"the members differ"}'
        echo 'a word on stderr' >&2
        say '{"type":"phase","phase":"finetune"}'
        say '{"type":"metric","epoch":1,"train_loss":0.5,"train_accuracy":0.75,"validation":null,"test":null,"lr":0.1,"images_per_s":9.5}'
        say '{"type":"progress","phase":"finetune","fraction":0.5,"epoch":1,"step":2,"images_per_s":9.5,"eta_s":3.0}'
        finish"#,
    )
    .await;
    let job = house.run_to_end().await;
    assert!(matches!(job.state, State::Succeeded(_)), "{:?}", job.state);
    assert_eq!(job.phases.iter().map(|phase| phase.name).collect::<Vec<_>>(), [Phase::Load, Phase::Finetune]);
    assert_eq!(job.progress.map(|progress| progress.fraction), Some(1.0));
    assert_eq!(house.jobs().metrics(job.id).await.expect("reads").len(), 1);
    let logs = house.logs(job.id).await;
    assert!(logs.iter().any(|line| line == "the members differ"), "{logs:?}");
    assert!(logs.iter().any(|line| line == "a word on stderr"), "{logs:?}");
    let artifacts = house.jobs().artifacts(job.id).await.expect("reads");
    let path = house.worker.blobs.path_of(&artifacts[0].blob_key).expect("a path");
    assert_eq!(std::fs::read_to_string(path).expect("reads"), "weights");
    let folder = house.stop().await;
    assert!(names(&folder.path().join("scratch")).is_empty(), "the attempt's folder is gone");
}

#[tokio::test]
async fn a_child_that_dies_is_replaced_by_one_that_resumes() {
    let mut house = House::new(
        r#"
        say '{"type":"phase","phase":"load"}'
        case "$task" in
            *'"resume":null'*)
                say "{\"type\":\"checkpoint\",\"epoch\":1,\"file\":$(file checkpoint first)}"
                echo 'about to crash' >&2
                kill -9 $$ ;;
            *)
                resume=$(printf '%s' "$task" | sed 's/.*"resume":"\([^"]*\)".*/\1/')
                test "$(cat "$resume")" = first || exit 9
                say "{\"type\":\"checkpoint\",\"epoch\":2,\"file\":$(file checkpoint second)}"
                finish ;;
        esac"#,
    )
    .await;
    let job = house.run_to_end().await;
    assert!(matches!(&job.state, State::Succeeded(ended) if ended.effort.attempts == 2), "{:?}", job.state);
    let logs = house.logs(job.id).await;
    assert!(logs.iter().any(|line| line.contains("signal: 9")), "{logs:?}");
    assert!(logs.iter().any(|line| line == "about to crash"), "{logs:?}");
    let blobs = house.worker.blobs.clone();
    let _folder = house.stop().await;
    let mut kept: Vec<String> = blobs.list("jobs").await.expect("lists").into_iter().map(|(key, _)| key).collect();
    kept.sort();
    assert_eq!(kept, ["model", "report"].map(|name| format!("jobs/{}/2/{name}", job.id)), "no checkpoint is left");
}

#[tokio::test]
async fn a_checkpoint_that_is_gone_already_is_passed_over() {
    let mut house = House::new(
        r#"
        say '{"type":"phase","phase":"load"}'
        gone=$(file gone first); rm gone
        say "{\"type\":\"checkpoint\",\"epoch\":1,\"file\":$gone}"
        finish"#,
    )
    .await;
    let job = house.run_to_end().await;
    assert!(matches!(&job.state, State::Succeeded(ended) if ended.effort.attempts == 1), "{:?}", job.state);
    house.stop().await;
}

#[tokio::test]
async fn a_child_that_always_dies_is_a_crash_loop() {
    let mut house = House::new("exit 3").await;
    let job = house.run_to_end().await;
    let State::Failed(ended, problem) = &job.state else { panic!("{:?}", job.state) };
    assert_eq!((problem.code, ended.effort.attempts), (Code::CrashLoop, MAX_STALLED_ATTEMPTS + 1));
    let logs = house.logs(job.id).await;
    assert!(logs.iter().any(|line| line.contains("exit status: 3")), "{logs:?}");
    house.stop().await;
}

#[tokio::test]
async fn a_child_that_cannot_start_or_talks_nonsense_crashes() {
    for (script, expected) in [
        ("say 'hello?'; sleep 60", "no message"),
        ("say \"$(head -c 2000000 /dev/zero | tr '\\0' x)\"", "a line of more than"),
    ] {
        let mut house = House::new(script).await;
        let job = house.run_to_end().await;
        assert!(matches!(&job.state, State::Failed(_, problem) if problem.code == Code::CrashLoop), "{:?}", job.state);
        let logs = house.logs(job.id).await;
        assert!(logs.iter().any(|line| line.contains(expected)), "{logs:?}");
        house.stop().await;
    }
    let mut house = House::new("").await;
    house.worker.policy.program.path = "/nonexistent/engraft".into();
    let job = house.run_to_end().await;
    let logs = house.logs(job.id).await;
    assert!(logs.iter().any(|line| line.contains("engraft cannot be started")), "{logs:?}");
    assert!(!logs.iter().any(|line| line.contains("/nonexistent")), "no path of the server is shown: {logs:?}");
    house.stop().await;
}

#[tokio::test]
async fn a_child_that_reports_a_problem_fails_the_job_at_once() {
    let script = r#"say '{"type":"failed","problem":{"code":"non_finite_weights","detail":"m0: fc.weight has NaN"}}'"#;
    let mut house = House::new(script).await;
    let job = house.run_to_end().await;
    let State::Failed(ended, problem) = &job.state else { panic!("{:?}", job.state) };
    assert_eq!((problem.code, ended.effort.attempts), (Code::NonFiniteWeights, 1));
    house.stop().await;
}

#[tokio::test]
async fn a_child_that_has_sent_its_last_message_exits_by_itself() {
    let script = r#"
        case "$PWD" in
            *-1)
                say '{"type":"transient_failure","problem":{"code":"disk_full","detail":"no room."}}'
                sleep 0.2
                echo 'tidied up' >&2 ;;
            *) finish ;;
        esac"#;
    let mut house = House::new(script).await;
    let job = house.run_to_end().await;
    assert!(matches!(&job.state, State::Succeeded(ended) if ended.effort.attempts == 2), "{:?}", job.state);
    let logs = house.logs(job.id).await;
    assert!(logs.iter().any(|line| line == "tidied up"), "{logs:?}");
    house.stop().await;
}

#[tokio::test]
async fn a_file_outside_the_scratch_folder_is_not_published() {
    let script = r#"
        say '{"type":"finished","artifacts":[{"name":"model","path":"/etc/hostname","sha256":"00","bytes":1,"media_type":"text/plain"}]}'"#;
    let mut house = House::new(script).await;
    let job = house.run_to_end().await;
    assert!(matches!(&job.state, State::Failed(_, problem) if problem.code == Code::Internal), "{:?}", job.state);
    assert!(Path::new("/etc/hostname").exists());
    house.stop().await;
}

#[tokio::test]
async fn cancelling_stops_a_child_that_listens_and_kills_one_that_does_not() {
    for script in [
        r#"say '{"type":"phase","phase":"load"}'; read -r command; test "$command" = '"stop"' && say '{"type":"stopped"}'"#,
        r#"say '{"type":"phase","phase":"load"}'; sleep 600"#,
    ] {
        let mut house = House::new(script).await;
        house.start();
        let id = house.queue(Duration::from_hours(1)).await;
        house.wait(id, "loading", |job| !job.phases.is_empty()).await;
        assert!(house.jobs().cancel(&Tenant::default(), id).await.expect("cancels"));
        let job = house.wait(id, "ended", |job| job.state.is_terminal()).await;
        assert!(matches!(job.state, State::Cancelled(_)), "{:?}", job.state);
        house.stop().await;
    }
}

#[tokio::test]
async fn a_job_that_has_used_up_its_time_fails() {
    let mut house = House::new("sleep 600").await;
    house.start();
    let id = house.queue(Duration::from_millis(300)).await;
    let job = house.wait(id, "ended", |job| job.state.is_terminal()).await;
    assert!(
        matches!(&job.state, State::Failed(_, problem) if problem.code == Code::MaxRuntimeExceeded),
        "{:?}",
        job.state
    );
    house.stop().await;
}
