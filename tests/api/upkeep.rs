//! A data directory is looked after while a server runs on it: verified, copied, restored, rid of what is old.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::app::{Builder, TestApp, database, problem};
use crate::common::samples::{member, sha256};
use engraft::domain::retention::Rules;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Runs `engraft` with these arguments.
fn engraft(arguments: &[&str]) -> Output {
    engraft_in(Path::new("."), arguments)
}

fn engraft_in(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_engraft")).args(arguments).current_dir(folder).output().expect("runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn on_the_side<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

/// Runs `engraft` with these arguments on the data directory of a server.
fn engraft_on(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engraft"));
    command.args(arguments).arg("--data-dir").arg(folder).env("ENGRAFT_DATABASE", database(folder));
    command.output().expect("runs")
}

fn verify(folder: &Path) -> Output {
    engraft_on(folder, &["verify"])
}

/// A server with two members and a job that has ended well.
async fn with_a_job() -> (TestApp, String) {
    with_a_job_on(TestApp::builder()).await
}

async fn with_a_job_on(server: Builder) -> (TestApp, String) {
    let app = server.settings(|settings| settings.workers.workers = 1).start().await;
    for name in ["m0", "m1"] {
        assert!(
            app.put(&format!("/v1/checkpoints/{name}"), member())
                .send()
                .await
                .expect("an answer")
                .status()
                .is_success()
        );
    }
    let body = json!({"members": ["m0", "m1"], "architecture": {"assume": true}});
    let queued: Value =
        app.request(Method::POST, "/v1/jobs").json(&body).send().await.expect("an answer").json().await.expect("JSON");
    let id = queued["id"].as_str().expect("an id").to_owned();
    for _ in 0..600 {
        let job: Value =
            app.get(&format!("/v1/jobs/{id}")).send().await.expect("an answer").json().await.expect("JSON");
        match job["state"].as_str() {
            Some("succeeded") => return (app, id),
            Some("queued" | "running") => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => panic!("{job:#}"),
        }
    }
    panic!("the job does not end");
}

/// The file behind a checkpoint's or an artifact's blob.
fn blob(app: &TestApp, part: &str) -> std::path::PathBuf {
    let mut folders = vec![app.folder.path().join("blobs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().contains(part) && path.extension().is_none() {
                return path;
            }
        }
    }
    panic!("no blob {part}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_bit_is_found_named_and_never_served_or_fused() {
    let (app, id) = with_a_job().await;
    let data = app.folder.path().to_owned();
    let sound = on_the_side({
        let data = data.clone();
        move || verify(&data)
    })
    .await;
    assert!(
        sound.status.success() && sound.stderr.is_empty(),
        "a quick check says its verdict alone: {}",
        text(&sound)
    );
    let model = app.get(&format!("/v1/jobs/{id}/model")).send().await.expect("an answer");
    assert_eq!(model.status(), StatusCode::OK);

    // After the next start the disk has changed a bit of the model and of a member.
    let folder = app.stop().await;
    let app = TestApp::builder().folder(folder).settings(|settings| settings.workers.workers = 1).start().await;
    for part in ["/model", "checkpoints/ckpt_"] {
        let path = blob(&app, part);
        let mut bytes = std::fs::read(&path).expect("reads");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).expect("writes");
    }
    for form in ["model", "model?format=pt"] {
        let refused = app.get(&format!("/v1/jobs/{id}/{form}")).send().await.expect("an answer");
        let (status, code, _) = problem(refused).await;
        assert_eq!((status.as_u16(), code.as_str()), (500, "file_damaged"), "{form}");
    }
    let report = app.get(&format!("/v1/jobs/{id}/report")).send().await.expect("an answer");
    assert_eq!(report.status(), StatusCode::OK, "what is whole is served");

    let body = json!({"members": ["m0", "m1"], "architecture": {"assume": true}});
    let queued: Value =
        app.request(Method::POST, "/v1/jobs").json(&body).send().await.expect("an answer").json().await.expect("JSON");
    let path = format!("/v1/jobs/{}?", queued["id"].as_str().expect("an id"));
    let mut job = Value::Null;
    for _ in 0..600 {
        job = app.get(&path).send().await.expect("an answer").json().await.expect("JSON");
        if job["state"] == "failed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(job["error"]["code"], "file_damaged", "{job:#}");
    assert!(
        job["error"]["detail"].as_str().is_some_and(|detail| detail.contains("`m")),
        "it names the member: {job:#}"
    );

    let damaged = on_the_side(move || verify(&data)).await;
    let said = text(&damaged);
    assert_eq!(damaged.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("damaged   ").count(), 2, "{said}");
    assert!(said.contains(&format!("model of {id}")), "{said}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_one_moment_and_restores_to_a_working_server() {
    let (app, id) = with_a_job_on(TestApp::builder().in_data_dir()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    // Uploads and deletions go on all the time.
    let load: Vec<_> = (0..4)
        .map(|worker| {
            let (stop, sent, client, address) = (stop.clone(), sent.clone(), app.client.clone(), app.address);
            tokio::spawn(async move {
                for index in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let url = format!("http://{address}/v1/checkpoints/load-{worker}-{index}");
                    let put = client.put(&url).body(member()).send().await.expect("an answer");
                    assert_eq!(put.status(), StatusCode::CREATED);
                    sent.fetch_add(1, Ordering::Relaxed);
                    if index % 3 != 0 {
                        let gone = client.delete(&url).send().await.expect("an answer");
                        assert_eq!(gone.status(), StatusCode::NO_CONTENT);
                    }
                }
            })
        })
        .collect();
    let (data, place) = (app.folder.path().to_owned(), tempfile::tempdir().expect("a folder"));
    for round in 0..4 {
        let (data, to) = (data.clone(), place.path().join(format!("backup-{round}")));
        on_the_side(move || {
            let (data, to) = (data.to_str().expect("text"), to.to_str().expect("text"));
            let mut arguments = vec!["backup", to, "--data-dir", data];
            arguments.extend((round % 2 == 1).then_some("--copies"));
            let made = engraft(&arguments);
            assert!(made.status.success(), "{}", text(&made));
            let again = engraft(&arguments);
            assert!(!again.status.success() && text(&again).contains("exists"), "{}", text(&again));
            let verified = engraft(&["verify", "--data-dir", to]);
            assert!(verified.status.success() && !text(&verified).contains("orphan"), "{}", text(&verified));
        })
        .await;
    }
    // By a path that is relative, through a link.
    let (data, folder) = (data.clone(), place.path().to_owned());
    on_the_side(move || {
        std::os::unix::fs::symlink(&data, folder.join("link")).expect("links");
        let made = engraft_in(&folder, &["backup", "relative", "--data-dir", "link"]);
        assert!(made.status.success(), "{}", text(&made));
        let verified = engraft_in(&folder, &["verify", "--data-dir", "relative"]);
        assert!(verified.status.success(), "{}", text(&verified));
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for worker in load {
        worker.await.expect("the load is answered well");
    }
    assert!(sent.load(Ordering::Relaxed) > 8, "there was load");
    let model =
        app.get(&format!("/v1/jobs/{id}/model")).send().await.expect("an answer").bytes().await.expect("a body");
    drop(app.stop().await);

    let target = tempfile::tempdir().expect("a folder");
    let (from, to) = (place.path().join("backup-3"), target.path().join("data"));
    on_the_side(move || {
        let arguments = ["restore", from.to_str().expect("text"), "--data-dir", to.to_str().expect("text")];
        let made = engraft(&arguments);
        assert!(made.status.success(), "{}", text(&made));
        let again = engraft(&arguments);
        assert!(!again.status.success(), "what is there is not overwritten");
        assert!(text(&again).contains("name another folder, or move that one away first"), "{}", text(&again));
        std::fs::rename(&to, to.with_file_name("restored")).expect("renames");
    })
    .await;
    let restored = target.path().join("restored");
    let app = TestApp::builder().in_data_dir().settings(|settings| settings.storage.data_dir = restored).start().await;
    let again =
        app.get(&format!("/v1/jobs/{id}/model")).send().await.expect("an answer").bytes().await.expect("a body");
    assert_eq!(sha256(&again), sha256(&model));
    let put = app.put("/v1/checkpoints/new", member()).send().await.expect("an answer");
    assert_eq!(put.status(), StatusCode::CREATED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_goes_by_the_rules_and_what_is_pinned_or_read_stays() {
    let (app, job) = with_a_job().await;
    for name in ["old", "pinned"] {
        let put = app.put(&format!("/v1/checkpoints/{name}"), member()).send().await.expect("an answer");
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    let view: Value = app.get("/v1/checkpoints/pinned").send().await.expect("an answer").json().await.expect("JSON");
    let pin = format!("/v1/pins/{}", view["id"].as_str().expect("an id"));
    assert_eq!(app.request(Method::PUT, &pin).send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
    assert_eq!(
        problem(app.request(Method::PUT, "/v1/pins/job_0").send().await.expect("an answer")).await.1,
        "not_found"
    );
    tokio::time::sleep(Duration::from_millis(5)).await;

    let files = Rules { files_for: Some(Duration::ZERO), ..Rules::default() };
    let names =
        |doomed: Vec<engraft::store::upkeep::Doomed>| doomed.into_iter().map(|one| one.name).collect::<Vec<_>>();
    assert_eq!(names(app.state.retention.plan(&files).await.expect("plans")), ["old"], "m0 and m1 are read by the job");
    let data = app.folder.path().to_owned();
    let listed = on_the_side(move || engraft_on(&data, &["gc", "--dry-run", "--retain-files-for", "0s"])).await;
    assert!(listed.status.success() && text(&listed).contains("1 would go"), "{}", text(&listed));
    assert_eq!(app.state.retention.apply(&files).await.expect("applies"), 1);
    assert_eq!(app.get("/v1/checkpoints/old").send().await.expect("an answer").status(), StatusCode::NOT_FOUND);

    // The job goes for its bytes, and then its members, which nobody reads any more.
    let bytes = Rules { bytes: Some(member().len() as u64), ..Rules::default() };
    let doomed = app.state.retention.plan(&bytes).await.expect("plans");
    assert_eq!(doomed.iter().map(|one| one.kind).collect::<Vec<_>>(), ["job", "checkpoint", "checkpoint"]);
    assert_eq!(app.state.retention.apply(&bytes).await.expect("applies"), 3);
    assert_eq!(app.get(&format!("/v1/jobs/{job}")).send().await.expect("an answer").status(), StatusCode::NOT_FOUND);
    assert_eq!(app.get("/v1/checkpoints/pinned").send().await.expect("an answer").status(), StatusCode::OK);
    assert!(!app.folder.path().join("blobs/jobs").join(&job).exists(), "no empty folders stay");

    assert_eq!(app.request(Method::DELETE, &pin).send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
    assert_eq!(problem(app.request(Method::DELETE, &pin).send().await.expect("an answer")).await.1, "not_found");
    assert_eq!(app.state.retention.apply(&files).await.expect("applies"), 1);
    app.stop().await;
}
