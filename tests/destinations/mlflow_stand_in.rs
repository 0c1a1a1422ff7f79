//! Stands in for a tracking server of MLflow: its REST interface, with the bounds that `mlflow` 3 has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::listening::Listening;
use crate::made::Faults;

#[derive(Debug, Default)]
pub(crate) struct RunView {
    pub(crate) experiment: String,
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) params: BTreeMap<String, String>,
    pub(crate) tags: BTreeMap<String, String>,
    /// By name and step.
    pub(crate) metrics: BTreeMap<(String, u64), f64>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) experiments: Vec<String>,
    pub(crate) runs: Vec<RunView>,
    pub(crate) registered: BTreeMap<String, Vec<String>>,
    /// What `Authorization` has to be.
    pub(crate) authorization: Option<String>,
    /// Whether files do not go through the server.
    pub(crate) apart: bool,
}

#[derive(Debug, Default)]
struct Inner {
    content: Mutex<Content>,
    faults: Faults,
}

/// A tracking server, ended with the test.
#[derive(Debug)]
pub(crate) struct MlflowStandIn {
    pub(crate) url: String,
    inner: Arc<Inner>,
    _listening: Listening,
}

type Shared = State<Arc<Inner>>;
type Answer = Result<Response, Refused>;

impl MlflowStandIn {
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Inner::default());
        let routes = Router::new()
            .route("/api/2.0/mlflow/experiments/get-by-name", get(experiment))
            .route("/api/2.0/mlflow/{kind}/{action}", post(act))
            .route("/api/2.0/mlflow-artifacts/artifacts/{*path}", put(file))
            .with_state(inner.clone());
        let listening = Listening::start(routes).await;
        let url = listening.url.clone();
        Self { url, inner, _listening: listening }
    }

    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.inner.content.lock().expect("a lock")
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.inner.faults
    }
}

/// An answer that is no success.
#[derive(Debug)]
struct Refused {
    status: u16,
    code: &'static str,
    message: &'static str,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self { status, code, message } = self;
        let status = StatusCode::from_u16(status).expect("a status");
        (status, Json(json!({ "error_code": code, "message": message }))).into_response()
    }
}

fn refused(status: u16, code: &'static str, message: &'static str) -> Refused {
    Refused { status, code, message }
}

impl Inner {
    fn enter(&self, step: &str, headers: &HeaderMap) -> Result<MutexGuard<'_, Content>, Refused> {
        let content = self.content.lock().expect("a lock");
        self.fail(step)?;
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if content.authorization.as_deref() != given {
            return Err(refused(401, "", "You are not authenticated."));
        }
        Ok(content)
    }

    fn fail(&self, step: &str) -> Result<(), Refused> {
        match self.faults.take(step) {
            Some(status) => Err(refused(status, "INTERNAL_ERROR", "planned")),
            None => Ok(()),
        }
    }
}

async fn experiment(
    State(server): Shared,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Answer {
    let content = server.enter("experiment", &headers)?;
    let place = content.experiments.iter().position(|name| *name == query["experiment_name"]);
    let place = place.ok_or_else(|| refused(404, "RESOURCE_DOES_NOT_EXIST", "Could not find experiment"))?;
    let answer = json!({ "experiment": { "experiment_id": place.to_string(), "lifecycle_stage": "active" } });
    Ok(Json(answer).into_response())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn info(content: &Content, index: usize) -> Value {
    let experiment = &content.runs[index].experiment;
    let start = if content.apart { "s3://bucket" } else { "mlflow-artifacts:" };
    json!({ "info": { "run_id": index.to_string(), "artifact_uri": format!("{start}/{experiment}/{index}/artifacts") } })
}

/// Key and value of each, where the interface takes them.
fn pairs(list: &Value, most: usize) -> Result<Vec<(String, String)>, Refused> {
    let list = list.as_array().cloned().unwrap_or_default();
    let all: Vec<(String, String)> = list.iter().map(|pair| (text(&pair["key"]), text(&pair["value"]))).collect();
    let is_fine = |(key, value): &(String, String)| key.chars().count() <= 250 && value.chars().count() <= most;
    if all.len() > 100 || !all.iter().all(is_fine) {
        return Err(refused(400, "INVALID_PARAMETER_VALUE", "too many, or too long"));
    }
    Ok(all)
}

async fn act(
    State(server): Shared,
    Path((kind, action)): Path<(String, String)>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Answer {
    let step = format!("{kind}/{action}");
    let mut content = server.enter(&step, &headers)?;
    let run = body["run_id"].as_str().and_then(|id| id.parse::<usize>().ok());
    let answer = match step.as_str() {
        "experiments/create" => {
            content.experiments.push(text(&body["name"]));
            json!({ "experiment_id": (content.experiments.len() - 1).to_string() })
        }
        "runs/create" => {
            let tags = pairs(&body["tags"], 8000)?.into_iter().collect();
            let (experiment, name) = (text(&body["experiment_id"]), text(&body["run_name"]));
            assert!(body["start_time"].is_i64());
            content.runs.push(RunView { experiment, name, tags, status: "RUNNING".to_owned(), ..RunView::default() });
            server.fail("after runs/create")?;
            json!({ "run": info(&content, content.runs.len() - 1) })
        }
        "runs/search" => {
            let wanted = text(&body["filter"]);
            let (name, value) =
                wanted.strip_prefix("tags.`").and_then(|rest| rest.split_once("` = ")).expect("a filter");
            let is_it = |run: &RunView| run.tags.get(name).is_some_and(|own| format!("'{own}'") == value);
            let found = (0..content.runs.len()).filter(|index| is_it(&content.runs[*index]));
            json!({ "runs": found.map(|index| info(&content, index)).collect::<Vec<_>>() })
        }
        "runs/log-batch" => {
            let params = pairs(&body["params"], 6000)?;
            let metrics = body["metrics"].as_array().cloned().unwrap_or_default();
            if metrics.len() > 1000 {
                return Err(refused(400, "INVALID_PARAMETER_VALUE", "too many metrics"));
            }
            let run = &mut content.runs[run.expect("a run")];
            run.params.extend(params);
            for metric in metrics {
                let step = metric["step"].as_u64().expect("a step");
                assert!(metric["timestamp"].is_i64());
                run.metrics.insert((text(&metric["key"]), step), metric["value"].as_f64().expect("a number"));
            }
            json!({})
        }
        "runs/update" => {
            assert!(body["end_time"].is_i64());
            content.runs[run.expect("a run")].status = text(&body["status"]);
            json!({})
        }
        "registered-models/create" => {
            let name = text(&body["name"]);
            if content.registered.contains_key(&name) {
                return Err(refused(400, "RESOURCE_ALREADY_EXISTS", "it is there"));
            }
            content.registered.insert(name, Vec::new());
            json!({})
        }
        "model-versions/create" => {
            let versions = content.registered.get_mut(&text(&body["name"])).expect("a registered model");
            versions.push(text(&body["source"]));
            json!({ "model_version": { "version": versions.len().to_string() } })
        }
        other => panic!("{other} is not of the interface"),
    };
    Ok(Json(answer).into_response())
}

async fn file(State(server): Shared, Path(path): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let mut content = server.enter("file", &headers)?;
    let parts: Vec<&str> = path.split('/').collect();
    let [_, run, "artifacts", rest @ ..] = parts.as_slice() else { panic!("{path} is of no run") };
    let run = &mut content.runs[run.parse::<usize>().expect("a run")];
    run.files.insert(rest.join("/"), body.to_vec());
    Ok(Json(json!({})).into_response())
}
