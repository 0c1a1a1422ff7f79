//! Files that move from a folder to a bucket and back.

use std::path::Path;
use std::process::Command;

use crate::common::app::{TestApp, problem};
use crate::common::bucket::Bucket;
use crate::common::samples::{member, safetensors, sha256};
use crate::journey::{ended, fuse_two};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// Moves the files of a data directory; whether that went well, and what was said.
async fn migrate(bucket: &Bucket, data_dir: &Path, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engraft"));
    command.arg("migrate").args(args).arg("--data-dir").arg(data_dir).envs(bucket.variables());
    let output = tokio::task::spawn_blocking(move || command.output().expect("runs")).await.expect("ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

/// Where the model of a job is that has succeeded.
async fn fused(app: &TestApp) -> String {
    let id = fuse_two(app).await;
    let job = ended(app, &id).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    format!("/v1/jobs/{id}/model")
}

async fn digest(app: &TestApp, path: &str) -> String {
    let answer = app.get(path).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    sha256(&answer.bytes().await.expect("a body"))
}

/// Sends the bytes `range` of `file` to `m2`.
async fn put_part(app: &TestApp, file: &[u8], range: std::ops::Range<usize>) -> reqwest::Response {
    let span = format!("bytes {}-{}/{}", range.start, range.end - 1, file.len());
    let part = app.put("/v1/checkpoints/m2", file[range].to_vec()).header("Content-Range", span);
    part.send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_move_to_a_bucket_and_back() {
    let bucket = Bucket::start().await;
    let app = TestApp::builder().in_data_dir().settings(|settings| settings.workers.workers = 1).start().await;
    let model = fused(&app).await;
    let before = digest(&app, &model).await;
    let folder = app.stop().await;
    let data_dir = folder.path().to_owned();
    let there = ["--blobs-to", "s3://models/moved"];

    let (checkpoint, away) = (data_dir.join("blobs/checkpoints"), data_dir.join("away"));
    std::fs::rename(&checkpoint, &away).expect("loses the files");
    let (done, said) = migrate(&bucket, &data_dir, &there).await;
    assert!(!done && said.contains("missing   checkpoint m0"), "{said}");
    assert!(bucket.keys().is_empty(), "nothing is copied unless everything is whole");
    std::fs::rename(&away, &checkpoint).expect("brings them back");

    let (done, said) = migrate(&bucket, &data_dir, &there).await;
    assert!(done && said.contains("each compared with its digest"), "{said}");
    let all = bucket.keys();
    let one = all.iter().find(|key| key.contains("checkpoints/")).expect("a checkpoint");
    std::fs::remove_file(bucket.object(one)).expect("as if it had been cut");
    let (done, said) = migrate(&bucket, &data_dir, &there).await;
    assert!(done, "{said}");
    assert_eq!(bucket.keys(), all);
    std::fs::write(bucket.object(one), vec![0; member().len()]).expect("damages");
    let (done, said) = migrate(&bucket, &data_dir, &there).await;
    assert!(!done && said.contains("damaged   checkpoint"), "{said}");
    std::fs::remove_file(bucket.object(one)).expect("removes");
    let (done, said) = migrate(&bucket, &data_dir, &there).await;
    assert!(done, "{said}");

    let app = TestApp::builder().folder(folder).in_data_dir().settings(|settings| bucket.used_by(settings, "moved"));
    let app = app.start().await;
    assert_eq!(digest(&app, &model).await, before);
    let file = safetensors(&[("fc1.weight", &[4096, 1200]), ("fc2.weight", &[10, 4096])]);
    assert_eq!(put_part(&app, &file, 0..9 * MIB).await.status(), StatusCode::NO_CONTENT);
    let folder = app.stop().await;
    let back = format!("file:{}", data_dir.join("back").display());
    let (done, said) = migrate(&bucket, &data_dir, &["--blobs", "s3://models/moved", "--blobs-to", &back]).await;
    assert!(done, "{said}");
    let app = TestApp::builder().folder(folder).in_data_dir();
    let app = app.settings(|settings| settings.storage.blobs = back.parse().expect("a location")).start().await;
    assert_eq!(digest(&app, &model).await, before);
    let uploads: Value = app.get("/v1/uploads").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(uploads["data"], json!([]), "an upload begins anew where its parts are not");
    assert_eq!(put_part(&app, &file, 0..file.len()).await.status(), StatusCode::CREATED);
    assert_eq!(digest(&app, "/v1/checkpoints/m2/content").await, sha256(&file));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_of_another_database_is_refused() {
    let bucket = Bucket::start().await;
    let [one, other] = [(); 2].map(|()| TestApp::builder().in_data_dir());
    let one = one.settings(|settings| bucket.used_by(settings, "taken")).start().await;
    one.stop().await;
    let folder = other.start().await.stop().await;
    let (done, said) = migrate(&bucket, folder.path(), &["--blobs-to", "s3://models/taken"]).await;
    assert!(!done && said.contains("belongs to the data folder"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_parts_are_in_a_bucket_begins_anew_on_a_server_without() {
    let bucket = Bucket::start().await;
    let app = TestApp::builder().in_data_dir().settings(|settings| bucket.used_by(settings, "e")).start().await;
    let file = safetensors(&[("fc1.weight", &[4096, 1200]), ("fc2.weight", &[10, 4096])]);
    // The file in the data directory has a hole where these bytes were.
    assert_eq!(put_part(&app, &file, 0..100).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(put_part(&app, &file, 100..9 * MIB).await.status(), StatusCode::NO_CONTENT);
    let folder = app.stop().await;
    let app = TestApp::builder().folder(folder).in_data_dir().start().await;
    for _ in ["the first", "a repetition"] {
        let refused = put_part(&app, &file, 9 * MIB..file.len()).await;
        assert_eq!(problem(refused).await.1, "upload_offset_mismatch");
    }
    let head = app.request(Method::HEAD, "/v1/checkpoints/m2").send().await.expect("an answer");
    assert_eq!(head.status(), StatusCode::NOT_FOUND, "nothing of it is there");
    assert_eq!(put_part(&app, &file, 0..9 * MIB).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(put_part(&app, &file, 9 * MIB..file.len()).await.status(), StatusCode::CREATED);
    assert_eq!(digest(&app, "/v1/checkpoints/m2/content").await, sha256(&file));
}
