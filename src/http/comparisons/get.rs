//! `GET /v1/comparisons/{id}`.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::{find, parse_id};
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::polling::{answer, wait};
use crate::http::state::AppState;
use crate::http::views::comparisons::ComparisonView;
use crate::http::views::problem::ProblemView;

/// Show a comparison
///
/// With its runs and their jobs. With `Prefer: wait=N` (at most 60) the answer comes when a run has changed its state, or after N
/// seconds; at once when all have ended. A job that is retried takes the place of the one before.
#[utoipa::path(get, path = "/v1/comparisons/{id}", operation_id = "getComparison", tag = "Comparisons",
    params(
        ("id" = String, Path, description = "Its id.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("Prefer" = Option<String>, Header, description = "How long to wait for news.", example = "wait=30"),
        ("If-None-Match" = Option<String>, Header, description = "What the client has.", example = "\"5d41402abc4b2a76\"")),
    responses(
        (status = 200, description = "The comparison.", body = ComparisonView,
            headers(("ETag", description = "Changes with the answer."), ("Retry-After", description = "Only while a run has not ended."))),
        (status = 304, description = "Nothing has changed."),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let (mut summary, mut runs) = find(&state, &caller, id).await?;
    if !summary.counts.ended() {
        let before = summary.counts;
        let news = || async { Ok(find(&state, &caller, id).await?.0.counts != before) };
        wait(&state, &headers, news).await?;
        (summary, runs) = find(&state, &caller, id).await?;
    }
    let ended = summary.counts.ended();
    answer(&ComparisonView::new(summary, runs), ended, &headers)
}
