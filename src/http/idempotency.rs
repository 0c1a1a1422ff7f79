//! `Idempotency-Key`: a repeated POST gets the first one's answer and changes nothing.

use axum::body::Body;
use axum::extract::OriginalUri;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::auth::Caller;
use super::state::AppState;
use crate::domain::problem::{Code, Problem};
use crate::store::idempotency::{Answer, Claim};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Set on answers that were given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const LONGEST_KEY: usize = 255;
const LARGEST_ANSWER: usize = 4 << 20;

/// Answers with `work`, unless a request with the same key was answered before: then with that answer. Only success is
/// kept: after an error the same key may be tried again.
///
/// # Errors
/// `bad_request` for a key that is not 1-255 printable characters, `idempotency_key_reused`,
/// `idempotency_in_progress`, and whatever `work` fails with.
pub async fn once(
    state: &AppState,
    caller: &Caller,
    headers: &HeaderMap,
    uri: &OriginalUri,
    body: &[u8],
    work: impl Future<Output = Result<Response, Problem>>,
) -> Result<Response, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return work.await };
    let key = key.to_str().ok().filter(|key| (1..=LONGEST_KEY).contains(&key.len()));
    let key = key.ok_or_else(|| {
        Problem::new(Code::BadRequest, format!("Idempotency-Key must be 1 to {LONGEST_KEY} printable characters."))
    })?;
    match state.idempotency.claim(&caller.tenant, key, fingerprint(uri, body)).await? {
        Claim::Free => first(state, caller, key, work).await,
        Claim::Answered(answer) => replay(answer),
        Claim::Running => {
            Err(Problem::new(Code::IdempotencyInProgress, "Wait for the first request, or repeat this one later."))
        }
        Claim::Reused => {
            Err(Problem::new(Code::IdempotencyKeyReused, "Use a new key for a different request; keys are kept 24 h."))
        }
    }
}

fn fingerprint(uri: &OriginalUri, body: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(uri.to_string()).chain_update([0]).chain_update(body).finalize().into()
}

async fn first(
    state: &AppState,
    caller: &Caller,
    key: &str,
    work: impl Future<Output = Result<Response, Problem>>,
) -> Result<Response, Problem> {
    let response = match work.await {
        Ok(response) if response.status().is_success() => response,
        other => {
            state.idempotency.release(&caller.tenant, key).await?;
            return other;
        }
    };
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, LARGEST_ANSWER)
        .await
        .map_err(|error| Problem::new(Code::Internal, format!("The answer cannot be kept: {error}")))?;
    let text = |(name, value): (&HeaderName, &HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
    let answer = Answer {
        status: parts.status.as_u16(),
        headers: parts.headers.iter().filter_map(text).collect(),
        body: body.to_vec(),
    };
    state.idempotency.finish(&caller.tenant, key, &answer).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replay(answer: Answer) -> Result<Response, Problem> {
    let status = StatusCode::from_u16(answer.status)
        .map_err(|error| Problem::new(Code::Internal, format!("A stored answer has no valid status: {error}")))?;
    let mut response = (status, answer.body).into_response();
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}
