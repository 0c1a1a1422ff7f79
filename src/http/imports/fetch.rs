//! One attempt to fetch a file.

use axum::body::Body;
use futures_util::{StreamExt, stream};
use reqwest::header::{self, HeaderMap};
use reqwest::{Response, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::domain::problem::{Code, Problem};
use crate::http::state::AppState;
use crate::http::uploads::{Fetched, UploadOutcome, fetched};
use crate::outbound::OutboundError;
use crate::outbound::sources::{Found, Wanted, open};
use crate::store::imports::ToFetch;

/// Why an attempt has failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What its owner sees.
    pub(super) problem: Problem,
    /// Whether another attempt may do better.
    pub(super) again: bool,
}

impl Failure {
    fn refused(detail: String) -> Self {
        Self { problem: Problem::new(Code::SourceRefused, detail), again: false }
    }

    fn passing(detail: String) -> Self {
        Self { problem: Problem::new(Code::SourceFailed, detail), again: true }
    }
}

impl From<Problem> for Failure {
    /// An upload's problem, as that of a file that is fetched.
    fn from(problem: Problem) -> Self {
        match problem.code {
            Code::BadRequest | Code::RequestTimeout | Code::UploadOffsetMismatch => {
                Self::passing("The source stopped sending. What has arrived is kept.".to_owned())
            }
            code => Self { again: passes(code), problem },
        }
    }
}

/// Whether a problem of this kind may be gone the next time.
fn passes(code: Code) -> bool {
    matches!(code, Code::UploadInProgress | Code::TooMany | Code::Internal) || code.is_transient()
}

/// Fetches a file, or what is missing of it, until `stop`; the id of the checkpoint or dataset.
///
/// # Errors
/// Why there is none.
pub(super) async fn fetch(state: &AppState, wanted: &ToFetch, stop: &CancellationToken) -> Result<String, Failure> {
    let unfinished = state.staging.uploads().find(wanted.file.kind, &wanted.tenant, &wanted.file.name).await;
    let here = unfinished.map_err(|error| Failure::from(Problem::from(error)))?.map_or(0, |upload| upload.acknowledged);
    // Without a version nobody knows whether the rest belongs to what is here.
    let rest = Wanted {
        start: if wanted.etag.is_some() { here } else { 0 },
        etag: wanted.etag.as_deref(),
        token: wanted.file.token.as_deref(),
    };
    let found = open(&state.outbound, &state.services, &wanted.file.source, &rest).await;
    let Found { response, sha256 } = found.map_err(|error| match error {
        OutboundError::Forbidden { .. } => Failure::refused(format!("{error}.")),
        OutboundError::Failed(_) => Failure::passing(format!("The source cannot be reached: {error}.")),
    })?;
    let start = start_of(&response, rest.start, wanted)?;
    let headers = response.headers();
    if let Some(coding) = headers.get(header::CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        return Err(Failure::refused(format!(
            "The source sends the file compressed ({coding:?}), although it was asked not to."
        )));
    }
    state
        .imports
        .note_version(wanted, strong_etag(headers))
        .await
        .map_err(|error| Failure::from(Problem::from(error)))?;
    let arriving = Fetched {
        tenant: wanted.tenant.clone(),
        kind: wanted.file.kind,
        name: wanted.file.name.clone(),
        labels: wanted.file.labels.clone(),
        start,
        length: response.content_length(),
        sha256: wanted.file.sha256.or_else(|| sha256.and_then(|text| decoded(&text))),
        body: body_of(response, stop.clone()),
    };
    match fetched(state, arriving).await? {
        UploadOutcome::Created(file) | UploadOutcome::Same(file) => Ok(file.id),
        UploadOutcome::Partial(_) => {
            Err(Failure::passing("The source sent a part of the file. It is kept.".to_owned()))
        }
    }
}

/// Where in the file an answer begins.
fn start_of(response: &Response, asked: u64, wanted: &ToFetch) -> Result<u64, Failure> {
    let status = response.status();
    match status {
        StatusCode::OK => Ok(0),
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
            let first = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
            match first {
                Some(first) if first == asked => Ok(first),
                _ => {
                    Err(Failure::passing("The source sent another part of the file than it was asked for.".to_owned()))
                }
            }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let hint = if wanted.file.token.is_some() {
                "the `token` does not open it"
            } else {
                "it asks for a `token`, or there is no such file"
            };
            Err(Failure::refused(format!("The source answers {status}: {hint}.")))
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Failure::refused(format!(
            "The source answers {status}: there is no such file, or it asks for a `token`."
        ))),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::RANGE_NOT_SATISFIABLE => {
            Err(Failure::passing(format!("The source answers {status}.")))
        }
        _ if status.is_server_error() => Err(Failure::passing(format!("The source answers {status}."))),
        _ => Err(Failure::refused(format!("The source answers {status}, which is no file."))),
    }
}

/// The version of a file whose parts fit together (RFC 9110, section 13.1.5).
fn strong_etag(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ETAG)?.to_str().ok().filter(|tag| !tag.starts_with("W/"))
}

fn decoded(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}

/// The bytes of an answer, which break off at `stop` as if the host had gone.
fn body_of(response: Response, stop: CancellationToken) -> Body {
    let stopped = stop.clone();
    let bytes = response.bytes_stream().map(|bytes| bytes.map_err(std::io::Error::other));
    let end =
        stream::once(
            async move { if stopped.is_cancelled() { Some(Err(std::io::Error::other("stopped"))) } else { None } },
        );
    let bytes = bytes.take_until(stop.cancelled_owned()).chain(end.filter_map(std::future::ready));
    Body::from_stream(bytes)
}
