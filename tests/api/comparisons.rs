//! `/v1/comparisons` over HTTP, with the real program computing, and what a worker's limit does to it.

use std::time::Duration;

use crate::common::app::{TestApp, problem};
use crate::common::packing;
use crate::common::samples::{member, safetensors};
use engraft::config::{ByteSize, Seconds};
use engraft::domain::access::Scope;
use reqwest::header::{ETAG, IF_NONE_MATCH, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

async fn lab() -> TestApp {
    let app = TestApp::builder()
        .settings(|settings| {
            settings.workers.workers = 1;
            settings.workers.heartbeat = Seconds(Duration::from_millis(50));
        })
        .start()
        .await;
    for (name, file) in [("m0.safetensors", member()), ("m1.safetensors", member()), ("nan.npz", not_finite())] {
        let response = app.put(&format!("/v1/checkpoints/{name}"), file).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::CREATED);
    }
    app
}

/// A network like the others with a weight that is no number, which is seen when a job unpacks it.
fn not_finite() -> Vec<u8> {
    let array = |shape: &str, len: usize, value: f32| packing::npy("<f4", shape, &value.to_le_bytes().repeat(len));
    packing::npz(&[
        ("fc1.weight", array("(8, 4)", 32, 0.5)),
        ("fc1.bias", array("(8,)", 8, 0.5)),
        ("fc2.weight", array("(3, 8)", 24, 0.5)),
        ("fc2.bias", array("(3,)", 3, f32::NAN)),
    ])
}

fn plan() -> Value {
    json!({
        "title": "Sizes", "seeds": [0, 18_446_744_073_709_551_615_u64],
        "ensembles": [{"name": "two", "members": ["m0.safetensors", "m1.safetensors"]}],
        "methods": [{"name": "paper", "job": {"method": {"compensate": "none"}}}, {"name": "average", "job": {"method": {"name": "average"}}}],
        "targets": [{"name": "member"}],
        "quick": {"seeds": [0], "methods": ["paper"]},
    })
}

async fn post(app: &TestApp, path: &str, body: &Value) -> Response {
    app.request(Method::POST, path).json(body).send().await.expect("an answer")
}

async fn json_of(app: &TestApp, path: &str) -> Value {
    app.get(path).send().await.expect("an answer").json().await.expect("JSON")
}

/// Queues the plan and returns its path.
async fn queue(app: &TestApp, path: &str, body: &Value) -> String {
    let response = post(app, path, body).await;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("a body");
    assert_eq!(status, StatusCode::ACCEPTED, "{text}");
    assert_eq!(headers[RETRY_AFTER], "1");
    headers[LOCATION].to_str().expect("text").to_owned()
}

/// Polls, as a client would, until all runs have ended.
async fn wait(app: &TestApp, comparison: &str) -> Value {
    for _ in 0..60 {
        let response = app.get(comparison).header("Prefer", "wait=5").send().await.expect("an answer");
        let ended = response.headers().get(RETRY_AFTER).is_none();
        let view: Value = response.json().await.expect("JSON");
        if ended {
            return view;
        }
    }
    panic!("{comparison} has not ended: {:#}", json_of(app, comparison).await)
}

