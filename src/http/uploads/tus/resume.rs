//! `HEAD` and `PATCH /v1/uploads/{id}`: how much of a file is there, and its next bytes.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::checksum::Checksum;
use super::metadata::Metadata;
use super::{OFFSET_STREAM, UPLOAD_LENGTH, UPLOAD_METADATA, UPLOAD_OFFSET, expires, number};
use crate::domain::id::UploadId;
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::shared_responses::{Finds, Writes};
use crate::http::state::AppState;
use crate::http::uploads::announced::Announced;
use crate::http::uploads::answers::file_headers;
use crate::http::uploads::incoming::Incoming;
use crate::http::uploads::put::{Put, UploadOutcome, apart};
use crate::http::uploads::refusal::Refusal;
use crate::http::views::problem::ProblemView;
use crate::store::files::{Kind, StoredFile};
use crate::store::uploads::Unfinished;

/// How long a question for the offset waits for a request that is still writing.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an id stands for.
enum Found {
    Unfinished(Unfinished, Metadata),
    Finished(Kind, StoredFile),
}

/// The caller's upload by tus; what a request that was cut has brought is counted first.
async fn find(state: &AppState, caller: &Caller, id: &str) -> Result<Found, Problem> {
    let absent =
        || Problem::new(Code::NotFound, format!("There is no upload `{id}` any more; begin it with POST /v1/uploads."));
    let id: UploadId = id.parse().map_err(|_| absent())?;
    let uploads = state.staging.uploads();
    if uploads.owned(&caller.tenant, id).await?.is_some() {
        state.staging.settle(id, PATIENCE).await?;
        if let Some(unfinished) = uploads.owned(&caller.tenant, id).await? {
            let metadata = Metadata::parse(unfinished.metadata.as_deref().ok_or_else(absent)?)?;
            return Ok(Found::Unfinished(unfinished, metadata));
        }
    }
    let (kind, file) = state.publisher.finished(&caller.tenant, id).await?.ok_or_else(absent)?;
    Ok(Found::Finished(kind, file))
}

/// Show how much of an upload by tus is there
///
/// After its end it shows the whole length, as long as the file is there.
#[utoipa::path(head, path = "/v1/uploads/{id}", operation_id = "showUpload", tag = "Uploads",
    params(
        ("id" = String, Path, description = "The id of the upload.", example = "up_019324a5a0007f3e8d1c2b3a4f5e6d7c"),
        ("Tus-Resumable" = String, Header, description = "The version of the protocol.", example = "1.0.0")),
    responses(
        (status = 200, description = "The headers say it.",
            headers(("Upload-Offset", description = "Bytes that are stored."), ("Upload-Length", description = "Bytes of the whole file."),
                ("Upload-Metadata", description = "What the client has said of the file."), ("Upload-Expires", description = "When it is removed unless it continues."))),
        (status = 401, description = "The request has no valid key."),
        (status = 404, description = "There is no such upload."),
        (status = 412, description = "Another version of the protocol.")))]
pub(super) async fn head(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let mut headers = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]);
    match find(&state, &caller, &id).await? {
        Found::Unfinished(Unfinished { upload, expires_at, .. }, metadata) => {
            headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.acknowledged));
            headers.extend(upload.total.map(|total| (UPLOAD_LENGTH, HeaderValue::from(total))));
            headers.extend(HeaderValue::from_str(&metadata.text).ok().map(|text| (UPLOAD_METADATA, text)));
            headers.extend(expires(expires_at));
        }
        Found::Finished(kind, file) => {
            headers.insert(UPLOAD_OFFSET, HeaderValue::from(file.bytes));
            headers.insert(UPLOAD_LENGTH, HeaderValue::from(file.bytes));
            headers.extend(location(kind, &file));
        }
    }
    Ok((StatusCode::OK, headers).into_response())
}

/// Send the next bytes of an upload by tus
///
/// With `Upload-Checksum: sha256 BASE64` (or `sha1`) they count only if they have this digest. With the last byte the file becomes a
/// checkpoint or a dataset, and `Content-Location` is its address.
#[utoipa::path(patch, path = "/v1/uploads/{id}", operation_id = "continueUpload", tag = "Uploads",
    params(
        ("id" = String, Path, description = "The id of the upload.", example = "up_019324a5a0007f3e8d1c2b3a4f5e6d7c"),
        ("Tus-Resumable" = String, Header, description = "The version of the protocol.", example = "1.0.0"),
        ("Upload-Offset" = u64, Header, description = "Where in the file the bytes begin: behind those that are there.", example = 1_048_576),
        ("Upload-Checksum" = Option<String>, Header, description = "The digest of the bytes in this request.", example = "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=")),
    request_body(content = super::super::FileBytes, content_type = "application/offset+octet-stream", description = "The bytes."),
    responses(
        (status = 204, description = "The bytes are stored.",
            headers(("Upload-Offset", description = "Bytes that are stored."), ("Upload-Expires", description = "When it is removed unless it continues."),
                ("Content-Location", description = "The address of the file, once it is complete."))),
        (status = 400, description = "A header is missing or cannot be read.", body = ProblemView, content_type = "application/problem+json"),
        (status = 408, description = "The client stopped sending the body.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "The upload continues elsewhere, or another request is sending its bytes.", body = ProblemView, content_type = "application/problem+json"),
        (status = 412, description = "Another version of the protocol.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The file is larger than the server allows.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The `Content-Type` is another one.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "The file is no usable checkpoint or dataset.", body = ProblemView, content_type = "application/problem+json"),
        (status = 460, description = "The bytes have another digest; none of them is stored.", body = ProblemView, content_type = "application/problem+json"),
        Finds, Writes))]
