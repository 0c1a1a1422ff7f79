//! `GET /v1/checkpoints/{name}`.

use axum::Json;
use axum::extract::{Path, State};

use super::find;
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::views::checkpoints::CheckpointView;
use crate::http::views::problem::ProblemView;

/// Show a checkpoint
///
/// With its tensors, and what they tell of the network.
#[utoipa::path(get, path = "/v1/checkpoints/{name}", operation_id = "getCheckpoint", tag = "Checkpoints",
    params(("name" = String, Path, description = "Id or name.", example = "m0.safetensors")),
    responses(
        (status = 200, description = "The checkpoint.", body = CheckpointView),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<CheckpointView>, Problem> {
    Ok(Json(find(&state, &caller, &name).await?.into()))
}