#[tokio::test]
async fn a_grid_is_planned_queued_followed_and_reported() {
    let app = lab().await;
    let outlook: Value = post(&app, "/v1/comparisons?validate_only=true", &plan()).await.json().await.expect("JSON");
    assert_eq!(outlook["runs"].as_array().map(Vec::len), Some(4), "{outlook:#}");
    assert!(
        outlook["seconds_estimate"].as_f64() > Some(0.0) && outlook["runs"][0]["parameters"].is_u64(),
        "{outlook:#}"
    );
    assert_eq!(json_of(&app, "/v1/jobs").await["data"], json!([]), "nothing was queued");

    let path = queue(&app, "/v1/comparisons", &plan()).await;
    let view = wait(&app, &path).await;
    assert_eq!((&view["state"], &view["counts"]["succeeded"]), (&json!("succeeded"), &json!(4)), "{view:#}");
    let last = &view["runs"][3];
    assert_eq!((&last["method"], &last["seed"]), (&json!("average"), &json!(u64::MAX)), "{view:#}");
    let job = format!("/v1/jobs/{}", last["job"].as_str().expect("a job"));
    assert_eq!(json_of(&app, &job).await["resolved"]["seed"], json!(u64::MAX));
    let first = app.get(&path).send().await.expect("an answer");
    let again = app.get(&path).header(IF_NONE_MATCH, &first.headers()[ETAG]).send().await.expect("an answer");
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);

    let report = json_of(&app, &format!("{path}/report")).await;
    let runs = report["runs"].as_array().expect("a list");
    let told: Vec<(&str, u64)> = runs
        .iter()
        .map(|run| (run["method"].as_str().expect("text"), run["report"]["seed"].as_u64().expect("a seed")))
        .collect();
    assert_eq!(told, [("paper", 0), ("paper", u64::MAX), ("average", 0), ("average", u64::MAX)]);
    let page = app.get(&format!("{path}/report.html")).send().await.expect("an answer").text().await.expect("a body");
    assert!(page.contains("Sizes") && page.contains("average"), "{page}");

    let quick = queue(&app, "/v1/comparisons?quick=true", &plan()).await;
    assert_eq!(wait(&app, &quick).await["counts"]["total"], 1);
    let list = json_of(&app, "/v1/comparisons?limit=1").await;
    assert_eq!((&list["data"][0]["quick"], &list["has_more"]), (&json!(true), &json!(true)));
    let after = list["next_after"].as_str().expect("an id");
    let rest = json_of(&app, &format!("/v1/comparisons?after={after}")).await;
    assert_eq!((&rest["data"][0]["counts"]["total"], &rest["has_more"]), (&json!(4), &json!(false)));

    let gone = app.request(Method::DELETE, &path).send().await.expect("an answer");
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    assert_eq!(problem(app.get(&path).send().await.expect("an answer")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(problem(app.get(&job).send().await.expect("an answer")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(json_of(&app, "/v1/jobs").await["data"].as_array().map(Vec::len), Some(1), "those of the other");
    app.stop().await;
}

#[tokio::test]
async fn a_run_that_fails_is_told_and_its_retry_takes_its_place() {
    let app = lab().await;
    let mut body = plan();
    body["seeds"] = json!([0]);
    body["ensembles"] = json!([{"name": "broken", "members": ["m0.safetensors", "nan.npz"]},
        {"name": "two", "members": ["m0.safetensors", "m1.safetensors"]}]);
    body["methods"] = json!([{"name": "paper"}]);
    let path = queue(&app, "/v1/comparisons", &body).await;
    let view = wait(&app, &path).await;
    assert_eq!((&view["state"], &view["counts"]["failed"]), (&json!("failed"), &json!(1)), "{view:#}");
    let report = json_of(&app, &format!("{path}/report")).await;
    assert!(report["runs"][0]["error"].as_str().is_some_and(|error| error.contains("nan.npz")), "{report:#}");
    assert!(report["runs"][1]["report"].is_object() && report["runs"][1]["error"].is_null(), "{report:#}");

    let job = view["runs"][0]["job"].as_str().expect("a job").to_owned();
    let retried: Value = post(&app, &format!("/v1/jobs/{job}/retry"), &json!({})).await.json().await.expect("JSON");
    let view = wait(&app, &path).await;
    assert_eq!(view["runs"][0]["job"], retried["id"], "{view:#}");
    let deleted = app.request(Method::DELETE, &format!("/v1/jobs/{}", retried["id"].as_str().expect("an id")));
    assert_eq!(deleted.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
    let view = json_of(&app, &path).await;
    assert_eq!((&view["runs"][0]["job"], &view["counts"]["deleted"]), (&Value::Null, &json!(1)), "{view:#}");
    assert_eq!(view["state"], "succeeded");
    app.stop().await;
}

#[tokio::test]
async fn all_runs_are_queued_or_none_and_once_for_each_key() {
    let app = TestApp::start().await;
    for name in ["m0", "m1"] {
        app.put(&format!("/v1/checkpoints/{name}.safetensors"), member()).send().await.expect("an answer");
    }
    let mut wrong = plan();
    wrong["ensembles"][0]["members"][1] = json!("absent.safetensors");
    wrong["methods"][1]["job"]["method"]["order"] = json!("backwards");
    let (status, code, body) = problem(post(&app, "/v1/comparisons", &wrong).await).await;
    assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request"));
    let pointers: Vec<&str> =
        body["errors"].as_array().expect("faults").iter().filter_map(|fault| fault["pointer"].as_str()).collect();
    assert_eq!(pointers, ["/ensembles/0/members/1", "/methods/1/job/method/order"], "{body:#}");
    assert_eq!(json_of(&app, "/v1/jobs").await["data"], json!([]));
    let mut many = plan();
    many["seeds"] = json!((0..251).collect::<Vec<u64>>());
    assert_eq!(problem(post(&app, "/v1/comparisons", &many).await).await.2["errors"][0]["code"], "too_many_runs");
    let unknown = post(&app, "/v1/comparisons?fast=1", &plan()).await;
    assert_eq!(problem(unknown).await.2["errors"][0]["pointer"], "/query/fast");

    let keyed = async |body: &Value| {
        app.request(Method::POST, "/v1/comparisons")
            .header("Idempotency-Key", "k")
            .json(body)
            .send()
            .await
            .expect("an answer")
    };
    let first: Value = keyed(&plan()).await.json().await.expect("JSON");
    let second = keyed(&plan()).await;
    assert_eq!(second.headers()["idempotent-replayed"], "true");
    assert_eq!(first, second.json::<Value>().await.expect("JSON"));
    assert_eq!(problem(keyed(&wrong).await).await.1, "idempotency_key_reused");
    assert_eq!(json_of(&app, "/v1/jobs").await["data"].as_array().map(Vec::len), Some(4));

    let path = format!("/v1/comparisons/{}", first["id"].as_str().expect("an id"));
    let early = app.request(Method::DELETE, &path).send().await.expect("an answer");
    assert_eq!(problem(early).await.1, "job_active");
    let cancelled = post(&app, &format!("{path}/cancel"), &json!({})).await;
    assert_eq!(cancelled.status(), StatusCode::ACCEPTED);
    assert_eq!(cancelled.json::<Value>().await.expect("JSON")["state"], "cancelled");
    assert_eq!(post(&app, &format!("{path}/cancel"), &json!({})).await.status(), StatusCode::OK);

    let (vision, reader) = (app.key("vision", Scope::Write).await, app.key("default", Scope::Read).await);
    let other = app.get(&path).bearer_auth(&vision).send().await.expect("an answer");
    assert_eq!(problem(other).await.0, StatusCode::NOT_FOUND);
    let delete = app.request(Method::DELETE, &path).bearer_auth(&vision).send().await.expect("an answer");
    assert_eq!(problem(delete).await.0, StatusCode::NOT_FOUND);
    let read_only = app.request(Method::POST, "/v1/comparisons").bearer_auth(&reader).json(&plan());
    assert_eq!(problem(read_only.send().await.expect("an answer")).await.0, StatusCode::FORBIDDEN);
    let nothing = app.get("/v1/comparisons/job_1").bearer_auth(&reader).send().await.expect("an answer");
    assert_eq!(problem(nothing).await.0, StatusCode::NOT_FOUND);
    app.stop().await;
}

#[tokio::test]
async fn a_job_over_the_memory_limit_of_its_worker_fails_with_a_word() {
    let app = TestApp::builder()
        .settings(|settings| {
            settings.workers.workers = 1;
            settings.workers.memory_limit = ByteSize(4 << 20);
        })
        .start()
        .await;
    let wide = safetensors(&[("fc1.weight", &[1024, 64]), ("fc2.weight", &[10, 1024])]);
    app.put("/v1/checkpoints/wide.safetensors", wide).send().await.expect("an answer");
    let body = json!({"members": ["wide.safetensors", "wide.safetensors"], "architecture": {"activation": "relu"}});
    let path = queue(&app, "/v1/jobs", &body).await;
    let view = wait(&app, &path).await;
    assert_eq!((&view["state"], &view["error"]["code"]), (&json!("failed"), &json!("out_of_memory")), "{view:#}");
    assert_eq!(view["attempt"], 1, "another attempt would end alike");
    app.stop().await;
}
