//! What a client does while the storage fails, what it was promised, and whether the promises hold.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::common::app::TestApp;
use crate::common::samples::{member, safetensors};

/// A client's session: what was acknowledged, step by step.
#[derive(Debug, Default)]
pub(crate) struct Promised {
    /// `m0` was uploaded.
    whole: bool,
    /// Bytes of `m1` that are safe.
    offset: u64,
    /// `m1` is complete.
    resumed: bool,
    /// The webhook that was made.
    webhook: Option<String>,
    /// The job that was queued.
    job: Option<String>,
    /// Whether its cancellation was acknowledged.
    cancelled: bool,
    /// Whether `m0` may be gone, and must be.
    deleting: Option<bool>,
    /// Whether the job may be gone, and must be.
    discarding: Option<bool>,
}

const KEY: &str = "the-only-one";

fn other_member() -> Vec<u8> {
    let mut file =
        safetensors(&[("fc1.weight", &[8, 4]), ("fc1.bias", &[8]), ("fc2.weight", &[3, 8]), ("fc2.bias", &[3])]);
    let last = file.len() - 1;
    file[last] ^= 1;
    file
}

/// Sends, and says whether it was done. What was not done must be the storage's fault in so many words, or (`follows`) follow from
/// an earlier failure.
async fn done(request: RequestBuilder, follows: bool) -> Option<Response> {
    let response = request.send().await.expect("the server answers whatever its disk does");
    let status = response.status();
    if status.is_success() {
        return Some(response);
    }
    let problem: Value = response.json().await.unwrap_or_default();
    let excuses = ["disk_full", "storage_failed", "unavailable", "resources_exhausted"];
    let excused = status.is_server_error() && problem["code"].as_str().is_some_and(|code| excuses.contains(&code));
    // A HEAD has no body.
    let mute = status.is_server_error() && problem.is_null();
    assert!(excused || mute || (follows && status.is_client_error()), "{status}: {problem}");
    None
}

fn job_request(app: &TestApp, key: &str) -> RequestBuilder {
    let body =
        json!({ "members": ["m0", "m1"], "architecture": { "assume": true }, "method": { "compensate": "data_free" } });
    app.request(Method::POST, "/v1/jobs").header("idempotency-key", key).json(&body)
}

async fn offset(app: &TestApp) -> Option<u64> {
    let head = done(app.request(Method::HEAD, "/v1/checkpoints/m1"), true).await?;
    Some(head.headers()["upload-offset"].to_str().expect("text").parse().expect("a number"))
}

/// One client's requests, one after another.
pub(crate) async fn run(app: &TestApp) -> Promised {
    let (mut promised, m1) = (Promised::default(), other_member());
    // Chunked: its length is not known beforehand.
    let chunks = futures_util::stream::iter(
        member().chunks(200).map(<[u8]>::to_vec).map(Ok::<_, std::io::Error>).collect::<Vec<_>>(),
    );
    promised.whole = done(app.put("/v1/checkpoints/m0", reqwest::Body::wrap_stream(chunks)), false).await.is_some();

    let part = |from: usize, to: usize| {
        let range = format!("bytes {from}-{}/{}", to - 1, m1.len());
        app.put("/v1/checkpoints/m1", m1[from..to].to_vec()).header("content-range", range)
    };
    if done(part(0, 300), false).await.is_some() {
        promised.offset = 300;
    }
    if let Some(from) = offset(app).await {
        assert!(from >= promised.offset, "acknowledged bytes are gone: {from} of {}", promised.offset);
        promised.resumed = done(part(from as usize, m1.len()), true).await.is_some();
    }
    let hook = app.request(Method::POST, "/v1/webhooks").json(&json!({ "url": "http://127.0.0.1:9/nobody" }));
    if let Some(response) = done(hook, false).await {
        let view: Value = response.json().await.expect("JSON");
        promised.webhook = view["id"].as_str().map(str::to_owned);
    }
    let failed = !promised.whole || !promised.resumed;
    if let Some(response) = done(job_request(app, KEY), failed).await {
        let view: Value = response.json().await.expect("JSON");
        let id = view["id"].as_str().expect("an id").to_owned();
        promised.cancelled = done(app.request(Method::POST, &format!("/v1/jobs/{id}/cancel")), false).await.is_some();
        if promised.cancelled {
            promised.discarding =
                Some(done(app.request(Method::DELETE, &format!("/v1/jobs/{id}")), false).await.is_some());
        }
        promised.job = Some(id);
    }
    if promised.whole {
        // The job may have been queued although its client got no answer.
        let in_use = promised.discarding != Some(true);
        promised.deleting = Some(done(app.request(Method::DELETE, "/v1/checkpoints/m0"), in_use).await.is_some());
    }
    promised
}

