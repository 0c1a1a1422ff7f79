//! Jobs on networks that are no classifiers of several classes: what is predicted is known, asked or refused before a job is queued, and its
//! report has the task's figures.

use crate::common::app::{TestApp, problem};
use crate::common::inputs::pack;
use engraft::model::header::Dtype;
use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const EXAMPLES: usize = 80;

/// Numbers between -1 and 1, always the same ones.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * 7919 + seed * 104_729 + 13) % 2003) as f32 / 1001.0 - 1.0).collect()
}

fn floats(name: &str, shape: &[usize], values: &[f32]) -> (String, Dtype, Vec<usize>, Vec<u8>) {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    (name.to_owned(), Dtype::F32, shape.to_vec(), bytes)
}

/// 4-8-3 with ReLU.
fn member(seed: usize) -> Vec<u8> {
    pack(vec![
        floats("fc1.weight", &[8, 4], &numbers(32, seed)),
        floats("fc1.bias", &[8], &numbers(8, seed + 1)),
        floats("fc2.weight", &[3, 8], &numbers(24, seed + 2)),
        floats("fc2.bias", &[3], &numbers(3, seed + 3)),
    ])
}

/// Examples of four numbers with three numbers, or three flags, each.
fn dataset(flags: bool) -> Vec<u8> {
    let (x, y) = (numbers(EXAMPLES * 4, 50), numbers(EXAMPLES * 3, 60));
    let labels = if flags {
        let bytes = y.iter().map(|y| u8::from(*y > 0.1)).collect();
        ("y".to_owned(), Dtype::U8, vec![EXAMPLES, 3], bytes)
    } else {
        floats("y", &[EXAMPLES, 3], &y)
    };
    pack(vec![floats("x", &[EXAMPLES, 4], &x), labels])
}

async fn with_files() -> TestApp {
    let app = TestApp::builder().settings(|settings| settings.workers.workers = 1).start().await;
    for (name, bytes) in [("m0.safetensors", member(1)), ("m1.safetensors", member(2))] {
        let response = app.put(&format!("/v1/checkpoints/{name}"), bytes).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::CREATED);
    }
    for (name, flags) in [("numbers", false), ("flags", true)] {
        app.put(&format!("/v1/datasets/{name}"), dataset(flags)).send().await.expect("an answer");
        assert_eq!(app.dataset(name).await["state"], "ready");
    }
    app
}

fn body(dataset: &Value) -> Value {
    json!({"members": ["m0.safetensors", "m1.safetensors"], "architecture": {"family": "mlp", "activation": "relu"},
        "dataset": dataset, "finetune": {"epochs": 2, "batch_size": 8}})
}

async fn post(app: &TestApp, path: &str, body: &Value) -> reqwest::Response {
    app.request(Method::POST, path).json(body).send().await.expect("an answer")
}

#[tokio::test]
async fn a_plan_says_what_is_predicted_or_what_is_unclear() {
    let app = with_files().await;
    let plan = async |body: &Value| post(&app, "/v1/jobs?validate_only=true", body).await;
    for (dataset, task) in [("numbers", "regression"), ("flags", "multi_label")] {
        let view = app.dataset(dataset).await;
        assert!(view["facts"]["label_form"].as_str().is_some_and(|form| form.starts_with("3 per example")), "{view:#}");
        assert!(view["facts"]["preview"][0]["label"].is_null(), "{view:#}");
        assert_eq!(view["facts"]["preview"][0]["targets"].as_array().map(Vec::len), Some(3));
        let planned: Value = plan(&body(&json!(dataset))).await.json().await.expect("JSON");
        assert_eq!(planned["task"], task, "{planned:#}");
    }
    for (dataset, pointer, code, said) in [
        (
            json!({"name": "numbers", "task": "multi_label"}),
            "/dataset",
            "task_mismatch",
            "with 3 columns; the labels are 3 per example",
        ),
        (
            json!({"name": "flags", "task": "binary"}),
            "/dataset",
            "task_mismatch",
            "`binary` with a network of 3 outputs",
        ),
        (json!({"name": "flags", "test": "numbers"}), "/dataset/test", "task_mismatch", "`multi_label`"),
        (json!({"name": "flags", "task": "several"}), "/dataset/task", "invalid_value", "multi_label"),
    ] {
        let (status, _, problem) = problem(plan(&body(&dataset)).await).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem:#}");
        let fault = &problem["errors"][0];
        assert_eq!((&fault["pointer"], &fault["code"]), (&json!(pointer), &json!(code)), "{problem:#}");
        assert!(fault["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{problem:#}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_regression_is_queued_and_reported() {
    let app = with_files().await;
    let response = post(&app, "/v1/jobs", &body(&json!("numbers"))).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let queued: Value = response.json().await.expect("JSON");
    assert_eq!(queued["resolved"]["dataset"]["task"], "regression", "{queued:#}");
    let job = format!("/v1/jobs/{}", queued["id"].as_str().expect("an id"));
    let mut view = Value::Null;
    for _ in 0..40 {
        view = app.get(&job).header("Prefer", "wait=5").send().await.expect("an answer").json().await.expect("JSON");
        if view["state"] != "queued" && view["state"] != "running" {
            break;
        }
    }
    assert_eq!(view["state"], "succeeded", "{view:#}");
    let report: Value = app.get(&format!("{job}/report")).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(report["task"], "regression");
    for row in report["candidates"].as_array().expect("candidates") {
        assert!(row["validation"]["rmse"].is_number() && row["validation"]["accuracy"].is_null(), "{row:#}");
        assert_eq!(row["per_output"].as_array().map(Vec::len), Some(3), "{row:#}");
    }
    let metrics: Value =
        app.get(&format!("{job}/metrics")).send().await.expect("an answer").json().await.expect("JSON");
    assert!(metrics["data"][1]["train_accuracy"].is_null() && metrics["data"][1]["validation"]["r2"].is_number());
    let text = async |path: String, accept: &str| {
        app.get(&path).header(ACCEPT, accept).send().await.expect("an answer").text().await.expect("text")
    };
    let csv = text(format!("{job}/metrics"), "text/csv").await;
    assert!(csv.starts_with("epoch,train_loss,validation_loss,validation_rmse,validation_r2,"), "{csv}");
    let card = text(format!("{job}/card"), "text/markdown").await;
    assert!(
        card.contains("## RMSE") && card.contains("Outputs are the predicted numbers.") && !card.contains("ccuracy"),
        "{card}"
    );
    app.stop().await;
}
