//! Queues a job and answers, once per `Idempotency-Key`: a repeated request changes nothing and gets the first one's answer.

use axum::extract::OriginalUri;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::view;
use crate::domain::id::JobId;
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::store::idempotency::{Earlier, RequestKey};
use crate::store::jobs::JobError;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Set on answers that were given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const LONGEST_KEY: usize = 255;

/// The request's `Idempotency-Key`, if it has one.
///
/// # Errors
/// `bad_request` for a key that is not 1-255 printable characters.
pub(super) fn request_key(headers: &HeaderMap, uri: &OriginalUri, body: &[u8]) -> Result<Option<RequestKey>, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=LONGEST_KEY).contains(&key.len()));
    let key = key.ok_or_else(|| {
        Problem::new(Code::BadRequest, format!("Idempotency-Key must be 1 to {LONGEST_KEY} printable characters."))
    })?;
    let fingerprint = Sha256::new().chain_update(uri.to_string()).chain_update([0]).chain_update(body).finalize();
    Ok(Some(RequestKey { key: key.to_owned(), fingerprint: fingerprint.into() }))
}

/// Queues a job with `queue`, unless a request with the same key has done so, and answers 202.
///
/// # Errors
/// `idempotency_key_reused`, and whatever `queue` fails with; after an error the key is still free.
pub(super) async fn accept(
    state: &AppState,
    caller: &Caller,
    key: Option<&RequestKey>,
    queue: impl Future<Output = Result<JobId, Problem>>,
) -> Result<Response, Problem> {
    if let Some(key) = key {
        match state.idempotency.earlier(&caller.tenant, key).await? {
            None => {}
            Some(Earlier::Different) => return Err(JobError::KeyReused.into()),
            Some(Earlier::Queued { job, answer }) => {
                let body = match answer {
                    Some(body) => body,
                    None => render(state, caller, job).await?,
                };
                return Ok(([(REPLAYED, "true")], answer_of(job, body)).into_response());
            }
        }
    }
    let job = queue.await?;
    state.job_queued.notify_one();
    let body = render(state, caller, job).await?;
    if let Some(key) = key {
        state.idempotency.keep(&caller.tenant, key, &body).await?;
    }
    Ok(answer_of(job, body).into_response())
}

async fn render(state: &AppState, caller: &Caller, id: JobId) -> Result<Vec<u8>, Problem> {
    let view = view(state, state.jobs.get(&caller.tenant, id).await?).await?;
    serde_json::to_vec(&view).map_err(|error| Problem::new(Code::Internal, format!("The job cannot be shown: {error}")))
}

fn answer_of(job: JobId, body: Vec<u8>) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::LOCATION, format!("/v1/jobs/{job}")),
        (header::RETRY_AFTER, "1".to_owned()),
    ];
    (StatusCode::ACCEPTED, headers, body)
}
