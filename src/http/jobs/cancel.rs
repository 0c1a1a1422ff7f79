//! `POST /v1/jobs/{id}/cancel`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::{find, view};
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::views::jobs::JobView;
use crate::http::views::problem::ProblemView;

/// Cancel a job
///
/// A queued job ends at once. A running one is shown as `cancelling` and stops within one batch; if it publishes its result
/// before that, it has succeeded.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", operation_id = "cancelJob", tag = "Jobs",
    params(("id" = String, Path, description = "Its id.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "It had ended before.", body = JobView),
        (status = 202, description = "It ends.", body = JobView),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 403, description = "The key may not write.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    let id = super::parse_id(&id)?;
    let changed = state.jobs.cancel(&caller.tenant, id).await?;
    let job = find(&state, &caller, &id.to_string()).await?;
    let ended_before = !changed && job.state.is_terminal();
    let status = if ended_before { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(view(&state, job).await?)))
}
