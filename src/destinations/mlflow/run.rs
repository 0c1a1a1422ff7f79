//! Experiments and runs.

use reqwest::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::service::Service;
use super::super::{DestinationError, Outline, Refusal};
use super::batches::{LogBatch, Text, began, ended_after};
use crate::client::Pauses;

pub(super) const ABSENT: &str = "RESOURCE_DOES_NOT_EXIST";
pub(super) const PRESENT: &str = "RESOURCE_ALREADY_EXISTS";
/// The tag by which a run is found whose server did not answer.
const PUSH: &str = "engraft.push";

/// A run that is being filled.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Run {
    #[serde(rename = "run_id")]
    pub(super) id: String,
    /// Where its files go.
    #[serde(rename = "artifact_uri")]
    pub(super) artifacts: String,
}

#[derive(Debug, Deserialize)]
struct Made {
    run: Info,
}

#[derive(Debug, Deserialize)]
struct Found {
    #[serde(default)]
    runs: Vec<Info>,
}

#[derive(Debug, Deserialize)]
struct Info {
    info: Run,
}

/// Posts to the interface of version 2.0.
pub(super) async fn post(
    service: &Service,
    path: [&str; 2],
    body: &impl Serialize,
) -> Result<Response, DestinationError> {
    let url = service.url(["api", "2.0", "mlflow", path[0], path[1]]);
    service.send(|| service.request(Method::POST, url.clone()).json(body)).await
}

/// The id of the experiment `name`, which is made where there is none.
pub(super) async fn experiment(service: &Service, name: &str) -> Result<String, DestinationError> {
    if let Some(id) = found_experiment(service, name).await? {
        return Ok(id);
    }
    match post(service, ["experiments", "create"], &json!({ "name": name })).await {
        Ok(answer) => id_of(service, &service.json::<Value>(answer).await?, "/experiment_id"),
        // Somebody was faster.
        Err(error) if error.refusal().is_some_and(|refusal| refusal.is(PRESENT)) => {
            let found = found_experiment(service, name).await?;
            found.ok_or_else(|| DestinationError::Unprepared(format!(
                "the experiment `{name}` was deleted and keeps its name: restore it, or name another with --experiment"
            )))
        }
        Err(error) => Err(error),
    }
}

async fn found_experiment(service: &Service, name: &str) -> Result<Option<String>, DestinationError> {
    let mut url = service.url(["api", "2.0", "mlflow", "experiments", "get-by-name"]);
    url.query_pairs_mut().append_pair("experiment_name", name);
    let answer = match service.send(|| service.request(Method::GET, url.clone())).await {
        Err(error) if error.refusal().is_some_and(|refusal| refusal.is(ABSENT)) => return Ok(None),
        answer => service.json::<Value>(answer?).await?,
    };
    if answer.pointer("/experiment/lifecycle_stage").and_then(Value::as_str) == Some("deleted") {
        return Ok(None);
    }
    id_of(service, &answer, "/experiment/experiment_id").map(Some)
}

fn id_of(service: &Service, answer: &Value, pointer: &str) -> Result<String, DestinationError> {
    let id = answer.pointer(pointer).and_then(Value::as_str);
    id.map(str::to_owned).ok_or_else(|| service.unexpected(format!("its answer has no {pointer}: {answer}")))
}

impl Run {
    /// Makes a run with the tags of `outline`, one even where the server's answer is lost.
    pub(super) async fn create(
        service: &Service,
        experiment: &str,
        outline: &Outline,
    ) -> Result<Self, DestinationError> {
        let push = uuid::Uuid::now_v7().to_string();
        let own = [(PUSH, push.as_str()), ("mlflow.source.name", "engraft"), ("mlflow.source.type", "JOB")];
        let note = outline.finding.as_deref().map(|finding| ("mlflow.note.content", finding));
        let tags = outline.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).chain(own).chain(note);
        let body = json!({
            "experiment_id": experiment,
            "run_name": outline.name,
            "start_time": began(outline),
            "tags": tags.map(|(key, value)| Text::tag(key, value)).collect::<Vec<_>>(),
        });
        let mut pauses = Pauses::default();
        loop {
            let url = service.url(["api", "2.0", "mlflow", "runs", "create"]);
            match service.send_once(service.request(Method::POST, url).json(&body)).await {
                Ok(answer) => return Ok(service.json::<Made>(answer).await?.run.info),
                Err(error) if error.is_passing() => pauses.wait(error, None).await?,
                Err(error) => return Err(error),
            }
            if let Some(run) = Self::find(service, experiment, &push).await? {
                return Ok(run);
            }
        }
    }

    /// The run that the request of this push has made.
    async fn find(service: &Service, experiment: &str, push: &str) -> Result<Option<Self>, DestinationError> {
        let filter = format!("tags.`{PUSH}` = '{push}'");
        let body = json!({ "experiment_ids": [experiment], "filter": filter, "max_results": 1 });
        let answer = post(service, ["runs", "search"], &body).await?;
        Ok(service.json::<Found>(answer).await?.runs.into_iter().next().map(|found| found.info))
    }

    /// Adds parameters and metrics; again, the same stay the same.
    pub(super) async fn log(&self, service: &Service, batch: &LogBatch) -> Result<(), DestinationError> {
        #[derive(Serialize)]
        struct Body<'a> {
            run_id: &'a str,
            #[serde(flatten)]
            batch: &'a LogBatch,
        }
        post(service, ["runs", "log-batch"], &Body { run_id: &self.id, batch }).await.map(drop)
    }

    /// Ends the run.
    pub(super) async fn end(
        &self,
        service: &Service,
        outline: &Outline,
        is_whole: bool,
    ) -> Result<(), DestinationError> {
        let status = if is_whole { "FINISHED" } else { "FAILED" };
        let end = began(outline) + ended_after(outline);
        let body = json!({ "run_id": self.id, "status": status, "end_time": end });
        post(service, ["runs", "update"], &body).await.map(drop)
    }
}

/// What to do where the server refuses.
pub(super) fn advice(refusal: &Refusal, address: &str) -> Option<String> {
    Some(match refusal.status {
        StatusCode::UNAUTHORIZED => {
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, as the server asks for".to_owned()
        }
        StatusCode::FORBIDDEN => format!(
            "the user of MLFLOW_TRACKING_USERNAME or MLFLOW_TRACKING_TOKEN may not do this at {address}; a server may also refuse hosts that its \
             --allowed-hosts does not name"
        ),
        StatusCode::NOT_FOUND if refusal.code.is_none() => {
            format!("is {address} the address of a tracking server of MLflow? --tracking-uri or MLFLOW_TRACKING_URI names it")
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            "see the server's log; files go through it where it was started with --serve-artifacts".to_owned()
        }
        _ => return None,
    })
}
