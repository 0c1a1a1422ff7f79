//! The power fails at random points of uploads and jobs: everything that was acknowledged by then is there after the next start.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::app::TestApp;
use crate::common::samples::{member, safetensors, sha256};
use crate::mounted::Mounted;
use crate::{folder, mounted};

/// Rounds of the client.
const ROUNDS: usize = 6;

/// What the client was promised, a line each, outside the file system whose power fails.
struct Promises(PathBuf);

impl Promises {
    fn note(&self, line: &str) {
        let mut file = std::fs::File::options().append(true).create(true).open(&self.0).expect("opens");
        writeln!(file, "{line}").expect("writes");
    }
}

fn file(round: usize) -> Vec<u8> {
    let mut bytes = safetensors(&[("w", &[40, 40])]);
    let last = bytes.len() - 1;
    bytes[last] = round as u8;
    bytes
}

/// A client that uploads, resumes, deletes, and has jobs run.
async fn client(app: &TestApp, promises: &Promises) {
    let ok = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.expect("an answer");
        let status = response.status();
        if status.is_success() {
            return response;
        }
        panic!("{status}: {}", response.text().await.expect("a body"))
    };
    for name in ["m0", "m1"] {
        ok(app.put(&format!("/v1/checkpoints/{name}"), member())).await;
        promises.note(&format!("file {name} {}", sha256(&member())));
    }
    for round in 0..ROUNDS {
        let (bytes, name) = (file(round), format!("f{round}"));
        ok(app.put(&format!("/v1/checkpoints/{name}"), bytes.clone())).await;
        promises.note(&format!("file {name} {}", sha256(&bytes)));
        if round % 2 == 0 {
            promises.note(&format!("deleting {name}"));
            ok(app.request(Method::DELETE, &format!("/v1/checkpoints/{name}"))).await;
            promises.note(&format!("gone {name}"));
        }
        let (name, middle) = (format!("p{round}"), bytes.len() / 2);
        let part = |from: usize, to: usize| {
            let range = format!("bytes {from}-{}/{}", to - 1, bytes.len());
            app.put(&format!("/v1/checkpoints/{name}"), bytes[from..to].to_vec()).header("content-range", range)
        };
        ok(part(0, middle)).await;
        promises.note(&format!("part {name} {middle}"));
        ok(part(middle, bytes.len())).await;
        promises.note(&format!("file {name} {}", sha256(&bytes)));
        let body = json!({"members": ["m0", "m1"], "architecture": {"assume": true}, "seed": round});
        let view: Value = ok(app.request(Method::POST, "/v1/jobs").json(&body)).await.json().await.expect("JSON");
        let id = view["id"].as_str().expect("an id").to_owned();
        promises.note(&format!("job {id}"));
        if round % 3 == 2 {
            continue;
        }
        loop {
            let job: Value = ok(app.get(&format!("/v1/jobs/{id}"))).await.json().await.expect("JSON");
            match job["state"].as_str() {
                Some("succeeded") => break,
                Some("queued" | "running") => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => panic!("{job:#}"),
            }
        }
        let model = ok(app.get(&format!("/v1/jobs/{id}/model"))).await.bytes().await.expect("a body");
        promises.note(&format!("model {id} {}", sha256(&model)));
    }
}

/// Whether the folder that a cut has left starts, and keeps every promise.
async fn check(left: &Path, promises: &str) {
    let data =
        std::fs::read_dir(left).expect("a folder").flatten().map(|entry| entry.path()).find(|path| path.is_dir());
    let Some(data) = data else {
        assert!(promises.is_empty(), "the data directory is gone with {promises}");
        return;
    };
    let app = TestApp::builder().settings(|settings| settings.storage.data_dir = data).start().await;
    let content = async |path: &str| {
        let response = app.get(path).send().await.expect("an answer");
        (response.status(), sha256(&response.bytes().await.expect("a body")))
    };
    let lines: Vec<Vec<&str>> = promises.lines().map(|line| line.split(' ').collect()).collect();
    let said = |what: &str, name: &str| lines.iter().any(|line| line[0] == what && line[1] == name);
    for line in &lines {
        match line[..] {
            ["file", name, digest] if !said("deleting", name) => {
                let found = content(&format!("/v1/checkpoints/{name}/content")).await;
                assert_eq!(found, (StatusCode::OK, digest.to_owned()), "{name} of {}", left.display());
            }
            ["gone", name] => {
                let (status, _) = content(&format!("/v1/checkpoints/{name}/content")).await;
                assert_eq!(status, StatusCode::NOT_FOUND, "{name} is back in {}", left.display());
            }
            ["part", name, offset] => {
                let head =
                    app.request(Method::HEAD, &format!("/v1/checkpoints/{name}")).send().await.expect("an answer");
                let kept =
                    head.headers().get("upload-offset").and_then(|offset| offset.to_str().ok()?.parse::<u64>().ok());
                let offset: u64 = offset.parse().expect("a number");
                assert!(kept.is_some_and(|kept| kept >= offset), "{name} of {}: {kept:?} of {offset}", left.display());
            }
            ["job", id] => {
                let (status, _) = content(&format!("/v1/jobs/{id}")).await;
                assert_eq!(status, StatusCode::OK, "{id} of {}", left.display());
            }
            ["model", id, digest] => {
                let found = content(&format!("/v1/jobs/{id}/model")).await;
                assert_eq!(found, (StatusCode::OK, digest.to_owned()), "{id} of {}", left.display());
            }
            _ => {}
        }
    }
    let uploaded = app.put("/v1/checkpoints/after", member()).send().await.expect("an answer").status();
    assert!(uploaded.is_success(), "{uploaded} in {}", left.display());
    app.stop().await;
}

/// Runs the client while the power fails every `gap` calls or so (never where that is 0); calls, and what each cut has left.
async fn play(mounted: &Mounted, place: &Path, gap: u64, seed: u64) -> (u64, u64) {
    let promises = Promises(place.join("promises"));
    std::fs::write(&promises.0, "").expect("writes");
    let data = folder(mounted);
    mounted.begin_power_cuts(&place.join("cuts"), &promises.0, gap, seed);
    let builder = TestApp::builder().folder(data).settings(|settings| settings.workers.workers = 1);
    let app = builder.start().await;
    client(&app, &promises).await;
    let counts = mounted.end_power_cuts();
    app.stop().await;
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_acknowledged_survives_a_power_cut() {
    let Some(mounted) = mounted("whatever_was_acknowledged_survives_a_power_cut") else { return };
    let place = tempfile::tempdir().expect("a folder");
    let (calls, _) = play(&mounted, place.path(), 0, 1).await;
    let wanted = 220;
    let seed = 20;
    let (calls, cuts) = play(&mounted, place.path(), (calls / wanted).max(1), seed).await;
    println!("the power has failed {cuts} times in {calls} calls");
    assert!(cuts > wanted / 2, "only {cuts} cuts");
    let mut kept = 0;
    for cut in 0..cuts {
        let left = place.path().join("cuts").join(cut.to_string());
        let promises = std::fs::read_to_string(left.with_extension("promises")).expect("reads");
        kept += promises.lines().count();
        check(&left, &promises).await;
    }
    println!("{kept} promises were kept");
}
