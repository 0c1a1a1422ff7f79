//! A job from the upload of its members to its end.

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::app::TestApp;
use crate::common::samples::member;

/// Uploads two members and queues their fusion; the job's id.
pub(crate) async fn fuse_two(app: &TestApp) -> String {
    for name in ["m0", "m1"] {
        let put = app.put(&format!("/v1/checkpoints/{name}"), member()).send().await.expect("an answer");
        assert!(put.status().is_success());
    }
    let body = json!({"members": ["m0", "m1"], "architecture": {"assume": true}});
    let queued: Value =
        app.request(Method::POST, "/v1/jobs").json(&body).send().await.expect("an answer").json().await.expect("JSON");
    queued["id"].as_str().expect("an id").to_owned()
}

/// The job once it has ended.
pub(crate) async fn ended(app: &TestApp, id: &str) -> Value {
    for _ in 0..60 {
        let waiting = app.get(&format!("/v1/jobs/{id}")).header("prefer", "wait=5");
        let job: Value = waiting.send().await.expect("an answer").json().await.expect("JSON");
        if job["finished_at"].is_string() {
            return job;
        }
    }
    panic!("{id} never ended");
}
