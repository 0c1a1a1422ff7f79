//! Lists, shows, cancels, retries and deletes jobs.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::{find_whole, parse_id, unknown_parameter, view, wrong_parameter};
use crate::domain::job;
use crate::domain::problem::Problem;
use crate::http::addressed::Addressed;
use crate::http::auth::Caller;
use crate::http::idempotent::{accept, request_key};
use crate::http::listing::{ListParameters, Page, RawQuery, pairs, parse};
use crate::http::polling::{answer, wait};
use crate::http::shared_responses::{Finds, ReadsQuery, Writes};
use crate::http::state::AppState;
use crate::http::views::jobs::{JobSummary, JobView};
use crate::http::views::problem::ProblemView;
use crate::store::jobs::RetryFrom;

/// List jobs
///
/// The newest come first. `?state=STATE` selects those in a state, `?label=NAME=VALUE` those with this label; several must all match.
#[utoipa::path(get, path = "/v1/jobs", operation_id = "listJobs", tag = "Jobs", params(ListParameters),
    responses(
        (status = 200, description = "One page of jobs.", body = Page<JobSummary>),
        ReadsQuery))]
pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<JobSummary>>, Problem> {
    let listing = parse(&query, job::State::SHOWN)?;
    let rows = state.jobs.list(&caller.tenant, &listing).await?;
    Ok(Json(Page::of(listing.limit, rows, |job| job.id.to_string(), |job| JobSummary::from(&job))))
}

/// Show a job
///
/// With `Prefer: wait=N` (at most 60) the server answers when the state changes, or after N seconds; for a job that has ended
/// it answers at once. With `If-None-Match` the answer is 304 while nothing has changed.
#[utoipa::path(get, path = "/v1/jobs/{id}", operation_id = "getJob", tag = "Jobs",
    params(
        ("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("Prefer" = Option<String>, Header, description = "How many seconds to wait for another state.", example = "wait=30"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the answer that the client already has.", example = "\"5d41402abc4b2a76\"")),
    responses(
        (status = 200, description = "The job.", body = JobView,
            headers(("ETag", description = "Identifies this version of the answer."), ("Retry-After", description = "After how many seconds to look again. It is only sent while the job has not ended."))),
        (status = 304, description = "Nothing has changed since."),
        Finds))]
pub(super) async fn get(request: Addressed, headers: HeaderMap) -> Result<Response, Problem> {
    let (mut whole, state) = (find_whole(&request).await?, &request.state);
    if !whole.job.state.is_terminal() {
        let news = async {
            state.live.leaves(whole.job.id, whole.job.state.shown()).await;
            Ok(())
        };
        if wait(state, &headers, news).await? {
            whole = find_whole(&request).await?;
        }
    }
    let ended = whole.job.state.is_terminal();
    answer(&view(state, whole).await?, ended, &headers)
}

/// Cancel a job
///
/// A queued job ends at once. A running job is shown as `cancelling` and stops after its current batch. If it publishes its
/// result before that, it has succeeded.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", operation_id = "cancelJob", tag = "Jobs",
    params(("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "The job had already ended.", body = JobView),
        (status = 202, description = "The job ends, or is about to.", body = JobView),
        Writes, Finds))]
pub(super) async fn cancel(request: Addressed) -> Result<(StatusCode, Json<JobView>), Problem> {
    let changed = request.state.jobs.cancel(&request.caller.tenant, parse_id(&request.name)?).await?;
    let whole = find_whole(&request).await?;
    let ended_before = !changed && whole.job.state.is_terminal();
    let status = if ended_before { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(view(&request.state, whole).await?)))
}

/// Run a job again
///
/// Queues a new job like this one, which must have ended. It continues from the last checkpoint unless `from=start` is given.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", operation_id = "retryJob", tag = "Jobs",
    params(
        ("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("from" = Option<String>, Query, description = "Where to begin: `checkpoint` (the default) or `start`.", example = "start"),
        ("Idempotency-Key" = Option<String>, Header, description = "Requests with the same key get the same answer for 24 hours.",
            example = "5b0e2a51-7f0c-4b6e-9d0e-0b5f6f0f3c55")),
    responses(
        (status = 202, description = "The new job.", body = JobView, headers(("Location", description = "The address of the new job."))),
        (status = 400, description = "The Idempotency-Key cannot be read.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "The job has not ended.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "A file that the job reads was deleted.", body = ProblemView, content_type = "application/problem+json"),
        Writes, Finds))]
pub(super) async fn retry(
    Addressed { state, caller, name }: Addressed,
    uri: OriginalUri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let from = origin(&query)?;
    let key = request_key(&headers, &uri, &[])?;
    let key = key.as_ref();
    accept(&state, &caller, key, async { Ok(state.jobs.retry(&caller.tenant, parse_id(&name)?, from, key).await?) })
        .await
}

fn origin(query: &str) -> Result<RetryFrom, Problem> {
    let mut from = RetryFrom::Checkpoint;
    for (name, value) in pairs(query) {
        from = match (name.as_str(), value.as_str()) {
            ("from", "start") => RetryFrom::Start,
            ("from", "checkpoint") => RetryFrom::Checkpoint,
            ("from", other) => {
                return Err(wrong_parameter("from", format!("expected `checkpoint` or `start`, got `{other}`")));
            }
            (other, _) => return Err(unknown_parameter(other, "from")),
        };
    }
    Ok(from)
}

/// Delete a job
///
/// Its history and its results are deleted with it.
#[utoipa::path(delete, path = "/v1/jobs/{id}", operation_id = "deleteJob", tag = "Jobs",
    params(("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 204, description = "The job was deleted."),
        (status = 409, description = "The job has not ended.", body = ProblemView, content_type = "application/problem+json"),
        Writes, Finds))]
pub(super) async fn delete(request: Addressed) -> Result<StatusCode, Problem> {
    let (state, tenant, id) = (&request.state, &request.caller.tenant, parse_id(&request.name)?);
    state.reserve.free(|| async move { Ok(state.jobs.delete(&state.blobs, tenant, id).await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}
