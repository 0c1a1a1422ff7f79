//! `GET /v1/jobs/{id}`.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::{find, view};
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::polling::{answer, wait};
use crate::http::state::AppState;
use crate::http::views::jobs::JobView;
use crate::http::views::problem::ProblemView;

/// Show a job
///
/// With `Prefer: wait=N` (at most 60) the answer comes when the state changes, or after N seconds; at once for a job that has
/// ended. `If-None-Match` gets 304 while nothing has changed.
#[utoipa::path(get, path = "/v1/jobs/{id}", operation_id = "getJob", tag = "Jobs",
    params(
        ("id" = String, Path, description = "Its id.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("Prefer" = Option<String>, Header, description = "How long to wait for another state.", example = "wait=30"),
        ("If-None-Match" = Option<String>, Header, description = "What the client has.", example = "\"5d41402abc4b2a76\"")),
    responses(
        (status = 200, description = "The job.", body = JobView,
            headers(("ETag", description = "Changes with the answer."), ("Retry-After", description = "Only while the job has not ended."))),
        (status = 304, description = "Nothing has changed."),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut job = find(&state, &caller, &id).await?;
    if !job.state.is_terminal() {
        let shown = job.state.shown();
        let news = || async { Ok(state.jobs.watch(job.id).await?.state != shown) };
        wait(&state, &headers, news).await?;
        job = state.jobs.get(&caller.tenant, job.id).await?;
    }
    let ended = job.state.is_terminal();
    answer(&view(&state, job).await?, ended, &headers)
}
