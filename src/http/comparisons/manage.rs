//! Lists, shows, cancels and deletes comparisons.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::{absent, find, parse_id};
use crate::domain::problem::{Code, Problem};
use crate::http::addressed::Addressed;
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
/// The newest come first.
#[utoipa::path(get, path = "/v1/comparisons", operation_id = "listComparisons", tag = "Comparisons",
    params(
        ("limit" = Option<usize>, Query, description = "The most entries of a page, 1 to 200.", example = 50),
        ("after" = Option<String>, Query, description = "The `next_after` of the previous page.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "One page of comparisons.", body = Page<ComparisonSummary>),
        ReadsQuery))]
pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<ComparisonSummary>>, Problem> {
    let listing = parse_unlabelled(&query)?;
    let rows = state.comparisons.list(&caller.tenant, &listing).await?;
    Ok(Json(Page::of(listing.limit, rows, |row| row.id.to_string(), ComparisonSummary::from)))
}

/// Show a comparison
///
/// The answer lists its runs with their jobs. With `Prefer: wait=N` (at most 60) the server answers when the state of a run
/// changes, or after N seconds; when all runs have ended it answers at once. A retried job takes the place of the job before.
#[utoipa::path(get, path = "/v1/comparisons/{id}", operation_id = "getComparison", tag = "Comparisons",
    params(
        ("id" = String, Path, description = "The id of the comparison.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("Prefer" = Option<String>, Header, description = "How many seconds to wait for another state of a run.", example = "wait=30"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the answer that the client already has.", example = "\"5d41402abc4b2a76\"")),
    responses(
        (status = 200, description = "The comparison.", body = ComparisonView,
            headers(("ETag", description = "Identifies this version of the answer."), ("Retry-After", description = "After how many seconds to look again. It is only sent while a run has not ended."))),
        (status = 304, description = "Nothing has changed since."),
        Finds))]
pub(super) async fn get(request: Addressed, headers: HeaderMap) -> Result<Response, Problem> {
    let (mut summary, mut runs) = find(&request).await?;
    if !summary.counts.ended() {
        let before = summary.counts;
        let news = async {
            let mut ticks = request.state.changes.ticks();
            loop {
                ticks.next().await;
                if find(&request).await?.0.counts != before {
                    return Ok(());
                }
            }
        };
        if wait(&request.state, &headers, news).await? {
            (summary, runs) = find(&request).await?;
        }
    }
    let ended = summary.counts.ended();
    answer(&ComparisonView::new(summary, runs), ended, &headers)
}

/// Cancel a comparison
///
/// Cancels every job of it that has not ended. The others keep their results.
#[utoipa::path(post, path = "/v1/comparisons/{id}/cancel", operation_id = "cancelComparison", tag = "Comparisons",
    params(("id" = String, Path, description = "The id of the comparison.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "All jobs had already ended.", body = ComparisonView),
        (status = 202, description = "The jobs end, or are about to.", body = ComparisonView),
        Writes, Finds))]
pub(super) async fn cancel(request: Addressed) -> Result<(StatusCode, Json<ComparisonView>), Problem> {
    let (before, runs) = find(&request).await?;
    // Last first: the queue shall not begin what is about to be cancelled.
    for job in runs.iter().rev().filter_map(|run| run.job.as_ref()) {
        request.state.jobs.cancel(&request.caller.tenant, job.id).await?;
    }
    let status = if before.counts.ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let (summary, runs) = find(&request).await?;
    Ok((status, Json(ComparisonView::new(summary, runs))))
}

/// Delete a comparison
///
/// Its jobs are deleted with their history and their results.
#[utoipa::path(delete, path = "/v1/comparisons/{id}", operation_id = "deleteComparison", tag = "Comparisons",
    params(("id" = String, Path, description = "The id of the comparison.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 204, description = "The comparison was deleted."),
        (status = 409, description = "A job of the comparison has not ended.", body = ProblemView, content_type = "application/problem+json"),
        Writes, Finds))]
pub(super) async fn delete(request: Addressed) -> Result<StatusCode, Problem> {
    let (state, tenant, id) = (&request.state, &request.caller.tenant, parse_id(&request.name)?);
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
