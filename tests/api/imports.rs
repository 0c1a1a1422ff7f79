//! Imports over HTTP: files of a source on this machine that cuts, redirects and refuses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode as Status};
use axum::response::{IntoResponse, Response as Answer};
use axum::routing::get;
use bytes::Bytes;
use engraft::config::{Configuration, Endpoint, Subnets};
use engraft::domain::access::Scope;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::app::TestApp;
use crate::common::samples::{member, sha256};

/// A host of files, each of which behaves as its name says.
#[derive(Clone)]
struct Source {
    file: Bytes,
    requests: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    elsewhere: String,
}

async fn serve(State(source): State<Source>, Path(path): Path<String>, headers: HeaderMap) -> Answer {
    let times = {
        let mut requests = source.requests.lock().expect("no panic");
        requests.push((path.clone(), headers.clone()));
        requests.iter().filter(|(other, _)| *other == path).count()
    };
    let file = &source.file;
    let whole = || ([("etag", "\"v1\"")], file.clone()).into_response();
    let name = path.rsplit('/').next().unwrap_or_default();
    match name {
        // The first answer breaks off in the middle.
        "cut.safetensors" if times == 1 => {
            let head = futures_util::stream::iter([Ok(file.slice(..200))]);
            // What was sent before has left by then.
            let end = futures_util::stream::once(async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                Err(std::io::Error::other("cut"))
            });
            let parts = futures_util::StreamExt::chain(head, end);
            let length = file.len().to_string();
            let body = Body::from_stream(parts);
            ([("etag", "\"v1\"".to_owned()), ("content-length", length)], body).into_response()
        }
        "cut.safetensors" => match headers.get("range").and_then(|range| range.to_str().ok()) {
            Some(range) if headers["if-range"] == "\"v1\"" => {
                let first: usize = range
                    .strip_prefix("bytes=")
                    .and_then(|r| r.strip_suffix('-'))
                    .expect("a range")
                    .parse()
                    .expect("a number");
                let shown = format!("bytes {first}-{}/{}", file.len() - 1, file.len());
                (Status::PARTIAL_CONTENT, [("content-range", shown)], file.slice(first..)).into_response()
            }
            _ => whole(),
        },
        "away.safetensors" if times < 2 => Status::SERVICE_UNAVAILABLE.into_response(),
        "away.safetensors" | "good.safetensors" => whole(),
        "private.safetensors" => match headers.get("authorization").and_then(|value| value.to_str().ok()) {
            Some("Bearer hf_good") => whole(),
            _ => Status::UNAUTHORIZED.into_response(),
        },
        // As the Hub does for large files: the digest, and another host.
        "model.safetensors" => {
            let location = format!("{}/files/good.safetensors", source.elsewhere);
            (Status::FOUND, [("location", location), ("x-linked-etag", format!("\"{}\"", sha256(file)))])
                .into_response()
        }
        "wrong.safetensors" => {
            let location = "/files/good.safetensors".to_owned();
            (Status::FOUND, [("location", location), ("x-linked-etag", format!("\"{}\"", "0".repeat(64)))])
                .into_response()
        }
        "loop.safetensors" => (Status::FOUND, [("location", "/files/loop.safetensors")]).into_response(),
        "page.html" => "<!DOCTYPE html><title>Sign in</title>".into_response(),
        "endless.safetensors" => {
            let parts = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b"{}")), ()))
            });
            let head = futures_util::stream::iter([Ok(file.slice(..100))]);
            let body = Body::from_stream(futures_util::StreamExt::chain(head, parts));
            match headers.get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")) {
                Some(range) => (Status::PARTIAL_CONTENT, [("content-range", format!("bytes {range}99999/*"))], body)
                    .into_response(),
                None => ([("etag", "\"v1\"")], body).into_response(),
            }
        }
        _ => Status::NOT_FOUND.into_response(),
    }
}

struct Lab {
    app: TestApp,
    source: Source,
    host: String,
}

