//! Uploads over HTTP: whole, in parts, cut, wrong, at the same time.

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::common::app::{TestApp, client_builder, problem};
use crate::common::samples::{files, member, safetensors, sha256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engraft::config::{ByteSize, Seconds};
use engraft::domain::clock::{Clock, ManualClock, SystemClock};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// A file of a few megabytes, so that it comes in many pieces.
fn large() -> Vec<u8> {
    safetensors(&[("fc1.weight", &[1024, 784]), ("fc2.weight", &[10, 1024])])
}

/// Opens a PUT by hand and sends a part of its body.
fn begin(app: &TestApp, path: &str, headers: &str, length: usize, part: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(app.address).expect("a connection");
    write!(socket, "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n")
        .expect("sends");
    socket.write_all(part).expect("sends");
    socket.flush().expect("sends");
    socket
}

/// Waits until an unfinished upload is known with this offset.
async fn wait_for_offset(app: &TestApp, path: &str, offset: usize) {
    for _ in 0..200 {
        let head = app.request(Method::HEAD, path).send().await.expect("an answer");
        if head.headers().get("upload-offset").is_some_and(|value| value == &offset.to_string()) {
            assert_eq!(head.status(), StatusCode::NO_CONTENT);
            assert_eq!(head.headers()["upload-complete"], "?0");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{path} never had offset {offset}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_shown_listed_downloaded_and_deleted() {
    let app = TestApp::start().await;
    let file = member();
    let digest = sha256(&file);
    let put =
        app.put("/v1/checkpoints/m0.safetensors?label=team=vision", file.clone()).send().await.expect("an answer");
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(put.headers()["etag"], format!("\"{digest}\""));
    let location = put.headers()["location"].to_str().expect("text").to_owned();
    let view: Value = put.json().await.expect("JSON");
    assert_eq!((view["sha256"].as_str(), view["bytes"].as_u64()), (Some(digest.as_str()), Some(file.len() as u64)));
    assert_eq!((&view["parameters"], &view["architecture"]["family"]), (&Value::from(67), &Value::from("mlp")));
    assert_eq!(view["tensors"][0]["name"], "fc1.bias");

    let again = app.put("/v1/checkpoints/m0.safetensors", file.clone()).send().await.expect("an answer");
    assert_eq!(again.status(), StatusCode::OK, "the same bytes again");
    let by_id: Value = app.get(&location).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(by_id["name"], "m0.safetensors");

    let content = app.get("/v1/checkpoints/m0.safetensors/content").send().await.expect("an answer");
    assert_eq!(content.headers()["content-disposition"], "attachment; filename=\"m0.safetensors\"");
    assert_eq!(content.bytes().await.expect("bytes"), file);
    let part = app
        .get("/v1/checkpoints/m0.safetensors/content")
        .header("range", "bytes=8-15")
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (part.status(), part.bytes().await.expect("bytes")),
        (StatusCode::PARTIAL_CONTENT, file[8..16].to_vec().into())
    );

    for (query, count) in [("", 1), ("?label=team=vision", 1), ("?label=team=audio", 0), ("?label=nobody=vision", 0)] {
        let list: Value =
            app.get(&format!("/v1/checkpoints{query}")).send().await.expect("an answer").json().await.expect("JSON");
        assert_eq!(list["data"].as_array().expect("a list").len(), count, "{query}");
    }

    let delete = app.request(Method::DELETE, "/v1/checkpoints/m0.safetensors").send().await.expect("an answer");
    assert_eq!(delete.status(), StatusCode::NO_CONTENT);
    let gone = app.get(&location).send().await.expect("an answer");
    assert_eq!(problem(gone).await.1, "not_found");
    assert!(files(&app.folder.path().join("blobs/checkpoints")).is_empty(), "the bytes are gone too");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_go_page_by_page_newest_first() {
    let app = TestApp::start().await;
    for index in 0..5 {
        app.put(&format!("/v1/checkpoints/m{index}"), member()).send().await.expect("an answer");
    }
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page: Value = app
            .get(&format!("/v1/checkpoints?limit=2{after}"))
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON");
        names.extend(
            page["data"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|entry| entry["name"].as_str().expect("a name").to_owned()),
        );
        if page["has_more"] == false {
            break;
        }
        after = format!("&after={}", page["next_after"].as_str().expect("an id"));
    }
    assert_eq!(names, ["m4", "m3", "m2", "m1", "m0"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_upload_keeps_its_prefix_and_resumes() {
    let app = TestApp::start().await;
    let (file, path) = (large(), "/v1/checkpoints/m0");
    let cut = file.len() / 3;
    drop(begin(&app, path, "", file.len(), &file[..cut]));
    wait_for_offset(&app, path, cut).await;

    let wrong = app.put(path, file[5..].to_vec());
    let wrong = wrong
        .header("content-range", format!("bytes 5-{}/{}", file.len() - 1, file.len()))
        .send()
        .await
        .expect("an answer");
    assert_eq!(wrong.headers()["upload-offset"], cut.to_string().as_str());
    assert_eq!(problem(wrong).await.1, "upload_offset_mismatch");

    let rest = app.put(path, file[cut..].to_vec());
    let rest = rest
        .header("content-range", format!("bytes {cut}-{}/{}", file.len() - 1, file.len()))
        .send()
        .await
        .expect("an answer");
    assert_eq!(rest.status(), StatusCode::CREATED);
    assert_eq!(rest.headers()["etag"], format!("\"{}\"", sha256(&file)));
    let head = app.request(Method::HEAD, path).send().await.expect("an answer");
    assert_eq!((head.status(), &head.headers()["upload-complete"]), (StatusCode::OK, &"?1".parse().expect("a value")));
    assert!(files(&app.folder.path().join("staging")).is_empty());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_a_restart_and_can_come_in_parts_or_start_over() {
    let app = TestApp::start().await;
    let (file, path) = (large(), "/v1/checkpoints/m0");
    let range = |from: usize, to: usize| format!("bytes {from}-{}/{}", to - 1, file.len());
    let first =
        app.put(path, file[..1000].to_vec()).header("content-range", range(0, 1000)).send().await.expect("an answer");
    assert_eq!(
        (first.status(), &first.headers()["upload-offset"]),
        (StatusCode::NO_CONTENT, &"1000".parse().expect("a value"))
    );
    let folder = app.stop().await;
    let app = TestApp::builder().folder(folder).start().await;
    let second = app
        .put(path, file[1000..90_000].to_vec())
        .header("content-range", range(1000, 90_000))
        .send()
        .await
        .expect("an answer");
    assert_eq!(second.status(), StatusCode::NO_CONTENT);
    let over = app.put(path, file.clone()).send().await.expect("an answer");
    assert_eq!(over.status(), StatusCode::CREATED, "a PUT without Content-Range starts over");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_is_taken() {
    let app = TestApp::start().await;
    let file = large();
    let pieces: Vec<std::io::Result<Vec<u8>>> = file.chunks(50_000).map(|piece| Ok(piece.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let put = app.put("/v1/checkpoints/m0", body).send().await.expect("an answer");
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(put.headers()["etag"], format!("\"{}\"", sha256(&file)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_belongs_to_its_bytes_and_to_one_upload_at_a_time() {
    let app = TestApp::start().await;
    let (file, path) = (large(), "/v1/checkpoints/m0");
    let mut slow = begin(&app, path, "", file.len(), &file[..1000]);
    // Looking takes nothing from the slow one, however late it is; another upload would.
    wait_for_offset(&app, path, 0).await;
    let second = app.put(path, vec![0; 3]).header("content-range", "bytes 7-9/10").send().await.expect("an answer");
    let (status, code, _) = problem(second).await;
    assert_eq!((status, code.as_str()), (StatusCode::CONFLICT, "upload_in_progress"));
    slow.write_all(&file[1000..]).expect("sends");
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 201");

    let other = app.put(path, member()).send().await.expect("an answer");
    assert_eq!(problem(other).await.1, "name_taken");
    let mut same_length = file.clone();
    *same_length.last_mut().expect("bytes") ^= 1;
    let other = app.put(path, same_length).send().await.expect("an answer");
    assert_eq!(problem(other).await.1, "name_taken");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_checked() {
    let app = TestApp::start().await;
    let file = member();
    let digest = |hex: &str| format!("sha-256=:{}:", STANDARD.encode(hex::decode(hex).expect("hexadecimal")));
    let wrong = app.put("/v1/checkpoints/m0", file.clone()).header("repr-digest", digest(&sha256(b"other")));
    assert_eq!(problem(wrong.send().await.expect("an answer")).await.1, "digest_mismatch");
    assert!(files(&app.folder.path().join("staging")).is_empty(), "nothing of it is kept");
    let nonsense = app.put("/v1/checkpoints/m0", file.clone()).header("repr-digest", "sha-256=:AAAA:");
    assert_eq!(problem(nonsense.send().await.expect("an answer")).await.1, "bad_request");
    let right = app.put("/v1/checkpoints/m0", file.clone()).header("repr-digest", digest(&sha256(&file)));
    assert_eq!(right.send().await.expect("an answer").status(), StatusCode::CREATED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_formats_are_read_when_they_are_complete() {
    let app = TestApp::start().await;
    for name in ["model.pt", "legacy_model.pt", "training.pt", "sharded.tar", "arrays.npz", "sequential.pt"] {
        let file = std::fs::read(format!("tests/fixtures/checkpoints/{name}")).expect("a file");
        let put = app.put(&format!("/v1/checkpoints/{name}"), file.clone()).send().await.expect("an answer");
        assert_eq!(put.status(), StatusCode::CREATED, "{name}");
        let view: Value = put.json().await.expect("JSON");
        assert!(view["parameters"].as_u64().expect("a number") > 20, "{view}");
        let content = app.get(&format!("/v1/checkpoints/{name}/content")).send().await.expect("an answer");
        assert_eq!(content.bytes().await.expect("bytes"), file, "{name}");
    }
    for (name, said) in [("sequential.pt", "\"evidence\":\"certain\""), ("training.pt", "entry `model_state_dict`")] {
        let shown = app.get(&format!("/v1/checkpoints/{name}")).send().await.expect("an answer");
        let shown = shown.text().await.expect("text");
        assert!(shown.contains(said), "{shown}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_files_are_refused_with_a_reason_before_they_are_complete() {
    let app = TestApp::start().await;
    let good = member();
    let with_byte = |at: usize, byte: u8| [&good[..at], &[byte], &good[at + 1..]].concat();
    let cases = [
        (Vec::new(), "empty"),
        (good[..good.len() - 1].to_vec(), "truncated"),
        ([&good[..], b"x"].concat(), "behind the last tensor"),
        (with_byte(8, b'!'), "header"),
        (with_byte(6, 0xff), "truncated"),
        (b"PK\x03\x04 this is a zip, not a checkpoint".to_vec(), "zip archive is damaged"),
        (b"<!DOCTYPE html><html>log in</html>".to_vec(), "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00".to_vec(), "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n".to_vec(), "Keras"),
        (std::fs::read("tests/fixtures/checkpoints/refused/torchscript.pt").expect("a file"), "TorchScript"),
        (std::fs::read("tests/fixtures/checkpoints/refused/pickle.pkl").expect("a file"), "pickle"),
    ];
    for (file, reason) in cases {
        let response = app.put("/v1/checkpoints/bad", file).send().await.expect("an answer");
        let (status, code, body) = problem(response).await;
        assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid_checkpoint"));
        assert!(body["detail"].as_str().expect("text").contains(reason), "{body} does not say `{reason}`");
    }
    assert!(files(&app.folder.path().join("staging")).is_empty(), "nothing of them is kept");

    // A gigabyte is announced, the first kilobyte is wrong: the answer must come without the rest.
    let mut socket = begin(&app, "/v1/checkpoints/bad", "", 1 << 30, &vec![0xff; 1 << 20]);
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).expect("an early answer");
    assert_eq!(&answer, b"HTTP/1.1 422");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_announced_and_for_actual_lengths() {
    let app = TestApp::builder().settings(|settings| settings.limits.max_checkpoint = ByteSize(2000)).start().await;
    let announced = app.put("/v1/checkpoints/m0", vec![0; 2001]).send().await.expect("an answer");
    assert_eq!(problem(announced).await.1, "too_large");
    let file = large();
    let pieces: Vec<std::io::Result<Vec<u8>>> = file.chunks(500).take(8).map(|piece| Ok(piece.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let actual = app.put("/v1/checkpoints/m0", body).send().await.expect("an answer");
    assert_eq!(problem(actual).await.1, "too_large");
    assert_eq!(app.put("/v1/checkpoints/m0", member()).send().await.expect("an answer").status(), StatusCode::CREATED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_before_the_body_is_read() {
    let app = TestApp::builder().settings(|settings| settings.storage.keep_free = ByteSize(1 << 60)).start().await;
    let put = app.put("/v1/checkpoints/m0", member()).send().await.expect("an answer");
    assert_eq!(put.status(), StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(problem(put).await.1, "disk_full");
    let ready = app.get("/readyz").send().await.expect("an answer");
    assert_eq!(problem(ready).await.1, "unavailable");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_never_paths() {
    let app = TestApp::start().await;
    for name in ["..%2Fengraft.db", "...", "a%20b", "a%00b", "%C3%A9", &"a".repeat(129)] {
        let put = app.put(&format!("/v1/checkpoints/{name}"), member()).send().await.expect("an answer");
        let (status, _, body) = problem(put).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {body}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_upload_expires() {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let app = TestApp::builder().clock(clock.clone()).start().await;
    let part = app.put("/v1/checkpoints/m0", member()[..100].to_vec()).header("content-range", "bytes 0-99/1000");
    assert_eq!(part.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
    clock.advance(Duration::from_hours(24));
    let head = app.request(Method::HEAD, "/v1/checkpoints/m0").send().await.expect("an answer");
    assert_eq!(head.status(), StatusCode::NOT_FOUND);
    assert_eq!(app.state.staging.sweep(&app.state.trash, &*clock).await.expect("sweeps"), 1);
    assert!(files(&app.folder.path().join("staging")).is_empty());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_sender_is_cut_off_and_what_came_is_kept() {
    let idle = Seconds(Duration::from_millis(300));
    let app = TestApp::builder().settings(|settings| settings.server.body_idle_timeout = idle).start().await;
    let file = large();
    let mut socket = begin(&app, "/v1/checkpoints/m0", "", file.len(), &file[..5000]);
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 408");
    wait_for_offset(&app, "/v1/checkpoints/m0", 5000).await;
    app.stop().await;
}

/// The real program, with files of 4 MiB at most: to the server a disk that is full in the middle of an upload.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_in_mid_upload_is_said_and_keeps_what_arrived() {
    let folder = tempfile::tempdir().expect("a folder");
    let limit = "trap '' XFSZ; ulimit -f $((4 * 1024 * 1024 / 512)); exec \"$0\" \"$@\"";
    let serve = |shell: &[&str]| {
        let mut command = std::process::Command::new(shell[0]);
        command.args(&shell[1..]).args(["serve", "--listen", "127.0.0.1:0", "--workers", "0", "--keep-free", "0"]);
        command.arg("--data-dir").arg(folder.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        Server::new(command.spawn().expect("starts"))
    };
    let file = safetensors(&[("fc1.weight", &[2048, 784])]);
    let program = env!("CARGO_BIN_EXE_engraft");
    let full = serve(&["/bin/sh", "-c", limit, program]);
    let client = client_builder().build().expect("a client");
    let url = format!("{}/v1/checkpoints/m0", full.address);
    let refused = client.put(&url).body(file.clone()).send().await.expect("an answer");
    assert_eq!(problem(refused).await.1, "disk_full");
    let head = client.head(&url).send().await.expect("an answer");
    let offset: usize = head.headers()["upload-offset"].to_str().expect("text").parse().expect("a number");
    assert!((1 << 20..=4 << 20).contains(&offset), "{offset} bytes are kept");
    assert_eq!(client.get(format!("{}/healthz", full.address)).send().await.expect("an answer").status(), 200);
    drop(full);

    let roomy = serve(&[program]);
    let range = format!("bytes {offset}-{}/{}", file.len() - 1, file.len());
    let url = format!("{}/v1/checkpoints/m0", roomy.address);
    let rest = client.put(&url).header("content-range", range).body(file[offset..].to_vec());
    let done = rest.send().await.expect("an answer");
    assert_eq!(done.headers()["etag"], format!("\"{}\"", sha256(&file)), "the rest makes it whole");
}

/// The program itself, killed at the end of its test.
struct Server {
    process: std::process::Child,
    address: String,
}

impl Server {
    fn new(mut process: std::process::Child) -> Self {
        let mut line = String::new();
        let stdout = process.stdout.take().expect("its output");
        std::io::BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("is killed");
        self.process.wait().expect("has ended");
    }
}
