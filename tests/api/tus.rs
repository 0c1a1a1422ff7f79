//! Uploads by the tus protocol 1.0.0: each sentence of the protocol that a client relies on.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engraft::domain::access::Scope;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::app::TestApp;
use crate::common::samples::member;

fn metadata(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(key, value)| format!("{key} {}", STANDARD.encode(value))).collect::<Vec<_>>().join(",")
}

fn tus(app: &TestApp, method: Method, path: &str) -> RequestBuilder {
    app.request(method, path).header("Tus-Resumable", "1.0.0")
}

async fn send(request: RequestBuilder, status: u16) -> Response {
    let response = request.send().await.expect("an answer");
    let (found, headers) = (response.status(), response.headers().clone());
    assert_eq!(found.as_u16(), status, "{headers:?}");
    assert!(headers.get("tus-resumable").is_some_and(|version| version == "1.0.0"), "{headers:?}");
    response
}

fn create(app: &TestApp, name: &str, length: usize) -> RequestBuilder {
    let said = metadata(&[("filename", name), ("kind", "checkpoint"), ("label.team", "vision")]);
    tus(app, Method::POST, "/v1/uploads").header("Upload-Length", length).header("Upload-Metadata", said)
}

async fn begin(app: &TestApp, name: &str, length: usize) -> String {
    let response = send(create(app, name, length), 201).await;
    assert!(response.headers()["upload-expires"].to_str().expect("text").ends_with(" GMT"));
    response.headers()["location"].to_str().expect("text").to_owned()
}

fn patch(app: &TestApp, path: &str, offset: usize, body: &[u8]) -> RequestBuilder {
    tus(app, Method::PATCH, path)
        .header("Upload-Offset", offset)
        .header("Content-Type", "application/offset+octet-stream")
        .body(body.to_vec())
}

async fn offset(app: &TestApp, path: &str) -> (u64, u64) {
    let response = send(tus(app, Method::HEAD, path), 200).await;
    assert_eq!(response.headers()["cache-control"], "no-store");
    let number = |name: &str| response.headers()[name].to_str().expect("text").parse().expect("a number");
    (number("upload-offset"), number("upload-length"))
}

#[tokio::test]
async fn a_file_comes_in_parts_and_becomes_a_checkpoint() {
    let app = TestApp::start().await;
    let file = member();
    let path = begin(&app, "m0.safetensors", file.len()).await;
    assert_eq!(offset(&app, &path).await, (0, file.len() as u64));
    let first = send(patch(&app, &path, 0, &file[..100]), 204).await;
    assert_eq!(first.headers()["upload-offset"], "100");
    assert!(first.headers().contains_key("upload-expires"));
    assert_eq!(offset(&app, &path).await.0, 100);
    let listed: Value = app.get("/v1/uploads").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(listed["data"][0]["offset"], 100, "uploads of every protocol are listed");
    let wrong = send(patch(&app, &path, 50, &file[50..]), 409).await;
    assert_eq!(wrong.headers()["upload-offset"], "100", "the answer says where it continues");
    send(patch(&app, &path, 0, &file), 409).await;
    send(patch(&app, &path, 100, &[&file[100..], b"more"].concat()), 413).await;
    let last = send(patch(&app, &path, 100, &file[100..]), 204).await;
    assert_eq!(last.headers()["upload-offset"], file.len().to_string().as_str());
    let address = last.headers()["content-location"].to_str().expect("text").to_owned();
    let stored: Value = app.get(&address).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!((&stored["name"], &stored["labels"]["team"]), (&"m0.safetensors".into(), &"vision".into()));
    // The last answer may be lost: the client asks, and learns that all of it is there.
    assert_eq!(offset(&app, &path).await, (file.len() as u64, file.len() as u64));
    send(patch(&app, &path, file.len(), b""), 409).await;
    send(create(&app, "m0.safetensors", file.len()), 409).await;
    app.stop().await;
}

#[tokio::test]
async fn a_part_with_another_digest_is_not_stored() {
    let app = TestApp::start().await;
    let file = member();
    let path = begin(&app, "m0.safetensors", file.len()).await;
    let digest = |bytes: &[u8]| format!("sha256 {}", STANDARD.encode(Sha256::digest(bytes)));
    for (start, part) in [(0, &file[..100]), (100, &file[100..])] {
        let spoilt = patch(&app, &path, start, part).header("Upload-Checksum", digest(b"others"));
        let refused: Value = send(spoilt, 460).await.json().await.expect("a problem");
        assert_eq!(refused["code"], "checksum_mismatch");
        assert_eq!(offset(&app, &path).await.0, start as u64, "none of it counts");
        let unknown = patch(&app, &path, start, part).header("Upload-Checksum", "crc32 AAAAAA==");
        send(unknown, 400).await;
        send(patch(&app, &path, start, part).header("Upload-Checksum", digest(part)), 204).await;
    }
    assert!(app.get("/v1/checkpoints/m0.safetensors").send().await.expect("an answer").status().is_success());
    // Of the protocol itself: the one algorithm that every server has.
    let path = begin(&app, "m1.safetensors", file.len()).await;
    let sha1 = STANDARD.encode(sha1::Sha1::digest(&file));
    send(patch(&app, &path, 0, &file).header("Upload-Checksum", format!("sha1 {sha1}")), 204).await;
    app.stop().await;
}

