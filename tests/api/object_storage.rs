//! Blobs in a bucket: a real service of S3 in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::app::{TestApp, client_builder, database, problem};
use crate::common::bucket::Bucket;
use crate::common::samples::{files, member, safetensors, sha256};
use bytes::Bytes;
use engraft::config::Seconds;
use engraft::domain::clock::{Clock, ManualClock, SystemClock};
use engraft::domain::database::DatabasePlace;
use engraft::store::error::IdentityError;
use engraft::store::{Backend, Blobs, Database, StoreError};
use futures_util::TryStreamExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// A member of two parts and a rest.
fn large() -> Vec<u8> {
    safetensors(&[("fc1.weight", &[4096, 1200]), ("fc2.weight", &[10, 4096])])
}

fn backend(bucket: &Bucket, prefix: &str) -> Backend {
    Backend::of(&Bucket::location(prefix), Path::new("."), &bucket.variables()).expect("a backend")
}

async fn read(blobs: &Blobs, key: &str, range: std::ops::Range<u64>) -> Vec<u8> {
    let chunks: Vec<Bytes> = blobs.read(key, range).await.expect("opens").try_collect().await.expect("reads");
    chunks.concat()
}

/// Sends the bytes `range` of `file`.
async fn put_part(app: &TestApp, path: &str, file: &[u8], range: std::ops::Range<usize>) -> reqwest::Response {
    let span = format!("bytes {}-{}/{}", range.start, range.end - 1, file.len());
    app.put(path, file[range].to_vec()).header("Content-Range", span).send().await.expect("an answer")
}

/// Where an upload goes on.
async fn offset(app: &TestApp, path: &str) -> usize {
    let head = app.request(Method::HEAD, path).send().await.expect("an answer");
    head.headers()["upload-offset"].to_str().expect("text").parse().expect("a number")
}

