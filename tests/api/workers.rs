//! Workers, and what is known of how fast they are.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::app::TestApp;
use crate::common::samples::member;

async fn json_of(app: &TestApp, path: &str) -> Value {
    app.get(path).send().await.expect("an answer").json().await.expect("JSON")
}

/// What the first worker has measured, as soon as it has.
async fn measured(app: &TestApp) -> Value {
    for _ in 0..1200 {
        if let Some(known) = json_of(app, "/v1/workers").await["data"][0]["speeds"].get(0) {
            return known.clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nobody has measured how fast the worker is");
}

#[tokio::test]
async fn plans_estimate_times_by_what_a_worker_has_measured() {
    let app = TestApp::builder().settings(|settings| settings.workers.workers = 1).start().await;
    app.put("/v1/checkpoints/m0.safetensors", member()).send().await.expect("an answer");
    let known = measured(&app).await;
    let rates = ["products", "convolutions", "elements", "solving"].map(|rate| known["speed"][rate].as_f64());
    assert!(known["device"] == "cpu" && rates.iter().all(|rate| *rate > Some(1e5)), "{known:#}");
    let body = json!({"members": ["m0.safetensors"]});
    let plan = app.request(reqwest::Method::POST, "/v1/jobs?validate_only=true").json(&body).send().await;
    let plan: Value = plan.expect("an answer").json().await.expect("JSON");
    let basis = plan["seconds_basis"].as_str().expect("text");
    assert!(basis.contains("as measured on `cpu` of the worker on "), "{basis}");
    let products = rates[0].expect("a number") / 1e9;
    assert!(basis.contains(&format!("at {products:.1} G multiply-accumulates/s in matrices")), "{basis}");
}
