//! `POST /v1/jobs/{id}/retry`.

use axum::extract::{OriginalUri, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::{parse_id, unknown_parameter, wrong_parameter};
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::idempotent::{accept, request_key};
use crate::http::listing::{RawQuery, pairs};
use crate::http::state::AppState;
use crate::http::views::jobs::JobView;
use crate::http::views::problem::ProblemView;
use crate::store::jobs::RetryFrom;

/// Run a job again
///
/// Makes a new job like this one, which must have ended. It goes on from the last checkpoint unless `from=start`.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", operation_id = "retryJob", tag = "Jobs",
    params(
        ("id" = String, Path, description = "Its id.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("from" = Option<String>, Query, description = "`checkpoint` (default) or `start`.", example = "start"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gets the same answer for 24 h.",
            example = "5b0e2a51-7f0c-4b6e-9d0e-0b5f6f0f3c55")),
    responses(
        (status = 202, description = "The new job.", body = JobView, headers(("Location", description = "The new job's address."))),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 403, description = "The key may not write.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "It has not ended.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "A file that it reads is gone.", body = ProblemView, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn retry(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    uri: OriginalUri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let from = origin(&query)?;
    let key = request_key(&headers, &uri, &[])?;
    let key = key.as_ref();
    accept(&state, &caller, key, async { Ok(state.jobs.retry(&caller.tenant, parse_id(&id)?, from, key).await?) }).await
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