impl Lab {
    async fn new(settings: impl FnOnce(&mut Configuration, &str)) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let (host, elsewhere) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.2:{port}"));
        let source = Source { file: member().into(), requests: Arc::default(), elsewhere };
        let router = Router::new().route("/{*path}", get(serve)).with_state(source.clone());
        // All of loopback leads there, so that one listener is two hosts.
        let second = tokio::net::TcpListener::bind(("127.0.0.2", port)).await.expect("another address of this machine");
        let other = router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await });
        tokio::spawn(async move { axum::serve(second, other).await });
        let app = TestApp::builder().settings(|all| settings(all, &host)).start().await;
        Self { app, source, host }
    }

    async fn open() -> Self {
        Self::new(|all, host| {
            all.outbound.allow_address = "127.0.0.0/8".parse::<Subnets>().expect("a network");
            all.outbound.hub_endpoint = host.parse::<Endpoint>().expect("an address");
            all.outbound.s3_endpoint = host.parse::<Endpoint>().expect("an address");
        })
        .await
    }

    async fn post(&self, body: &Value, status: StatusCode) -> Value {
        let response = self.app.request(Method::POST, "/v1/imports").json(body).send().await.expect("an answer");
        let (found, text) = (response.status(), response.text().await.expect("a body"));
        assert_eq!(found, status, "{body}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Asks for a file and waits until the import is in `state`.
    async fn import(&self, body: &Value, state: &str) -> Value {
        let made = self.post(body, StatusCode::ACCEPTED).await;
        self.until(made["id"].as_str().expect("an id"), |import| import["state"] == state).await
    }

    async fn until(&self, id: &str, holds: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..400 {
            let import: Value =
                self.app.get(&format!("/v1/imports/{id}")).send().await.expect("an answer").json().await.expect("JSON");
            if holds(&import) {
                return import;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let last = self.app.get(&format!("/v1/imports/{id}")).send().await.expect("an answer").text().await;
        panic!("not within ten seconds: {last:?}");
    }

    fn of(&self, name: &str) -> Value {
        json!({"kind": "checkpoint", "from": format!("{}/files/{name}", self.host)})
    }

    /// The headers with which a file was asked for, the first request first.
    fn requests(&self, name: &str) -> Vec<HeaderMap> {
        let requests = self.source.requests.lock().expect("no panic");
        requests.iter().filter(|(path, _)| path.ends_with(name)).map(|(_, headers)| headers.clone()).collect()
    }
}

#[tokio::test]
async fn a_file_from_elsewhere_becomes_a_checkpoint_like_any_other() {
    let lab = Lab::open().await;
    let digest = sha256(&lab.source.file);
    let mut body = lab.of("good.safetensors");
    body["name"] = json!("m0.safetensors");
    body["sha256"] = json!(digest);
    body["labels"] = json!({"team": "vision"});
    let import = lab.import(&body, "succeeded").await;
    let shown: Value =
        lab.app.get("/v1/checkpoints/m0.safetensors").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!((&shown["id"], &shown["sha256"]), (&import["file"], &json!(digest)));
    assert_eq!(shown["labels"]["team"], "vision");
    assert!(import["finished_at"].is_string() && import["error"].is_null(), "{import}");
    // The same bytes once more are the same file; other bytes are refused.
    assert_eq!(lab.import(&body, "succeeded").await["file"], import["file"]);
    body["sha256"] = json!("0".repeat(64));
    body["name"] = json!("m1.safetensors");
    let refused = lab.import(&body, "failed").await;
    assert_eq!(refused["error"]["code"], "digest_mismatch", "{refused}");
    lab.app.stop().await;
}

#[tokio::test]
async fn what_breaks_off_is_fetched_on_and_what_is_away_is_tried_again() {
    let lab = Lab::open().await;
    let cut = lab.post(&lab.of("cut.safetensors"), StatusCode::ACCEPTED).await;
    let made = lab.post(&lab.of("away.safetensors"), StatusCode::ACCEPTED).await;
    let id = made["id"].as_str().expect("an id");
    let waiting = lab.until(id, |import| import["error"].is_object()).await;
    assert_eq!(
        (&waiting["state"], &waiting["error"]["code"]),
        (&json!("waiting"), &json!("source_failed")),
        "{waiting}"
    );
    assert!(waiting["next_attempt_at"].is_string());
    lab.until(cut["id"].as_str().expect("an id"), |import| import["state"] == "succeeded").await;
    let requests = lab.requests("cut.safetensors");
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1]["range"], "bytes=200-", "only the rest");
    lab.until(id, |import| import["state"] == "succeeded").await;
    lab.app.stop().await;
}

#[tokio::test]
async fn a_hub_and_a_bucket_are_asked_at_their_addresses_and_a_token_goes_nowhere_else() {
    let lab = Lab::open().await;
    let body = json!({"kind": "checkpoint", "from": "hf://org/net@v1/sub/model.safetensors", "token": "hf_good"});
    lab.import(&body, "succeeded").await;
    let asked = lab.source.requests.lock().expect("no panic").clone();
    assert_eq!(asked[0].0, "org/net/resolve/v1/sub/model.safetensors");
    assert_eq!(asked[0].1["authorization"], "Bearer hf_good");
    assert_eq!(asked[1].0, "files/good.safetensors");
    assert!(asked[1].1.get("authorization").is_none(), "another host");
    let wrong = json!({"kind": "checkpoint", "from": "hf://org/net/wrong.safetensors"});
    assert_eq!(lab.import(&wrong, "failed").await["error"]["code"], "digest_mismatch", "the Hub's own digest");
    let object = json!({"kind": "checkpoint", "from": "s3://bucket/a/good.safetensors", "name": "from-s3.safetensors"});
    lab.import(&object, "succeeded").await;
    assert!(lab.source.requests.lock().expect("no panic").iter().any(|(path, _)| path == "bucket/a/good.safetensors"));
    lab.app.stop().await;
}

#[tokio::test]
async fn what_cannot_be_had_fails_at_once_and_says_why() {
    let lab = Lab::open().await;
    let expected = [
        ("absent.safetensors", "source_refused", "no such file"),
        ("private.safetensors", "source_refused", "`token`"),
        ("page.html", "invalid_checkpoint", "web page"),
    ];
    for (name, code, said) in expected {
        let failed = lab.import(&lab.of(name), "failed").await;
        assert_eq!(failed["error"]["code"], code, "{failed}");
        assert!(failed["error"]["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{failed}");
        assert_eq!(lab.requests(name).len(), 1, "{name}: once");
    }
    let astray = lab.post(&lab.of("loop.safetensors"), StatusCode::ACCEPTED).await;
    let astray = lab.until(astray["id"].as_str().expect("an id"), |import| import["error"].is_object()).await;
    assert!(astray["error"]["detail"].as_str().is_some_and(|detail| detail.contains("more than 10 times")), "{astray}");
    lab.app.stop().await;
}

#[tokio::test]
async fn this_machine_is_not_reached_by_default_not_even_by_a_detour() {
    let lab = Lab::new(|_, _| {}).await;
    let failed = lab.import(&lab.of("good.safetensors"), "failed").await;
    assert_eq!(failed["error"]["code"], "source_refused");
    assert!(failed["error"]["detail"].as_str().is_some_and(|detail| detail.contains("--allow-address")), "{failed}");
    assert!(lab.source.requests.lock().expect("no panic").is_empty());
    lab.app.stop().await;
    // An address that is allowed leads to one that is not.
    let lab = Lab::new(|all, host| {
        all.outbound.allow_address = "127.0.0.1".parse::<Subnets>().expect("an address");
        all.outbound.hub_endpoint = host.parse::<Endpoint>().expect("an address");
    })
    .await;
    let failed = lab.import(&json!({"kind": "checkpoint", "from": "hf://org/net/model.safetensors"}), "failed").await;
    assert!(failed["error"]["detail"].as_str().is_some_and(|detail| detail.contains("127.0.0.2")), "{failed}");
    lab.app.stop().await;
}

#[tokio::test]
async fn limits_are_those_of_uploads_and_an_import_can_be_given_up() {
    let lab = Lab::new(|all, _| {
        all.outbound.allow_address = "127.0.0.0/8".parse::<Subnets>().expect("a network");
        all.limits.max_checkpoint = engraft::config::ByteSize(250);
    })
    .await;
    let failed = lab.import(&lab.of("good.safetensors"), "failed").await;
    assert_eq!(failed["error"]["code"], "too_large", "{failed}");
    lab.app.stop().await;

    let lab = Lab::open().await;
    let made = lab.post(&lab.of("endless.safetensors"), StatusCode::ACCEPTED).await;
    let id = made["id"].as_str().expect("an id");
    lab.until(id, |import| import["state"] == "running").await;
    let twice = lab.post(&lab.of("endless.safetensors"), StatusCode::CONFLICT).await;
    assert!(twice["detail"].as_str().is_some_and(|detail| detail.contains(id)), "{twice}");
    let other = lab.app.key("other", Scope::Write).await;
    let owner = lab.app.key("default", Scope::Write).await;
    let path = format!("/v1/imports/{id}");
    let status = async |method: Method, key: &str| {
        lab.app.request(method, &path).bearer_auth(key).send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(status(Method::GET, &other).await, 404);
    assert_eq!(status(Method::DELETE, &other).await, 404);
    assert_eq!(status(Method::DELETE, &owner).await, 204);
    assert_eq!(status(Method::GET, &owner).await, 404);
    for _ in 0..400 {
        let uploads = lab.app.get("/v1/uploads").bearer_auth(&owner).send().await.expect("an answer");
        let uploads: Value = uploads.json().await.expect("JSON");
        if uploads["data"].as_array().is_some_and(Vec::is_empty) {
            lab.app.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("what had arrived is still there");
}

#[tokio::test]
async fn a_server_that_ends_goes_on_where_it_was() {
    let lab = Lab::open().await;
    let made = lab.post(&lab.of("endless.safetensors"), StatusCode::ACCEPTED).await;
    let id = made["id"].as_str().expect("an id").to_owned();
    // Something has arrived.
    for _ in 0..400 {
        let figures = lab.app.get("/metrics").send().await.expect("an answer").text().await.expect("text");
        if figures.lines().any(|line| line.starts_with("engraft_uploaded_bytes_total{kind=\"checkpoint\"}")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let began = std::time::Instant::now();
    let folder = lab.app.stop().await;
    assert!(began.elapsed() < Duration::from_secs(10), "it waits for no end of the file");
    let again = TestApp::builder()
        .folder(folder)
        .settings(|all| all.outbound.allow_address = "127.0.0.0/8".parse::<Subnets>().expect("a network"))
        .start()
        .await;
    let lab = Lab { app: again, source: lab.source, host: lab.host };
    for _ in 0..400 {
        if lab.requests("endless.safetensors").len() > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let requests = lab.requests("endless.safetensors");
    let range = requests[1].get("range").and_then(|range| range.to_str().ok()).unwrap_or_default();
    let first: Option<u64> = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse().ok());
    assert!(first.is_some_and(|first| first > 0), "only the rest: {range:?}");
    lab.until(&id, |import| import["state"] == "running").await;
    lab.app.stop().await;
}
