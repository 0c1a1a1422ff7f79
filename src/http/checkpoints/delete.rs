//! `DELETE /v1/checkpoints/{name}`.

use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::absent;
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::views::problem::ProblemView;
use crate::store::files::Deletion;

/// Delete a checkpoint
#[utoipa::path(delete, path = "/v1/checkpoints/{name}", operation_id = "deleteCheckpoint", tag = "Checkpoints",
    params(("name" = String, Path, description = "Id or name.", example = "m0.safetensors")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 403, description = "The key may not write.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "An unfinished job reads it.", body = ProblemView, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let (state, tenant, file) = (&state, &caller.tenant, &name);
    match state.reserve.free(|| async move { Ok(state.checkpoints.delete(tenant, file).await?) }).await? {
        Deletion::Done => Ok(StatusCode::NO_CONTENT),
        Deletion::Absent => Err(absent(&name)),
        Deletion::InUse => {
            let detail = format!("An unfinished job reads `{name}`; cancel the job or wait for its end.");
            Err(Problem::new(Code::InUse, detail))
        }
    }
}
