//! Webhooks over HTTP: what arrives at a receiver on this machine, and what is refused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode as Status};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engraft::config::Subnets;
use engraft::domain::access::Scope;
use engraft::domain::webhook::SigningSecret;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::app::{TestApp, problem};
use crate::common::samples::member;

/// Takes calls; answers with the first of `answers` that is left, then with 204.
#[derive(Clone, Default)]
struct Receiver {
    calls: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> Status {
    receiver.calls.lock().expect("no panic").push((headers, body));
    let mut answers = receiver.answers.lock().expect("no panic");
    let status = if answers.is_empty() { 204 } else { answers.remove(0) };
    Status::from_u16(status).expect("a status")
}

impl Receiver {
    /// Listens until the test ends; the address.
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/hook", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/hook")
    }

    async fn call(&self, index: usize) -> (HeaderMap, String) {
        for _ in 0..400 {
            if let Some(call) = self.calls.lock().expect("no panic").get(index) {
                return call.clone();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no call {index} within ten seconds");
    }
}

async fn server(allowed: &str) -> TestApp {
    let allowed: Subnets = allowed.parse().expect("networks");
    TestApp::builder().settings(|settings| settings.outbound.allow_address = allowed).start().await
}

async fn send(app: &TestApp, method: Method, path: &str, body: &Value, status: StatusCode) -> Value {
    let response = app.request(method, path).json(body).send().await.expect("an answer");
    let (found, text) = (response.status(), response.text().await.expect("a body"));
    assert_eq!(found, status, "{path}: {text}");
    serde_json::from_str(&text).unwrap_or_default()
}

async fn json_of(app: &TestApp, path: &str) -> Value {
    app.get(path).send().await.expect("an answer").json().await.expect("JSON")
}

/// Polls a webhook's log until its latest delivery is in `state`.
async fn delivery(app: &TestApp, webhook: &str, state: &str) -> Value {
    for _ in 0..400 {
        let page = json_of(app, &format!("/v1/webhooks/{webhook}/deliveries")).await;
        if page["data"][0]["state"] == state
            && page["data"][0]["calls"].as_array().is_some_and(|calls| !calls.is_empty())
        {
            return page["data"][0].clone();
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("no delivery is `{state}` within ten seconds");
}

#[tokio::test]
async fn the_end_of_a_job_arrives_signed_and_can_be_sent_again() {
    let app = server("127.0.0.1").await;
    let receiver = Receiver::default();
    let url = receiver.start().await;
    let made = send(&app, Method::POST, "/v1/webhooks", &json!({"url": url}), StatusCode::CREATED).await;
    let (id, secret) = (made["id"].as_str().expect("an id"), made["secret"].as_str().expect("a secret"));
    for name in ["m0.safetensors", "m1.safetensors"] {
        app.put(&format!("/v1/checkpoints/{name}"), member()).send().await.expect("an answer");
    }
    let job = json!({"members": ["m0.safetensors", "m1.safetensors"], "name": "nightly", "labels": {"team": "vision"},
        "architecture": {"family": "mlp", "activation": "relu"}});
    let job = send(&app, Method::POST, "/v1/jobs", &job, StatusCode::ACCEPTED).await;
    let job = job["id"].as_str().expect("an id");
    send(&app, Method::POST, &format!("/v1/jobs/{job}/cancel"), &json!({}), StatusCode::ACCEPTED).await;

    let (headers, body) = receiver.call(0).await;
    let told: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(told["type"], "job.cancelled");
    assert_eq!((&told["data"]["id"], &told["data"]["name"]), (&json!(job), &json!("nightly")));
    assert_eq!((&told["data"]["state"], &told["data"]["labels"]["team"]), (&json!("cancelled"), &json!("vision")));
    let header = |name: &str| headers[name].to_str().expect("text");
    let secret = STANDARD.decode(secret.strip_prefix("whsec_").expect("a prefix")).expect("Base64");
    let sent = jiff::Timestamp::from_second(header("webhook-timestamp").parse().expect("seconds")).expect("a time");
    let message = header("webhook-id").parse().expect("an id");
    assert_eq!(header("webhook-signature"), SigningSecret::of(secret).sign(message, sent, &body));

    let log = delivery(&app, id, "delivered").await;
    assert_eq!((&log["id"], &log["event"]), (&json!(header("webhook-id")), &json!("job.cancelled")));
    assert_eq!((&log["body"], &log["calls"][0]["status"]), (&told, &json!(204)));
    let again = format!("/v1/webhooks/{id}/deliveries/{}/redeliver", header("webhook-id"));
    send(&app, Method::POST, &again, &json!({}), StatusCode::ACCEPTED).await;
    let (second, same) = receiver.call(1).await;
    assert_eq!((&second["webhook-id"], &same), (&headers["webhook-id"], &body), "receivers know it by its id");
    app.stop().await;
}

#[tokio::test]
async fn a_receiver_that_fails_is_called_again_and_one_that_is_gone_is_not() {
    let app = server("127.0.0.0/8").await;
    let receiver = Receiver::default();
    receiver.answers.lock().expect("no panic").extend([503, 302, 410]);
    let url = receiver.start().await;
    let made = send(&app, Method::POST, "/v1/webhooks", &json!({"url": url}), StatusCode::CREATED).await;
    let id = made["id"].as_str().expect("an id");
    let path = format!("/v1/webhooks/{id}");
    send(&app, Method::POST, &format!("{path}/test"), &json!({}), StatusCode::ACCEPTED).await;
    let log = delivery(&app, id, "waiting").await;
    assert_eq!((&log["calls"][0]["status"], log["next_call_at"].is_string()), (&json!(503), true), "{log}");
    let again = format!("{path}/deliveries/{}/redeliver", log["id"].as_str().expect("an id"));
    for (index, status) in [(1, 302), (2, 410)] {
        send(&app, Method::POST, &again, &json!({}), StatusCode::ACCEPTED).await;
        receiver.call(index).await;
        for _ in 0..400 {
            let log = json_of(&app, &format!("{path}/deliveries")).await;
            if log["data"][0]["calls"][index]["status"] == status {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    assert_eq!(
        delivery(&app, id, "failed").await["calls"].as_array().map(Vec::len),
        Some(3),
        "no redirect was followed"
    );
    let gone = json_of(&app, &path).await;
    assert_eq!((&gone["enabled"], &gone["disabled"]), (&json!(false), &json!("gone")));
    let back = send(&app, Method::PATCH, &path, &json!({"enabled": true}), StatusCode::OK).await;
    assert_eq!((&back["enabled"], &back["secret"]), (&json!(true), &Value::Null));
    app.stop().await;
}

#[tokio::test]
async fn an_address_of_this_machine_is_not_reached_unless_it_is_allowed() {
    let app = server("").await;
    let receiver = Receiver::default();
    let url = receiver.start().await;
    let port = url.split(':').next_back().expect("a port");
    // By its address, by a name, and as IPv6 writes it.
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let body = json!({ "url": format!("http://{host}:{port}") });
        let made = send(&app, Method::POST, "/v1/webhooks", &body, StatusCode::CREATED).await;
        let id = made["id"].as_str().expect("an id");
        send(&app, Method::POST, &format!("/v1/webhooks/{id}/test"), &json!({}), StatusCode::ACCEPTED).await;
        let log = delivery(&app, id, "waiting").await;
        let error = log["calls"][0]["error"].as_str().unwrap_or_default();
        assert!(error.contains("may not reach") && error.contains("--allow-address"), "{host}: {log}");
    }
    assert!(receiver.calls.lock().expect("no panic").is_empty());
    app.stop().await;
}

#[tokio::test]
async fn webhooks_belong_to_their_tenant_and_wrong_ones_are_refused() {
    let app = server("").await;
    let refused = app.request(Method::POST, "/v1/webhooks").json(&json!({"events": ["job.begun"], "secret": "x"}));
    let (status, _, problem) = problem(refused.send().await.expect("an answer")).await;
    assert_eq!((status, problem["errors"].as_array().map(Vec::len)), (StatusCode::UNPROCESSABLE_ENTITY, Some(2)));
    let missing = send(&app, Method::POST, "/v1/webhooks", &json!({}), StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(missing["errors"][0]["code"], "missing_field");
    let body = json!({"url": "https://ci.example/x", "events": ["dataset.ready"]});
    let make = |key: &str| app.request(Method::POST, "/v1/webhooks").header("Idempotency-Key", key).json(&body);
    let first: Value = make("k").send().await.expect("an answer").json().await.expect("JSON");
    let second: Value = make("k").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(first, second, "the same webhook, and its secret once more");
    assert_eq!(json_of(&app, "/v1/webhooks").await["data"].as_array().map(Vec::len), Some(1));
    let path = format!("/v1/webhooks/{}", first["id"].as_str().expect("an id"));

    let (reader, other) = (app.key("default", Scope::Read).await, app.key("other", Scope::Write).await);
    let status = async |method: Method, path: &str, key: &str| {
        let request = app.request(method, path).bearer_auth(key).json(&json!({}));
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(status(Method::GET, &path, &reader).await, 200);
    assert_eq!(status(Method::POST, &format!("{path}/test"), &reader).await, 403);
    for (method, end) in [
        (Method::GET, ""),
        (Method::PATCH, ""),
        (Method::DELETE, ""),
        (Method::POST, "/test"),
        (Method::POST, "/secret"),
        (Method::GET, "/deliveries"),
        (Method::POST, "/deliveries/msg_1/redeliver"),
    ] {
        assert_eq!(status(method, &format!("{path}{end}"), &other).await, 404, "{end}");
    }
    let writer = app.key("default", Scope::Write).await;
    assert_eq!(status(Method::POST, &format!("{path}/deliveries/msg_1/redeliver"), &writer).await, 404);
    assert_eq!(status(Method::DELETE, &path, &writer).await, 204);
    assert_eq!(status(Method::GET, &path, &writer).await, 404);
    app.stop().await;
}
