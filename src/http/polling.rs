//! Clients that poll: `Prefer: wait=N` (RFC 7240) holds an answer back until there is news, `If-None-Match` saves sending it again.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::download::{etag, names};
use super::state::AppState;
use crate::domain::problem::{Code, Problem};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const LONGEST_WAIT: u64 = 60;

/// Returns when `news` does, the time that the client prefers is up, or the server is about to end; at once, and false, for a client
/// that prefers no waiting.
///
/// # Errors
/// Those of `news`.
pub(super) async fn wait(
    state: &AppState,
    request: &HeaderMap,
    news: impl Future<Output = Result<(), Problem>>,
) -> Result<bool, Problem> {
    let Some(patience) = preferred_wait(request) else { return Ok(false) };
    tokio::select! {
        outcome = news => outcome.map(|()| true),
        () = tokio::time::sleep(patience) => Ok(true),
        () = state.shutdown.draining() => Ok(true),
    }
}

/// Shows `view` to a client that polls until it has `ended`; 304 if the client has it already.
///
/// # Errors
/// `internal` when it cannot be written.
pub(super) fn answer(view: &impl Serialize, ended: bool, request: &HeaderMap) -> Result<Response, Problem> {
    let body = serde_json::to_vec(view).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let tag = hex::encode(&Sha256::digest(&body)[..16]);
    let mut headers = HeaderMap::new();
    if !ended {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if preferred_wait(request).is_some() {
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("wait"));
    }
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
