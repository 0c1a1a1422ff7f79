//! `GET /v1/jobs/{id}`.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::{find, parse_id, view};
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::download::{etag, names};
use crate::http::state::AppState;
use crate::http::views::jobs::JobView;
use crate::http::views::problem::ProblemView;
use crate::store::jobs::Job;

/// `Prefer: wait=N` (RFC 7240).
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const LONGEST_WAIT: u64 = 60;
/// Workers may be other processes, so a waiting request looks again and again.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    request: HeaderMap,
) -> Result<Response, Problem> {
    let mut job = find(&state, &caller, &id).await?;
    let wait = preferred_wait(&request);
    if let Some(wait) = wait
        && !job.state.is_terminal()
    {
        wait_for_change(&state, &job, wait).await?;
        job = state.jobs.get(&caller.tenant, parse_id(&id)?).await?;
    }
    let mut headers = HeaderMap::new();
    if !job.state.is_terminal() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if wait.is_some() {
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("wait"));
    }
    answer(&view(&state, job).await?, headers, &request)
}

fn answer(view: &JobView, mut headers: HeaderMap, request: &HeaderMap) -> Result<Response, Problem> {
    let body = serde_json::to_vec(view).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let tag = hex::encode(&Sha256::digest(&body)[..16]);
    headers.insert(header::ETAG, etag(&tag));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if request.get(header::IF_NONE_MATCH).is_some_and(|value| names(value, &tag)) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok((headers, body).into_response())
}

/// The `wait` among the request's preferences.
fn preferred_wait(request: &HeaderMap) -> Option<Duration> {
    let values = request.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let preferences = values.flat_map(|value| value.split([',', ';'])).filter_map(|part| part.trim().split_once('='));
    let seconds = preferences
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .find_map(|(_, value)| value.trim().trim_matches('"').parse::<u64>().ok())?;
    Some(Duration::from_secs(seconds.min(LONGEST_WAIT)))
}

/// Returns when the state is another one, the time is up, or the server is about to end.
async fn wait_for_change(state: &AppState, job: &Job, patience: Duration) -> Result<(), Problem> {
    let changed = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if state.jobs.watch(job.id).await?.state != job.state.shown() {
                return Ok(());
            }
        }
    };
    tokio::select! {
        outcome = changed => outcome,
        () = tokio::time::sleep(patience) => Ok(()),
        () = state.shutdown.draining() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_found_among_other_preferences_and_bounded() {
        let wait = |text| preferred_wait(&HeaderMap::from_iter([(PREFER, HeaderValue::from_static(text))]));
        assert_eq!(wait("wait=5"), Some(Duration::from_secs(5)));
        assert_eq!(wait("respond-async, Wait = \"7\""), Some(Duration::from_secs(7)));
        assert_eq!(wait("wait=100000"), Some(Duration::from_mins(1)));
        assert_eq!(wait("wait=soon"), None);
        assert_eq!(wait("return=minimal"), None);
    }
}
