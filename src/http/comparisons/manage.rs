//! Lists, shows, cancels and deletes comparisons.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::{absent, find, parse_id};
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::listing::{Page, RawQuery, parse_unlabelled};
use crate::http::polling::{answer, wait};
use crate::http::shared_responses::{Finds, ReadsQuery, Writes};
use crate::http::state::AppState;
use crate::http::views::comparisons::{ComparisonSummary, ComparisonView};
use crate::http::views::problem::ProblemView;
use crate::store::comparisons::ComparisonDeletion;

/// List comparisons
///
/// Newest first.
#[utoipa::path(get, path = "/v1/comparisons", operation_id = "listComparisons", tag = "Comparisons",
    params(
        ("limit" = Option<usize>, Query, description = "Entries per page, 1 to 200.", example = 50),
        ("after" = Option<String>, Query, description = "The `next_after` of the page before.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "One page.", body = Page<ComparisonSummary>),
        ReadsQuery))]
pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<ComparisonSummary>>, Problem> {
    let listing = parse_unlabelled(&query)?;
    let rows = state.comparisons.list(&caller.tenant, &listing).await?;
    Ok(Json(Page::new(&listing, rows, |row| row.id.to_string(), ComparisonSummary::from)))
}

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
        Finds))]
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

/// Cancel a comparison
///
/// Every job of it that has not ended; those that have keep their results.
#[utoipa::path(post, path = "/v1/comparisons/{id}/cancel", operation_id = "cancelComparison", tag = "Comparisons",
    params(("id" = String, Path, description = "Its id.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "All had ended before.", body = ComparisonView),
        (status = 202, description = "They end.", body = ComparisonView),
        Writes, Finds))]
pub(super) async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<ComparisonView>), Problem> {
    let id = parse_id(&id)?;
    let (before, runs) = find(&state, &caller, id).await?;
    // Last first: the queue shall not begin what is about to be cancelled.
    for job in runs.iter().rev().filter_map(|run| run.job.as_ref()) {
        state.jobs.cancel(&caller.tenant, job.id).await?;
    }
    let status = if before.counts.ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let (summary, runs) = find(&state, &caller, id).await?;
    Ok((status, Json(ComparisonView::new(summary, runs))))
}

/// Delete a comparison
///
/// With its jobs, their history and their results.
#[utoipa::path(delete, path = "/v1/comparisons/{id}", operation_id = "deleteComparison", tag = "Comparisons",
    params(("id" = String, Path, description = "Its id.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 409, description = "A job of it has not ended.", body = ProblemView, content_type = "application/problem+json"),
        Writes, Finds))]
pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = parse_id(&id)?;
    let (state, tenant) = (&state, &caller.tenant);
    let delete = || async move { Ok(state.comparisons.delete(&state.blobs, tenant, id).await?) };
    match state.reserve.free(delete).await? {
        ComparisonDeletion::Absent => Err(absent(&format!("There is no comparison `{id}`"))),
        ComparisonDeletion::Active => {
            let detail =
                format!("Not now: not all of its jobs have ended; POST /v1/comparisons/{id}/cancel ends them.");
            Err(Problem::new(Code::JobActive, detail))
        }
        ComparisonDeletion::Done => Ok(StatusCode::NO_CONTENT),
    }
}
