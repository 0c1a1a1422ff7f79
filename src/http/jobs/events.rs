//! `GET /v1/jobs/{id}/events`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};

use super::stream::stream;
use super::{accepts, find, number, unknown_parameter};
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::listing::{Page, RawQuery, pairs};
use crate::http::state::AppState;
use crate::http::views::jobs::EventView;
use crate::http::views::problem::ProblemView;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Follow a job
///
/// With `Accept: text/event-stream` (`curl -N -H 'Accept: text/event-stream'`) what has happened and then what happens, until
/// the job has ended; `Last-Event-ID` goes on after an event. Otherwise a page of what has happened, oldest first.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", operation_id = "getJobEvents", tag = "Jobs",
    params(
        ("id" = String, Path, description = "Its id.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("after" = Option<i64>, Query, description = "Only events after this `seq`.", example = 12),
        ("limit" = Option<u32>, Query, description = "Events per page, 1 to 1000.", example = 100),
        ("Last-Event-ID" = Option<i64>, Header, description = "As `after`; sent by clients that reconnect.", example = 12)),
    responses(
        (status = 200, description = "The events.", content(
            (Page<EventView> = "application/json"),
            (String = "text/event-stream", example = "id: 1\nevent: state\ndata: {\"seq\":1,\"type\":\"state\",\"data\":{\"state\":\"queued\"}}\n\n"))),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn events(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (mut after, mut limit) = (0, 100);
    for (name, value) in pairs(&query) {
        match name.as_str() {
            "after" => after = number("after", &value, 0..=i64::MAX)?,
            "limit" => limit = number("limit", &value, 1..=1000)?,
            other => return Err(unknown_parameter(other, "after and limit")),
        }
    }
    let job = find(&state, &caller, &id).await?.id;
    if accepts(&headers, "text/event-stream") {
        let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()?.parse().ok());
        return Ok(stream(&state, job, last.unwrap_or(after)));
    }
    let mut rows = state.jobs.events(job, after, limit as u32 + 1).await?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_after = rows.last().filter(|_| has_more).map(|event| event.seq.to_string());
    Ok(Json(Page { data: rows.into_iter().map(EventView::from).collect(), has_more, next_after }).into_response())
}
