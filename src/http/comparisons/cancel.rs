//! `POST /v1/comparisons/{id}/cancel`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::{find, parse_id};
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::views::comparisons::ComparisonView;
use crate::http::views::problem::ProblemView;

/// Cancel a comparison
///
/// Every job of it that has not ended; those that have keep their results.
#[utoipa::path(post, path = "/v1/comparisons/{id}/cancel", operation_id = "cancelComparison", tag = "Comparisons",
    params(("id" = String, Path, description = "Its id.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "All had ended before.", body = ComparisonView),
        (status = 202, description = "They end.", body = ComparisonView),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 403, description = "The key may not write.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full.", body = ProblemView, content_type = "application/problem+json")))]
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
