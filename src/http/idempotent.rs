//! Makes something and answers, once per `Idempotency-Key`: a repeated request changes nothing and gets the first one's answer.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Request};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::auth::Caller;
use super::json::JsonBody;
use super::listing::RawQuery;
use super::state::AppState;
use crate::domain::id::IdError;
use crate::domain::problem::{Code, Problem};
use crate::store::idempotency::{Earlier, RequestKey};
use crate::store::jobs::JobError;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Set on answers that were given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const LONGEST_KEY: usize = 255;

/// The id of what a request makes: jobs that will be computed, or a checkpoint.
pub(super) trait Made: FromStr<Err = IdError> + Display + Copy + Send + Sync {
    /// Where things of this kind are found.
    const PATH: &'static str;

    /// What it looks like now, as the body of an answer.
    fn render(self, state: &AppState, caller: &Caller) -> impl Future<Output = Result<Vec<u8>, Problem>> + Send;
}

/// A request whose body says what to make.
#[derive(Debug)]
pub(super) struct Creation {
    /// What every handler can reach.
    pub(super) state: AppState,
    /// Whose it will be.
    pub(super) caller: Caller,
    /// The query string as it came.
    pub(super) query: String,
    /// What to make.
    pub(super) body: JsonBody,
    uri: OriginalUri,
    headers: HeaderMap,
}

impl Creation {
    /// See [`request_key`].
    ///
    /// # Errors
    /// Those of [`request_key`].
    pub(super) fn key(&self) -> Result<Option<RequestKey>, Problem> {
        request_key(&self.headers, &self.uri, &self.body.bytes)
    }
}

impl FromRequest<AppState> for Creation {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        let Ok(uri) = OriginalUri::from_request_parts(&mut parts, state).await;
        let Ok(RawQuery(query)) = RawQuery::from_request_parts(&mut parts, state).await;
        let headers = parts.headers.clone();
        let body = JsonBody::from_request(Request::from_parts(parts, body), state).await?;
        Ok(Self { state: state.clone(), caller, query, body, uri, headers })
    }
}

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

/// What an earlier request with the same key has made, and how it was answered; none where there was none.
///
/// # Errors
/// `idempotency_key_reused`.
pub(super) async fn earlier<I: Made>(
    state: &AppState,
    caller: &Caller,
    key: Option<&RequestKey>,
) -> Result<Option<(I, Vec<u8>)>, Problem> {
    let Some(key) = key else { return Ok(None) };
    match state.idempotency.earlier::<I>(&caller.tenant, key).await? {
        None => Ok(None),
        Some(Earlier::Different) => Err(JobError::KeyReused.into()),
        Some(Earlier::Made { id, answer: Some(body) }) => Ok(Some((id, body))),
        Some(Earlier::Made { id, answer: None }) => Ok(Some((id, id.render(state, caller).await?))),
    }
}

/// Keeps the answer about what was made for repetitions of its request.
pub(super) async fn keep<I: Made>(state: &AppState, caller: &Caller, key: Option<&RequestKey>, made: I, body: &[u8]) {
    if let Some(key) = key
        && let Err(error) = state.idempotency.keep(&caller.tenant, key, body).await
    {
        // It is made, and the key says so: a repetition finds it, and shows what it looks like by then.
        tracing::warn!(id = %made, %error, "the answer could not be kept for repetitions");
    }
}

/// Makes something with `make`, unless a request with the same key has done so, and answers 202.
///
/// # Errors
/// `idempotency_key_reused`, and whatever `make` fails with; after an error the key is still free.
pub(super) async fn accept<I: Made>(
    state: &AppState,
    caller: &Caller,
    key: Option<&RequestKey>,
    make: impl Future<Output = Result<I, Problem>>,
) -> Result<Response, Problem> {
    if let Some((id, body)) = earlier::<I>(state, caller, key).await? {
        return Ok(([(REPLAYED, "true")], answer_of(id, body)).into_response());
    }
    let made = make.await?;
    state.job_queued.notify_one();
    let body = made.render(state, caller).await?;
    keep(state, caller, key, made, &body).await;
    Ok(answer_of(made, body).into_response())
}

fn answer_of<I: Made>(id: I, body: Vec<u8>) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::LOCATION, format!("{}/{id}", I::PATH)),
        (header::RETRY_AFTER, "1".to_owned()),
    ];
    (StatusCode::ACCEPTED, headers, body)
}
