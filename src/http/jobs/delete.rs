//! `DELETE /v1/jobs/{id}`.

use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::parse_id;
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::views::problem::ProblemView;

/// Delete a job
///
/// With its history and its results.
#[utoipa::path(delete, path = "/v1/jobs/{id}", operation_id = "deleteJob", tag = "Jobs",
    params(("id" = String, Path, description = "Its id.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 403, description = "The key may not write.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "It has not ended.", body = ProblemView, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = parse_id(&id)?;
    let (state, tenant) = (&state, &caller.tenant);
    state.reserve.free(|| async move { Ok(state.jobs.delete(&state.blobs, tenant, id).await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}