#[tokio::test]
async fn the_server_says_what_it_can_and_refuses_other_versions() {
    let app = TestApp::start().await;
    let said = send(app.request(Method::OPTIONS, "/v1/uploads"), 204).await;
    let header = |name: &str| said.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(header("tus-version"), "1.0.0");
    assert_eq!(header("tus-extension"), "creation,creation-with-upload,checksum,termination,expiration");
    assert_eq!(header("tus-checksum-algorithm"), "sha1,sha256");
    assert_eq!(header("tus-max-size"), (64_u64 << 30).to_string());
    let path = begin(&app, "m0.safetensors", 10).await;
    for method in [Method::POST, Method::HEAD, Method::PATCH] {
        let target = if method == Method::POST { "/v1/uploads" } else { &path };
        for version in [None, Some("0.2.2")] {
            let request = app.request(method.clone(), target);
            let request = version.map_or_else(
                || app.request(method.clone(), target),
                |version| request.header("Tus-Resumable", version),
            );
            assert_eq!(send(request, 412).await.headers()["tus-version"], "1.0.0", "{method} {version:?}");
        }
    }
    for (length, said, status) in [
        (Some("10"), metadata(&[("filename", "m")]), 400),
        (Some("10"), metadata(&[("kind", "checkpoint")]), 400),
        (Some("x"), metadata(&[("filename", "m"), ("kind", "checkpoint")]), 400),
        (Some("0"), metadata(&[("filename", "m"), ("kind", "checkpoint")]), 400),
        (None, metadata(&[("filename", "m"), ("kind", "checkpoint")]), 400),
        (Some("99999999999999"), metadata(&[("filename", "m"), ("kind", "checkpoint")]), 413),
    ] {
        let request = tus(&app, Method::POST, "/v1/uploads").header("Upload-Metadata", said);
        let request = match length {
            Some(length) => request.header("Upload-Length", length),
            None => request.header("Upload-Defer-Length", "1"),
        };
        send(request, status).await;
    }
    let plain =
        tus(&app, Method::PATCH, &path).header("Upload-Offset", 0).header("Content-Type", "text/plain").body("{}");
    send(plain, 415).await;
    app.stop().await;
}

#[tokio::test]
async fn an_upload_is_its_tenants_begins_with_bytes_and_can_be_given_up() {
    let app = TestApp::start().await;
    let file = member();
    let begun = create(&app, "m0.safetensors", file.len())
        .header("Content-Type", "application/offset+octet-stream")
        .body(file[..50].to_vec());
    let response = send(begun, 201).await;
    assert_eq!(response.headers()["upload-offset"], "50");
    let path = response.headers()["location"].to_str().expect("text").to_owned();
    // Begun anew, it is another upload: the first is gone.
    let anew = begin(&app, "m0.safetensors", file.len()).await;
    assert_ne!(anew, path);
    send(tus(&app, Method::HEAD, &path), 404).await;
    let (owner, other) = (app.key("default", Scope::Write).await, app.key("other", Scope::Write).await);
    send(tus(&app, Method::HEAD, &anew).bearer_auth(&other), 404).await;
    send(patch(&app, &anew, 0, &file).bearer_auth(&other), 404).await;
    send(tus(&app, Method::DELETE, &anew).bearer_auth(&other), 404).await;
    send(tus(&app, Method::DELETE, &anew).bearer_auth(&owner), 204).await;
    send(tus(&app, Method::HEAD, &anew).bearer_auth(&owner), 404).await;
    // What is no checkpoint is refused as in every other upload.
    let page = b"<!DOCTYPE html><title>Sign in</title>".repeat(8);
    let said = metadata(&[("name", "page.pt"), ("kind", "checkpoint")]);
    let request =
        tus(&app, Method::POST, "/v1/uploads").header("Upload-Length", page.len()).header("Upload-Metadata", said);
    let response = send(request.bearer_auth(&owner), 201).await;
    let path = response.headers()["location"].to_str().expect("text").to_owned();
    let refused = send(patch(&app, &path, 0, &page).bearer_auth(&owner), 422).await;
    assert_eq!(refused.json::<Value>().await.expect("a problem")["code"], "invalid_checkpoint");
    assert_eq!(app.get("/v1/uploads").bearer_auth(&owner).send().await.expect("an answer").status(), StatusCode::OK);
    app.stop().await;
}