pub(super) async fn append(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    if request.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != OFFSET_STREAM) {
        return Err(
            Problem::new(Code::UnsupportedMediaType, format!("Expected `Content-Type: {OFFSET_STREAM}`.")).into()
        );
    }
    let offset = number(request.headers(), &UPLOAD_OFFSET)?;
    let upload = match find(&state, &caller, &id).await? {
        Found::Unfinished(upload, _) => upload,
        Found::Finished(_, file) => {
            return Err(Refusal::offset(file.bytes, true, format!("The upload of `{}` is complete.", file.name)));
        }
    };
    let (id, total) = (upload.upload.id, upload.upload.total.unwrap_or_default());
    let outcome = take(state.clone(), caller.clone(), upload, offset, request).await?;
    let mut headers = HeaderMap::new();
    match outcome {
        UploadOutcome::Created(file) | UploadOutcome::Same(file) => {
            headers.insert(UPLOAD_OFFSET, HeaderValue::from(total));
            if let Some((kind, _)) = state.publisher.finished(&caller.tenant, id).await? {
                headers.extend(file_headers(kind, &file));
                headers.remove(header::LOCATION);
                headers.extend(location(kind, &file));
            }
        }
        UploadOutcome::Partial(offset) => {
            headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
            let unfinished = state.staging.uploads().owned(&caller.tenant, id).await?;
            headers.extend(unfinished.and_then(|upload| expires(upload.expires_at)));
        }
    }
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

/// The address of a complete file.
fn location(kind: Kind, file: &StoredFile) -> Option<(axum::http::HeaderName, HeaderValue)> {
    let address = HeaderValue::from_str(&format!("/v1/{}/{}", kind.plural(), file.id)).ok()?;
    Some((header::CONTENT_LOCATION, address))
}

/// Takes the bytes of a request, which begin at `offset`.
///
/// # Errors
/// Every way in which an upload can be refused.
pub(super) async fn take(
    state: AppState,
    caller: Caller,
    upload: Unfinished,
    offset: u64,
    request: Request,
) -> Result<UploadOutcome, Refusal> {
    let Unfinished { upload, kind, metadata, name, .. } = upload;
    if offset != upload.acknowledged {
        let there = upload.acknowledged;
        let detail = format!("The upload of `{name}` continues at byte {there}, not at {offset}.");
        return Err(Refusal::offset(there, false, detail));
    }
    let (parts, body) = request.into_parts();
    let Metadata { name, labels, .. } = Metadata::parse(metadata.as_deref().unwrap_or_default())?;
    let checksum = Checksum::of(&parts.headers)?;
    let length = Announced::read(&parts.headers)?.length;
    let total = upload.total;
    if let (Some(length), Some(total)) = (length, total)
        && offset.saturating_add(length) > total
    {
        let detail = format!("{length} bytes from {offset} on are more than the {total} of the file.");
        return Err(Problem::new(Code::TooLarge, detail).into());
    }
    let is_indivisible = checksum.is_some();
    let (body, differs) = match checksum {
        Some(checksum) => {
            let (body, differs) = checksum.check(body);
            (body, Some(differs))
        }
        None => (body, None),
    };
    let server = &state.settings.server;
    let incoming = Incoming::new(body, &parts.headers, server.body_idle_timeout.0, server.min_upload_rate.0);
    // Whatever is said of the largest file was checked when the upload began; more bytes than were announced are refused.
    let limit = total.unwrap_or_default();
    let announced = Announced { start: offset, length, total, sha256: None };
    let put = Put { state: state.clone(), caller, kind, name, labels, announced, limit, is_indivisible, key: None };
    let taken = apart(&state, incoming, move || Ok(put)).await;
    if differs.is_some_and(|differs| differs.was_seen()) {
        let detail = format!(
            "The bytes do not have the digest of `Upload-Checksum`. None of them is stored: send them again from {offset} on."
        );
        return Err(Problem::new(Code::ChecksumMismatch, detail).into());
    }
    taken
}