/// The fault is over: the service heals by itself, and has kept what it promised.
pub(crate) async fn check(app: &TestApp, promised: &Promised) {
    until_ready(app).await;
    let status = async |path: &str| app.get(path).send().await.expect("an answer").status();
    let content = async |name: &str| {
        let response = app.get(&format!("/v1/checkpoints/{name}/content")).send().await.expect("an answer");
        (response.status(), response.bytes().await.expect("a body").to_vec())
    };
    let (found, bytes) = content("m0").await;
    match (promised.whole, promised.deleting) {
        (true, None) => assert!(found == StatusCode::OK && bytes == member(), "an upload is lost: {found}"),
        (true, Some(true)) => assert_eq!(found, StatusCode::NOT_FOUND, "a deleted file is back"),
        _ => assert!(found == StatusCode::NOT_FOUND || bytes == member(), "half a file: {found}"),
    }
    let (found, bytes) = content("m1").await;
    if promised.resumed {
        assert!(found == StatusCode::OK && bytes == other_member(), "an upload is lost: {found}");
    } else if promised.offset > 0 && found != StatusCode::OK {
        let kept = offset(app).await.expect("the upload is there");
        assert!(kept >= promised.offset, "acknowledged bytes are gone: {kept} of {}", promised.offset);
    }
    if let Some(hook) = &promised.webhook {
        let log = app.get(&format!("/v1/webhooks/{hook}/deliveries")).send().await.expect("an answer");
        assert_eq!(log.status(), StatusCode::OK, "a webhook is lost");
        let log: Value = log.json().await.expect("JSON");
        let told = log["data"].as_array().expect("deliveries").len();
        assert!(told == 1 || told == 0 && !promised.cancelled, "one event, {told} deliveries: {log}");
    }
    if let Some(id) = &promised.job {
        let found = status(&format!("/v1/jobs/{id}")).await;
        match promised.discarding {
            None => assert_eq!(found, StatusCode::OK, "a job is lost"),
            Some(true) => assert_eq!(found, StatusCode::NOT_FOUND, "a deleted job is back"),
            Some(false) => assert!([StatusCode::OK, StatusCode::NOT_FOUND].contains(&found), "{found}"),
        }
    }
}

/// Everything that the client wanted can be done now.
pub(crate) async fn finish(app: &TestApp, promised: &Promised) {
    let must = async |request: RequestBuilder| {
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let body = response.text().await.expect("a body");
        assert!(status.is_success(), "{status}: {body}");
        body
    };
    must(app.put("/v1/checkpoints/m0", member())).await;
    must(app.put("/v1/checkpoints/m1", other_member())).await;
    let post = async |key: &str| {
        let view: Value = serde_json::from_str(&must(job_request(app, key)).await).expect("JSON");
        view["id"].as_str().expect("an id").to_owned()
    };
    let mut jobs = vec![post("another").await];
    if promised.discarding.is_none() {
        // Acknowledged or not: a repetition finds the job that there is, or queues it.
        jobs.push(post(KEY).await);
        assert!(promised.job.iter().all(|first| *first == jobs[1]), "a repeated key has queued another job");
    }
    for id in jobs {
        must(app.request(Method::POST, &format!("/v1/jobs/{id}/cancel"))).await;
        must(app.request(Method::DELETE, &format!("/v1/jobs/{id}"))).await;
    }
    if promised.discarding == Some(false)
        && let Some(id) = &promised.job
    {
        let again = app.request(Method::DELETE, &format!("/v1/jobs/{id}")).send().await.expect("an answer").status();
        assert!([StatusCode::NO_CONTENT, StatusCode::NOT_FOUND].contains(&again), "{again}");
    }
    must(app.request(Method::DELETE, "/v1/checkpoints/m0")).await;
}

/// After another start: what was left is there, whole.
pub(crate) async fn check_end(app: &TestApp) {
    until_ready(app).await;
    let gone = app.get("/v1/checkpoints/m0").send().await.expect("an answer");
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    let kept = app.get("/v1/checkpoints/m1/content").send().await.expect("an answer");
    assert_eq!(kept.bytes().await.expect("a body"), other_member());
}

async fn until_ready(app: &TestApp) {
    for _ in 0..100 {
        if app.get("/readyz").send().await.expect("an answer").status() == StatusCode::OK {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server is not ready 5 s after its storage has healed");
}
