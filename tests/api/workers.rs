//! Workers, and what is known of how fast they are.

use std::time::Duration;

use engraft::domain::access::Scope;
use engraft::domain::id::WorkerId;
use engraft::settings::Device;
use engraft::store::jobs::Claimant;
use engraft::store::workers::Registration;
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

#[tokio::test]
async fn workers_show_their_jobs_to_the_owners_and_their_hosts_to_administrators() {
    let app = TestApp::start().await;
    let now = app.state.clock.now();
    let worker = Registration {
        id: WorkerId::new(),
        host: "gpu-7".to_owned(),
        pid: 1,
        version: "0.1.0".to_owned(),
        slots: 2,
        devices: vec![Device::Cpu],
        speeds: Vec::new(),
        started: now,
        heartbeat: now,
    };
    app.state.workers.heartbeat(&worker).await.expect("writes");
    let claimant = Claimant {
        worker: worker.id,
        host: worker.host.clone(),
        devices: worker.devices.clone(),
        lease: Duration::from_mins(1),
        room: u64::MAX,
    };
    let mut posted = Vec::new();
    for tenant in ["vision", "audio"] {
        let key = app.key(tenant, Scope::Write).await;
        for name in ["a", "b"] {
            let stored = app.put(&format!("/v1/checkpoints/{name}"), member()).bearer_auth(&key).send().await;
            assert!(stored.expect("an answer").status().is_success());
        }
        let body = json!({"members": ["a", "b"], "architecture": {"assume": true}});
        let job = app.request(reqwest::Method::POST, "/v1/jobs").bearer_auth(&key).json(&body).send().await;
        let job: Value = job.expect("an answer").json().await.expect("JSON");
        app.state.jobs.claim(&claimant).await.expect("reads").expect("a job");
        posted.push((key, json!({"id": job["id"], "tenant": tenant})));
    }
    let shown = async |key: &str| -> Value {
        let answer = app.get("/v1/workers").bearer_auth(key).send().await.expect("an answer");
        answer.json::<Value>().await.expect("JSON")["data"][0].clone()
    };
    for (key, job) in &posted {
        let own = shown(key).await;
        assert_eq!((own["jobs"].clone(), own.get("host")), (json!([job]), None), "{own:#}");
    }
    let all = shown(&app.key("vision", Scope::Admin).await).await;
    assert_eq!((&all["host"], &all["jobs"]), (&json!("gpu-7"), &json!([posted[0].1, posted[1].1])), "{all:#}");
    app.stop().await;
}
