//! Registered models.

use serde_json::{Value, json};

use super::super::DestinationError;
use super::super::service::Service;
use super::artifacts::MODEL;
use super::run::{PRESENT, Run, post};

/// Makes the model of a run a version of the registered model `name`, which is made where there is none; the version.
pub(super) async fn version(service: &Service, name: &str, run: &Run) -> Result<String, DestinationError> {
    match post(service, ["registered-models", "create"], &json!({ "name": name })).await {
        Err(error) if !error.refusal().is_some_and(|refusal| refusal.is(PRESENT)) => return Err(error),
        _ => {}
    }
    let body = json!({ "name": name, "source": format!("{}/{MODEL}", run.artifacts), "run_id": run.id });
    let answer: Value = service.json(post(service, ["model-versions", "create"], &body).await?).await?;
    let version = answer.pointer("/model_version/version");
    let text = version.map(|version| version.as_str().map_or_else(|| version.to_string(), str::to_owned));
    text.ok_or_else(|| service.unexpected(format!("its answer names no version: {answer}")))
}