async fn download(app: &TestApp, path: &str) -> Vec<u8> {
    let answer = app.get(path).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.bytes().await.expect("bytes").to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_an_object_that_reads_in_ranges_and_goes_away() {
    let (bucket, folder) = (Bucket::start().await, tempfile::tempdir().expect("a folder"));
    let blobs = Blobs::of(&backend(&bucket, "a/b"), folder.path(), 64 << 20).expect("opens");
    for (key, bytes) in [("checkpoints/small", b"0123456789".to_vec()), ("checkpoints/large", large())] {
        let staged = folder.path().join("staged");
        std::fs::write(&staged, &bytes).expect("writes");
        blobs.put_file(&staged, key).await.expect("sends");
        assert!(!staged.exists());
        blobs.put_file(&staged, key).await.expect("a repetition finds its work done");
        assert_eq!(read(&blobs, key, 2..5).await, &bytes[2..5]);
        assert_eq!(read(&blobs, key, 4..4).await, b"");
        assert_eq!(blobs.length(key).await.expect("looks"), Some(bytes.len() as u64));
        assert_eq!(blobs.digest(key).await.expect("reads"), sha256(&bytes));
        let local = blobs.local(key, Some(&sha256(&bytes))).await.expect("fetches");
        assert_eq!(std::fs::read(local.path()).expect("reads"), bytes);
    }
    assert_eq!(bucket.keys(), ["a/b/checkpoints/large", "a/b/checkpoints/small"]);
    assert_eq!(bucket.parts(), 0);
    let listed = blobs.list("checkpoints").await.expect("lists");
    assert_eq!(
        listed.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["checkpoints/large", "checkpoints/small"]
    );
    blobs.delete("checkpoints/small").await.expect("deletes");
    blobs.delete("checkpoints/small").await.expect("deletes what is gone");
    assert_eq!(blobs.length("checkpoints/small").await.expect("looks"), None);
    assert!(blobs.local("checkpoints/small", Some(&sha256(b"x"))).await.is_err_and(|error| error.is_absence()));
    assert!(blobs.delete("../other").await.is_err(), "a key never leaves the prefix");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_refused_by_its_digest() {
    let (bucket, folder) = (Bucket::start().await, tempfile::tempdir().expect("a folder"));
    let blobs = Blobs::of(&backend(&bucket, "a"), folder.path(), 1 << 20).expect("opens");
    let staged = folder.path().join("staged");
    std::fs::write(&staged, b"right").expect("writes");
    blobs.put_file(&staged, "checkpoints/c").await.expect("sends");
    std::fs::write(bucket.object("a/checkpoints/c"), b"wrong").expect("damages");
    let refused = blobs.local("checkpoints/c", Some(&sha256(b"right"))).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    assert_eq!(files(&folder.path().join("cache")), ["lock"], "nothing of it is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_and_a_database_that_are_strangers_are_not_put_together() {
    let bucket = Bucket::start().await;
    let [mine, others] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let (shared, elsewhere) = (backend(&bucket, "shared"), backend(&bucket, "elsewhere"));
    Database::open_at(&DatabasePlace::DataDir, mine.path(), &shared).await.expect("the first").close().await;
    let refused = Database::open_at(&DatabasePlace::DataDir, others.path(), &shared).await;
    assert!(
        matches!(refused, Err(StoreError::Identity(IdentityError::WithoutDatabase { .. }))),
        "empty, and taken: {refused:?}"
    );
    Database::open_at(&DatabasePlace::DataDir, others.path(), &elsewhere)
        .await
        .expect("a place of its own")
        .close()
        .await;
    let refused = Database::open_at(&DatabasePlace::DataDir, others.path(), &shared).await;
    assert!(matches!(refused, Err(StoreError::Identity(IdentityError::Strangers { .. }))), "{refused:?}");
    Database::open_at(&DatabasePlace::DataDir, mine.path(), &shared).await.expect("its own opens again").close().await;
    std::fs::create_dir_all(bucket.object("shared/checkpoints")).expect("makes");
    std::fs::write(bucket.object("shared/checkpoints/c"), b"weights").expect("writes");
    let empty = tempfile::tempdir().expect("a folder");
    let refused = Database::open_at(&DatabasePlace::DataDir, empty.path(), &shared).await;
    assert!(matches!(refused, Err(StoreError::Identity(IdentityError::WithoutDatabase { .. }))), "{refused:?}");
    assert!(!empty.path().join("engraft.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_goes_on_with_an_upload_that_was_cut() {
    let bucket = Bucket::start().await;
    let file = large();
    let path = "/v1/checkpoints/m0";
    let first = TestApp::builder().settings(|settings| bucket.used_by(settings, "e")).start().await;
    // A header alone, which is no part; then a part and some bytes behind it.
    assert_eq!(put_part(&first, path, &file, 0..100).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(offset(&first, path).await, 100);
    assert_eq!(put_part(&first, path, &file, 100..9 * MIB).await.status(), StatusCode::NO_CONTENT);
    assert_eq!((offset(&first, path).await, bucket.parts()), (9 * MIB, 1));

    // Another disk; only the database is the same.
    let folder = first.stop().await;
    let other = tempfile::tempdir().expect("a folder");
    let place = match database(folder.path()).as_str() {
        "" => DatabasePlace::File(folder.path().join("engraft.db")),
        server => server.parse().expect("a place"),
    };
    let second = TestApp::builder().folder(other).settings(|settings| {
        bucket.used_by(settings, "e");
        settings.storage.database = place;
    });
    let second = second.start().await;
    assert_eq!(offset(&second, path).await, 9 * MIB);
    let wrong = put_part(&second, path, &file, 10 * MIB..11 * MIB).await;
    assert_eq!(problem(wrong).await.1, "upload_offset_mismatch");
    // Cut in the middle of a body: what came is there.
    {
        use std::io::Write;
        let mut socket = std::net::TcpStream::connect(second.address).expect("a connection");
        let (start, end) = (9 * MIB, 14 * MIB);
        let span = format!("bytes {start}-{}/{}", file.len() - 1, file.len());
        write!(
            socket,
            "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nContent-Range: {span}\r\n\r\n",
            file.len() - start
        )
        .expect("sends");
        socket.write_all(&file[start..end]).expect("sends");
    }
    let mut there = 0;
    for _ in 0..200 {
        there = offset(&second, path).await;
        if there == 14 * MIB {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(there, 14 * MIB);
    let rest = put_part(&second, path, &file, there..file.len()).await;
    assert_eq!(rest.status(), StatusCode::CREATED, "{}", rest.text().await.expect("a body"));
    let view: Value = second.get(path).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(view["sha256"], sha256(&file));
    assert_eq!(download(&second, &format!("{path}/content")).await, file);
    assert_eq!(bucket.parts(), 0);
    let left: Vec<String> = bucket.keys().into_iter().filter(|key| key.starts_with("e/uploads")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(files(&second.folder.path().join("staging")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_nobody_ends_or_that_are_no_good_leave_nothing() {
    let bucket = Bucket::start().await;
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let app = TestApp::builder()
        .clock(clock.clone())
        .settings(|settings| {
            bucket.used_by(settings, "e");
            settings.limits.upload_expiry = Seconds(Duration::from_mins(1));
        })
        .start()
        .await;
    let file = large();
    assert_eq!(put_part(&app, "/v1/checkpoints/m0", &file, 0..9 * MIB).await.status(), StatusCode::NO_CONTENT);
    // Begun again from its first byte, as another file would be.
    assert_eq!(put_part(&app, "/v1/checkpoints/m0", &file, 0..9 * MIB).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(bucket.parts(), 1, "the first beginning is given up");
    clock.advance(Duration::from_mins(2));
    app.state.staging.sweep(&app.state.trash, &*clock).await.expect("sweeps");
    assert_eq!((bucket.parts(), bucket.keys()), (0, vec!["e/identity".to_owned()]));

    // What shows only at the end, behind a front that is not here any more.
    let mut bad = file.clone();
    let end = bad.len();
    bad[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_eq!(put_part(&app, "/v1/checkpoints/m1", &bad, 0..9 * MIB).await.status(), StatusCode::NO_CONTENT);
    let refused = put_part(&app, "/v1/checkpoints/m1", &bad, 9 * MIB..end).await;
    assert_eq!(problem(refused).await.1, "non_finite_weights");
    // And what shows at the beginning.
    let refused = app.put("/v1/checkpoints/m2", vec![0xff; 9 * MIB]).send().await.expect("an answer");
    assert_eq!(problem(refused).await.1, "invalid_checkpoint");
    let uploads: Value = app.get("/v1/uploads").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!((uploads["data"].as_array().map(Vec::len), bucket.parts()), (Some(0), 0));
}

/// Uploads two members, fuses them, and returns the id of the job.
async fn fused(app: &TestApp) -> String {
    for name in ["m0", "m1"] {
        let put = app.put(&format!("/v1/checkpoints/{name}"), member()).send().await.expect("an answer");
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    let body = json!({"members": ["m0", "m1"], "architecture": {"assume": true}});
    let queued = app.request(Method::POST, "/v1/jobs").json(&body).send().await.expect("an answer");
    let queued: Value = queued.json().await.expect("JSON");
    let id = queued["id"].as_str().expect("an id").to_owned();
    for _ in 0..1200 {
        let job: Value =
            app.get(&format!("/v1/jobs/{id}")).send().await.expect("an answer").json().await.expect("JSON");
        match job["state"].as_str() {
            Some("succeeded") => return id,
            Some("queued" | "running") => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => panic!("{job:#}"),
        }
    }
    panic!("the job does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_fused_and_the_model_is_downloaded_while_one_request_in_twenty_fails() {
    let bucket = Bucket::start().await;
    let app = TestApp::builder()
        .settings(|settings| {
            bucket.used_by(settings, "e");
            settings.workers.workers = 1;
        })
        .start()
        .await;
    bucket.fail_one_in(20);
    let id = fused(&app).await;
    let path = format!("/v1/jobs/{id}/model");
    let answer = app.get(&path).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let tag = answer.headers()["etag"].to_str().expect("text").trim_matches('"').to_owned();
    let model = answer.bytes().await.expect("bytes");
    assert_eq!(sha256(&model), tag);
    let part = app.get(&path).header("Range", "bytes=8-15").send().await.expect("an answer");
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes().await.expect("bytes"), model[8..16]);
    for form in ["model?format=pt", "report", "report.html", "architecture", "provenance", "card"] {
        assert!(!download(&app, &format!("/v1/jobs/{id}/{form}")).await.is_empty(), "{form}");
    }
    // More uploads, so that there is something to refuse; a large one is sent in parts.
    let file = large();
    for number in 0..12 {
        let put = app.put(&format!("/v1/checkpoints/more-{number}"), member()).send().await.expect("an answer");
        assert_eq!(put.status(), StatusCode::CREATED);
        assert_eq!(
            app.get(&format!("/v1/checkpoints/more-{number}/content")).send().await.expect("an answer").status(),
            StatusCode::OK
        );
    }
    assert_eq!(
        app.put("/v1/checkpoints/large", file.clone()).send().await.expect("an answer").status(),
        StatusCode::CREATED
    );
    assert_eq!(download(&app, "/v1/checkpoints/large/content").await, file);
    assert!(bucket.requests() > 40, "{} requests: none was refused", bucket.requests());
    let deleted = app.request(Method::DELETE, &format!("/v1/jobs/{id}")).send().await.expect("an answer");
    assert!(deleted.status().is_success(), "{}", deleted.status());
    let left: Vec<String> = bucket.keys().into_iter().filter(|key| key.starts_with("e/jobs")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_from_the_bucket_itself_where_the_operator_wants_it_so() {
    let bucket = Bucket::start().await;
    let app = TestApp::builder()
        .settings(|settings| {
            bucket.used_by(settings, "e");
            settings.workers.workers = 1;
            settings.storage.presign.0 = true;
        })
        .start()
        .await;
    let id = fused(&app).await;
    let digest = app.get(&format!("/v1/jobs/{id}/model.sha256")).send().await.expect("an answer");
    let digest = digest.text().await.expect("text").split(' ').next().expect("a digest").to_owned();
    let client = client_builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let url = format!("http://{}/v1/jobs/{id}/model", app.address);
    let redirect = client.get(&url).send().await.expect("an answer");
    assert_eq!(redirect.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(redirect.headers()["cache-control"], "no-store");
    let address = redirect.headers()["location"].to_str().expect("text");
    let model = client.get(address).send().await.expect("an answer");
    assert_eq!(model.status(), StatusCode::OK);
    assert_eq!(model.headers()["content-disposition"], "attachment; filename=\"fused.safetensors\"");
    assert_eq!(sha256(&model.bytes().await.expect("bytes")), digest);
    let other = address.replace("fused", "other");
    assert!(
        client.get(&other).send().await.expect("an answer").status().is_client_error(),
        "what is signed is all that is allowed"
    );
    let head = client.head(&url).send().await.expect("an answer");
    assert_eq!(
        (head.status(), head.headers()["etag"].to_str().expect("text")),
        (StatusCode::OK, format!("\"{digest}\"").as_str())
    );
    assert_eq!(sha256(&download(&app, &format!("/v1/jobs/{id}/model")).await), digest, "clients follow");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_a_row_goes_to_the_trash_of_the_bucket() {
    use engraft::store::sweep::{BETWEEN_LOOKS, Sweeper};
    use engraft::store::trash::Trash;
    let (bucket, folder) = (Bucket::start().await, tempfile::tempdir().expect("a folder"));
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let backend = backend(&bucket, "e");
    let database = Database::open_at(&DatabasePlace::DataDir, folder.path(), &backend).await.expect("opens");
    let blobs = Blobs::of(&backend, folder.path(), 1 << 20).expect("opens");
    let staged = folder.path().join("staged");
    std::fs::write(&staged, b"weights").expect("writes");
    blobs.put_file(&staged, "checkpoints/orphan").await.expect("sends");
    let day = Duration::from_hours(24);
    let trash = Trash::new(folder.path(), 7 * day, clock.clone());
    let mut sweeper = Sweeper::new(database, blobs.clone(), trash.clone(), clock.clone());
    clock.advance(2 * day);
    assert_eq!(sweeper.look().await.expect("looks"), 0, "found for the first time");
    clock.advance(BETWEEN_LOOKS);
    assert_eq!(sweeper.look().await.expect("looks"), 1);
    let keys = bucket.keys();
    assert!(keys.len() == 2 && keys[1].starts_with("e/trash/") && keys[1].ends_with("/checkpoints/orphan"), "{keys:?}");
    assert_eq!(trash.empty_bucket(&blobs).await.expect("looks"), 0);
    clock.advance(9 * day);
    assert_eq!(trash.empty_bucket(&blobs).await.expect("empties"), 1);
    assert_eq!(bucket.keys(), ["e/identity"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_client_sends_to_the_bucket_has_a_name_once_it_was_checked() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let bucket = Bucket::start().await;
    let app = TestApp::builder()
        .settings(|settings| {
            bucket.used_by(settings, "e");
            settings.storage.presign.0 = true;
        })
        .start()
        .await;
    let good = large();
    let mut bad = good.clone();
    let end = bad.len();
    bad[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    for (name, file) in [("good", &good), ("bad", &bad)] {
        let metadata = format!("kind {},name {}", STANDARD.encode("checkpoint"), STANDARD.encode(name));
        let begun = app.request(Method::POST, "/v1/uploads?presign=true").header("Tus-Resumable", "1.0.0");
        let begun = begun.header("Upload-Length", file.len()).header("Upload-Metadata", metadata);
        let begun = begun.send().await.expect("an answer");
        assert_eq!(begun.status(), StatusCode::OK);
        let begun: Value = begun.json().await.expect("JSON");
        let part = usize::try_from(begun["part_bytes"].as_u64().expect("a size")).expect("a size");
        let urls = begun["parts"].as_array().expect("addresses");
        assert_eq!(urls.len(), file.len().div_ceil(part));
        let mut etags = Vec::new();
        for (url, bytes) in urls.iter().zip(file.chunks(part)) {
            let put =
                app.client.put(url.as_str().expect("an address")).body(bytes.to_vec()).send().await.expect("an answer");
            assert_eq!(put.status(), StatusCode::OK);
            etags.push(put.headers()["etag"].to_str().expect("text").to_owned());
        }
        assert_eq!(
            app.get(&format!("/v1/checkpoints/{name}")).send().await.expect("an answer").status(),
            StatusCode::NOT_FOUND
        );
        let complete = format!("/v1/uploads/{}/complete", begun["id"].as_str().expect("an id"));
        let done = app.request(Method::POST, &complete).json(&json!({"etags": etags})).send().await.expect("an answer");
        if name == "bad" {
            assert_eq!(problem(done).await.1, "non_finite_weights");
            assert_eq!(app.get("/v1/checkpoints/bad").send().await.expect("an answer").status(), StatusCode::NOT_FOUND);
        } else {
            assert_eq!(done.status(), StatusCode::CREATED, "{}", done.text().await.expect("a body"));
            assert_eq!(download(&app, "/v1/checkpoints/good/content").await, good);
        }
    }
    let uploads: Value = app.get("/v1/uploads").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!((uploads["data"].as_array().map(Vec::len), bucket.parts()), (Some(0), 0));
}
