//! `/v1/pins`: what retention leaves alone.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::shared_responses::{NeedsKey, Writes};
use super::state::AppState;
use super::views::problem::ProblemView;
use crate::domain::problem::{Code, Problem};

/// Every route of pins.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(pin, unpin))
}

/// What is pinned.
#[derive(Debug, Serialize, ToSchema)]
struct PinsView {
    /// Ids of jobs, checkpoints and datasets.
    #[schema(example = json!(["job_019324a5a0007f3e8d1c2b3a4f5e6d7c"]))]
    data: Vec<String>,
}

/// List what is pinned
///
/// The server may delete jobs that have ended, and files that no job reads, after some time. It never deletes what is pinned.
#[utoipa::path(get, path = "/v1/pins", operation_id = "listPins", tag = "Service",
    responses(
        (status = 200, description = "The pinned jobs, checkpoints and datasets.", body = PinsView),
        NeedsKey))]
async fn list(State(state): State<AppState>, caller: Caller) -> Result<Json<PinsView>, Problem> {
    Ok(Json(PinsView { data: state.pins.list(&caller.tenant).await? }))
}

/// Pin a job, a checkpoint or a dataset
///
/// It stays until it is deleted by a request.
#[utoipa::path(put, path = "/v1/pins/{id}", operation_id = "pin", tag = "Service",
    params(("id" = String, Path, description = "The id of the job or file.", example = "job_019324a5a0007f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 204, description = "It is pinned."),
        (status = 404, description = "There is no such job or file.", body = ProblemView, content_type = "application/problem+json"),
        Writes))]
async fn pin(State(state): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    if state.pins.set(&caller.tenant, &id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = format!("There is no job, checkpoint or dataset with the id `{id}`; their lists show the ids.");
    Err(Problem::new(Code::NotFound, detail))
}

/// Remove a pin
#[utoipa::path(delete, path = "/v1/pins/{id}", operation_id = "unpin", tag = "Service",
    params(("id" = String, Path, description = "The id of the job or file.", example = "job_019324a5a0007f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 204, description = "It is not pinned any more."),
        (status = 404, description = "It is not pinned.", body = ProblemView, content_type = "application/problem+json"),
        Writes))]
async fn unpin(State(state): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    if state.pins.remove(&caller.tenant, &id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(Code::NotFound, format!("`{id}` is not pinned; GET /v1/pins lists what is.")))
}
