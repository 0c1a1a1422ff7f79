//! Jobs run while the storage fails: real children, on the failing file system.

use std::time::Duration;

use engraft::config::Seconds;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::common::app::TestApp;
use crate::common::inputs;
use crate::common::samples::sha256;
use crate::mounted::Mounted;
use crate::switch::{Fault, Script};
use crate::{each_fault, folder, mounted};

/// When this is over, something hangs.
const LIMIT: Duration = Duration::from_mins(3);

/// A server with a worker, two members and a dataset.
async fn start(mounted: &Mounted) -> TestApp {
    let builder = TestApp::builder().folder(folder(mounted)).settings(|settings| {
        settings.workers.workers = 1;
        settings.workers.lease = Seconds(Duration::from_secs(2));
        settings.workers.heartbeat = Seconds(Duration::from_millis(200));
    });
    let app = builder.start().await;
    for seed in 0..2 {
        let response =
            app.put(&format!("/v1/checkpoints/m{seed}"), inputs::member(seed)).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::CREATED);
    }
    let response = app.put("/v1/datasets/noise.safetensors", inputs::dataset()).send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(app.dataset("noise.safetensors").await["state"], "ready");
    app
}

/// Queues a job of so many epochs.
async fn post(app: &TestApp, epochs: usize) -> String {
    let body = json!({
        "members": ["m0", "m1"], "architecture": { "assume": true }, "dataset": "noise.safetensors", "method": { "compensate": "none" },
        "finetune": { "epochs": epochs, "batch_size": 256 }, "evaluate": ["fused"],
    });
    let view: Value =
        app.request(Method::POST, "/v1/jobs").json(&body).send().await.expect("an answer").json().await.expect("JSON");
    view["id"].as_str().unwrap_or_else(|| panic!("{view}")).to_owned()
}

/// Waits until `done` holds of the job.
async fn until(app: &TestApp, id: &str, done: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        if let Ok(response) = app.get(&format!("/v1/jobs/{id}")).send().await
            && let Ok(view) = response.json::<Value>().await
            && done(&view)
        {
            return view;
        }
        assert!(begun.elapsed() < LIMIT, "{id} is late");
        sleep(Duration::from_millis(50)).await;
    }
}

fn has_ended(view: &Value) -> bool {
    ["succeeded", "failed", "cancelled"].iter().any(|state| view["state"] == *state)
}

/// The digest of the job's model, which must have succeeded.
async fn model(app: &TestApp, id: &str) -> String {
    let view = until(app, id, has_ended).await;
    assert_eq!(view["state"], "succeeded", "{view:#}");
    let model = app.get(&format!("/v1/jobs/{id}/model")).send().await.expect("an answer");
    sha256(&model.bytes().await.expect("a body"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_accepted_ends_well_whatever_call_fails() {
    let expected = tokio::sync::OnceCell::new();
    each_fault("jobs", 89, async |mounted, script| {
        let app = start(mounted).await;
        let expected = expected.get_or_init(async || model(&app, &post(&app, 2).await).await).await;
        let id = post(&app, 2).await;
        mounted.arm(script);
        // A fault for good lasts for some seconds: the job cannot end, and must not be ended by it.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            let view = app.get(&format!("/v1/jobs/{id}")).send().await.expect("an answer").json::<Value>().await;
            if view.is_ok_and(|view| has_ended(&view)) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        let struck = mounted.heal();
        assert_eq!(model(&app, &id).await, *expected, "another result");
        app.stop().await;
        struck
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_for_six_seconds_during_a_job_costs_time_only() {
    let Some(mounted) = mounted("a_disk_that_is_full_for_six_seconds_during_a_job_costs_time_only") else { return };
    let app = start(&mounted).await;
    let expected = model(&app, &post(&app, 40).await).await;
    let id = post(&app, 40).await;
    until(&app, &id, |view| view["progress"]["epoch"].as_u64().is_some_and(|epoch| epoch >= 2)).await;
    mounted.arm(Script { fault: Fault::Full, first: 0, count: u64::MAX, only: None });
    let refused = app.put("/v1/checkpoints/late", inputs::member(7)).send().await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::INSUFFICIENT_STORAGE);
    sleep(Duration::from_secs(6)).await;
    let unready = app.get("/readyz").send().await.expect("an answer");
    assert_eq!(unready.status(), StatusCode::SERVICE_UNAVAILABLE);
    mounted.heal();
    assert_eq!(model(&app, &id).await, expected, "another result");
    let accepted = app.put("/v1/checkpoints/late", inputs::member(7)).send().await.expect("an answer");
    assert_eq!(accepted.status(), StatusCode::CREATED);
    app.stop().await;
}
