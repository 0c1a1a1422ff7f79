//! Little room: a small file system of its own, a file that unpacks to more than there is, and deletions on a full disk.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use engraft::config::ByteSize;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::common::app::{TestApp, problem};
use crate::common::samples::{member, safetensors};
use crate::skipped;

/// Height and width of a picture.
const SIDE: usize = 256;
/// Pictures, all alike: 118 MB of pixels.
const COUNT: usize = 600;

/// A file system of `mib` MiB in memory; unmounted when dropped.
struct Small(TempDir);

impl Small {
    fn new(test: &str, mib: usize) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            Ok(output) => {
                skipped(test, &String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                skipped(test, &error);
                None
            }
        }
    }

    fn folder(&self) -> TempDir {
        TempDir::new_in(self.0.path()).expect("a folder")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _detached = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A Parquet file of few bytes whose pictures are many: each row repeats the same one.
fn bomb() -> Vec<u8> {
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(&vec![7; SIDE * SIDE * 3], SIDE as u32, SIDE as u32, ExtendedColorType::Rgb8)
        .expect("a picture");
    let schema = "message schema { required binary image; required int64 label; }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).expect("a schema"));
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).expect("a file");
    let mut group = writer.next_row_group().expect("a group");
    let mut column = group.next_column().expect("a column").expect("a column");
    column.typed::<ByteArrayType>().write_batch(&vec![ByteArray::from(png); COUNT], None, None).expect("writes");
    column.close().expect("ends");
    let labels: Vec<i64> = (0..COUNT as i64).map(|row| row % 2).collect();
    let mut column = group.next_column().expect("a column").expect("a column");
    column.typed::<Int64Type>().write_batch(&labels, None, None).expect("writes");
    column.close().expect("ends");
    group.close().expect("ends");
    writer.into_inner().expect("a file")
}

/// Uploads what a job about the bomb needs, and queues it.
async fn post(app: &TestApp) -> String {
    let member = safetensors(&[
        ("fc1.weight", &[4, 3 * SIDE * SIDE]),
        ("fc1.bias", &[4]),
        ("fc2.weight", &[2, 4]),
        ("fc2.bias", &[2]),
    ]);
    for name in ["m0", "m1"] {
        let response = app.put(&format!("/v1/checkpoints/{name}"), member.clone()).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::CREATED);
    }
    let bomb = bomb();
    assert!(bomb.len() < 10_000, "{} bytes", bomb.len());
    let response = app.put("/v1/datasets/bomb.parquet", bomb).send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::CREATED);
    let dataset = app.dataset("bomb.parquet").await;
    assert_eq!(dataset["state"], "ready", "{dataset:#}");
    let body = json!({ "members": ["m0", "m1"], "architecture": { "assume": true }, "dataset": "bomb.parquet", "finetune": null, "method": { "compensate": "none" } });
    let view: Value =
        app.request(Method::POST, "/v1/jobs").json(&body).send().await.expect("an answer").json().await.expect("JSON");
    let planned = view["plan"]["disk_peak_bytes"].as_u64().unwrap_or_else(|| panic!("{view:#}"));
    assert!((118_000_000..200_000_000).contains(&planned), "{planned}");
    view["id"].as_str().expect("an id").to_owned()
}

async fn view(app: &TestApp, id: &str) -> Value {
    app.get(&format!("/v1/jobs/{id}")).send().await.expect("an answer").json().await.expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_needs_more_disk_than_it_may_have_fails_alone_and_with_numbers() {
    let limit = ByteSize(64 << 20);
    let builder = TestApp::builder().settings(|settings| {
        settings.workers.workers = 1;
        settings.workers.scratch_limit = limit;
    });
    let app = builder.start().await;
    let id = post(&app).await;
    let begun = Instant::now();
    let failed = loop {
        let view = view(&app, &id).await;
        if view["state"] == "failed" {
            break view;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{view:#}");
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(failed["error"]["code"], "scratch_limit_exceeded", "{failed:#}");
    let detail = failed["error"]["detail"].as_str().expect("text");
    assert!(detail.contains("67.1 MB") && detail.contains("--scratch-limit"), "{detail}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_which_the_disk_has_no_room_waits_and_harms_nobody() {
    let Some(small) = Small::new("a_job_for_which_the_disk_has_no_room_waits_and_harms_nobody", 96) else { return };
    let builder = TestApp::builder().folder(small.folder()).settings(|settings| {
        settings.workers.workers = 1;
        settings.storage.keep_free = ByteSize(32 << 20);
    });
    let app = builder.start().await;
    let id = post(&app).await;
    let begun = Instant::now();
    loop {
        let logs = app.get(&format!("/v1/jobs/{id}/logs")).send().await.expect("an answer").text().await.expect("text");
        if logs.contains("--keep-free") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{logs}");
        sleep(Duration::from_millis(50)).await;
    }
    // Each attempt looks for room, finds none, and gives the job back.
    while view(&app, &id).await["state"] != "queued" {
        assert!(begun.elapsed() < Duration::from_mins(1), "it waits for room");
        sleep(Duration::from_millis(20)).await;
    }
    let other = app.put("/v1/checkpoints/other", member()).send().await.expect("an answer");
    assert_eq!(other.status(), StatusCode::CREATED);
    assert_eq!(app.get("/readyz").send().await.expect("an answer").status(), StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_uploads_and_lets_deletions_make_room() {
    let Some(small) = Small::new("a_full_disk_refuses_uploads_and_lets_deletions_make_room", 80) else { return };
    let app = TestApp::builder().folder(small.folder()).start().await;
    let big = safetensors(&[("w", &[4 << 20])]);
    let upload =
        async |name: &str| app.put(&format!("/v1/checkpoints/{name}"), big.clone()).send().await.expect("an answer");
    assert_eq!(upload("kept").await.status(), StatusCode::CREATED);
    let small_one = app.put("/v1/checkpoints/m0", member()).send().await.expect("an answer");
    assert_eq!(small_one.status(), StatusCode::CREATED);
    let reserve = app.folder.path().join("reserve");
    let begun = Instant::now();
    while !reserve.exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "no reserve");
        sleep(Duration::from_millis(20)).await;
    }
    fill(&small.0.path().join("ballast"));
    // The database grows until it, too, has no room.
    let body = json!({ "members": ["m0"], "target": { "width": 0.5 }, "labels": { "padding": "x".repeat(200) } });
    let mut posted = 0;
    let (status, code, body) = loop {
        let response = app.request(Method::POST, "/v1/jobs").json(&body).send().await.expect("an answer");
        if !response.status().is_success() {
            break problem(response).await;
        }
        posted += 1;
        assert!(posted < 5_000, "the database grows without room");
    };
    assert_eq!((status, code.as_str()), (StatusCode::INSUFFICIENT_STORAGE, "disk_full"), "{body}");
    let (status, code, _) = problem(upload("another").await).await;
    assert_eq!((status, code.as_str()), (StatusCode::INSUFFICIENT_STORAGE, "disk_full"));
    let deleted = app.request(Method::DELETE, "/v1/checkpoints/kept").send().await.expect("an answer");
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT, "{}", deleted.text().await.unwrap_or_default());
    std::fs::remove_file(small.0.path().join("ballast")).expect("removes");
    assert_eq!(upload("another").await.status(), StatusCode::CREATED);
    app.stop().await;
}

/// Takes all the room that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("makes");
    for block in [1 << 20, 4096] {
        while file.write_all(&vec![1; block]).is_ok() {}
    }
}
