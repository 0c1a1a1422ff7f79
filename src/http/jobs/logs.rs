//! `GET /v1/jobs/{id}/logs`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::{accepts, find, number, unknown_parameter};
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::listing::{Page, RawQuery, pairs};
use crate::http::state::AppState;
use crate::http::views::jobs::LogView;
use crate::http::views::problem::ProblemView;

/// Most lines in one answer.
const MOST: u32 = 1000;

/// Read a job's log
///
/// The last lines (`tail`, 100 unless told), or those after a line (`after`), oldest first. `Accept: text/plain` gets plain lines.
#[utoipa::path(get, path = "/v1/jobs/{id}/logs", operation_id = "getJobLogs", tag = "Jobs",
    params(
        ("id" = String, Path, description = "Its id.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("tail" = Option<u32>, Query, description = "How many of the last lines, 1 to 1000.", example = 100),
        ("after" = Option<i64>, Query, description = "Only lines after this `seq`.", example = 12)),
    responses(
        (status = 200, description = "The lines.", content((Page<LogView> = "application/json"), (String = "text/plain"))),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn logs(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (mut tail, mut after) = (None, None);
    for (name, value) in pairs(&query) {
        match name.as_str() {
            "tail" => tail = Some(number("tail", &value, 1..=i64::from(MOST))? as u32),
            "after" => after = Some(number("after", &value, 0..=i64::MAX)?),
            other => return Err(unknown_parameter(other, "tail and after")),
        }
    }
    let job = find(&state, &caller, &id).await?.id;
    let page = page(&state, job, tail, after).await?;
    if accepts(&headers, "text/plain") {
        return Ok(page.data.iter().map(LogView::line).collect::<String>().into_response());
    }
    Ok(Json(page).into_response())
}

async fn page(
    state: &AppState,
    job: crate::domain::id::JobId,
    tail: Option<u32>,
    after: Option<i64>,
) -> Result<Page<LogView>, Problem> {
    let Some(after) = after else {
        let rows = state.jobs.last_logs(job, tail.unwrap_or(100)).await?;
        return Ok(Page { data: rows.into_iter().map(LogView::from).collect(), has_more: false, next_after: None });
    };
    let limit = tail.unwrap_or(MOST) as usize;
    let mut rows = state.jobs.logs(job, after, limit as u32 + 1).await?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next_after = rows.last().filter(|_| has_more).map(|event| event.seq.to_string());
    Ok(Page { data: rows.into_iter().map(LogView::from).collect(), has_more, next_after })
}
