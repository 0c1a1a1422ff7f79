//! What answers about uploaded files have in common.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::put::UploadOutcome;
use super::refusal::{Refusal, offset_headers};
use crate::domain::name::FileName;
use crate::domain::problem::{Code, Problem};
use crate::http::addressed::Addressed;
use crate::http::download::{Content, Download, REPR_DIGEST, etag, repr_digest};
use crate::store::files::{Deletion, Kind, StoredFile};

/// The bytes of a file.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "stands for a body in the description; never made")]
pub struct FileBytes(Vec<u8>);

/// `ETag`, `Repr-Digest` and `Location` of a file.
pub(in crate::http) fn file_headers(kind: Kind, file: &StoredFile) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag(&file.sha256));
    headers.insert(REPR_DIGEST, repr_digest(&file.sha256));
    let location = HeaderValue::from_str(&format!("/v1/{}/{}", kind.plural(), file.id));
    headers.extend(location.ok().map(|location| (header::LOCATION, location)));
    headers
}

/// No file of this kind has the id or name.
#[must_use]
pub fn absent(kind: Kind, id_or_name: &str) -> Problem {
    let (one, all) = (kind.as_str(), kind.plural());
    Problem::new(Code::NotFound, format!("There is no {one} `{id_or_name}`; GET /v1/{all} lists them."))
}

/// How long a question for the offset waits for a request that is still writing.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of a file is there: all of it, or a part. What a request that was cut has brought is stored before it is counted.
///
/// # Errors
/// `not_found` where nothing of it is there, or when the database fails.
pub(in crate::http) async fn presence(
    request: &Addressed,
    kind: Kind,
    complete: Option<StoredFile>,
) -> Result<Response, Problem> {
    let Addressed { state, caller, name } = request;
    if let Some(file) = complete {
        return Ok(whole(kind, &file));
    }
    let absent = || absent(kind, name);
    let name = name.parse::<FileName>().map_err(|_| absent())?;
    let uploads = state.staging.uploads();
    let begun = uploads.find(kind, &caller.tenant, &name).await?.ok_or_else(absent)?;
    state.staging.settle(begun.id, PATIENCE).await?;
    if let Some(unfinished) = uploads.find(kind, &caller.tenant, &name).await? {
        return Ok((StatusCode::NO_CONTENT, offset_headers(unfinished.acknowledged, false)).into_response());
    }
    let file = state.publisher.taken(kind, &caller.tenant, &name).await?;
    Ok(whole(kind, &file.ok_or_else(absent)?))
}

/// All of a file is there.
fn whole(kind: Kind, file: &StoredFile) -> Response {
    let mut headers = file_headers(kind, file);
    headers.extend(offset_headers(file.bytes, true));
    (StatusCode::OK, headers).into_response()
}

/// The answer to an upload; `view` shows the complete file with this id.
///
/// # Errors
/// Those of `view`.
pub async fn uploaded<V: Serialize, F: Future<Output = Result<V, Problem>>>(
    outcome: UploadOutcome,
    kind: Kind,
    view: impl FnOnce(String) -> F,
) -> Result<Response, Refusal> {
    let (status, file) = match outcome {
        UploadOutcome::Created(file) => (StatusCode::CREATED, file),
        UploadOutcome::Same(file) => (StatusCode::OK, file),
        UploadOutcome::Partial(offset) => {
            return Ok((StatusCode::NO_CONTENT, offset_headers(offset, false)).into_response());
        }
    };
    let headers = file_headers(kind, &file);
    Ok((status, headers, Json(view(file.id).await?)).into_response())
}

/// The answer to a deletion.
///
/// # Errors
/// `not_found`, and `in_use` for a file that an unfinished job reads.
pub fn deleted(deletion: Deletion, kind: Kind, id_or_name: &str) -> Result<StatusCode, Problem> {
    match deletion {
        Deletion::Done => Ok(StatusCode::NO_CONTENT),
        Deletion::Absent => Err(absent(kind, id_or_name)),
        Deletion::InUse => {
            let detail = format!("An unfinished job reads `{id_or_name}`; cancel the job or wait for its end.");
            Err(Problem::new(Code::InUse, detail))
        }
    }
}

/// A file as a download.
#[must_use]
pub fn download(file: StoredFile) -> Download {
    Download {
        content: Content::Blob(file.blob_key),
        bytes: file.bytes,
        sha256: file.sha256,
        media_type: "application/octet-stream".to_owned(),
        file_name: file.name,
    }
}
