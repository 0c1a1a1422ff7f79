//! Why an upload was refused, and where it could go on.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use crate::domain::problem::{Code, Problem};
use crate::store::StoreError;
use crate::store::intake::IntakeError;

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");

/// An upload's state, as headers.
pub(super) fn offset_headers(offset: u64, complete: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    headers.insert(UPLOAD_COMPLETE, HeaderValue::from_static(if complete { "?1" } else { "?0" }));
    headers
}

/// A problem, with the offset that would have been right where the offset was the problem.
#[derive(Debug)]
pub struct Refusal {
    problem: Problem,
    /// The right offset, and whether the file is complete.
    offset: Option<(u64, bool)>,
}

impl Refusal {
    /// The upload continues at `offset`, not where the request said.
    pub(super) fn offset(offset: u64, complete: bool, detail: String) -> Self {
        let problem = Problem::new(Code::UploadOffsetMismatch, detail);
        Self { problem, offset: Some((offset, complete)) }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, offset: None }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        refusal.problem
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        if let Some((offset, complete)) = self.offset {
            response.headers_mut().extend(offset_headers(offset, complete));
        }
        response
    }
}

/// The problem behind an error of the staging file or its content.
pub(super) fn intake_problem(error: &IntakeError) -> Problem {
    match error {
        IntakeError::Format(error) => Problem::new(Code::InvalidCheckpoint, format!("{error}.")),
        IntakeError::Weights(error) => {
            let code = Code::NonFiniteWeights;
            Problem::new(code, format!("{error}. Was the training stable? Upload the checkpoint of an earlier epoch."))
        }
        IntakeError::Io(cause) => {
            tracing::error!(%error, "a staging file failed");
            match Code::of_system(cause) {
                Code::DiskFull => disk_full(),
                code => storage_failed(code),
            }
        }
        IntakeError::Unsound => storage_failed(Code::StorageFailed),
    }
}

fn storage_failed(code: Code) -> Problem {
    let detail =
        "The server could not write the upload; the log has the details. What was acknowledged is kept: resume later.";
    Problem::new(code, detail)
}

/// The disk has no room.
pub(super) fn disk_full() -> Problem {
    let detail =
        "The server's disk has no room for this upload. What arrived is kept: resume when there is space again.";
    Problem::new(Code::DiskFull, detail)
}

/// Another request goes on with the upload, at another server.
pub(super) fn superseded() -> Problem {
    let detail = "Another request has gone on with this upload. What was acknowledged is kept: ask for the offset, and resume there.";
    Problem::new(Code::UploadInProgress, detail)
}
