//! `POST /v1/uploads`: begins an upload.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::metadata::Metadata;
use super::{OFFSET_STREAM, UPLOAD_LENGTH, UPLOAD_OFFSET, expires, number, resume};
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::shared_responses::Writes;
use crate::http::state::AppState;
use crate::http::uploads::announced::Announced;
use crate::http::uploads::direct::{self, PartsView};
use crate::http::uploads::put::{Put, UploadOutcome};
use crate::http::uploads::refusal::Refusal;
use crate::http::views::problem::ProblemView;
use crate::store::files::Kind;
use crate::store::uploads::Unfinished;

const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");

/// Begin an upload by tus
///
/// For clients of the tus protocol (1.0.0). `Upload-Metadata` says `kind` (`checkpoint` or `dataset`), `name` or `filename`, and maybe labels as
/// `label.NAME`, each value in Base64. An unfinished upload to the same name is given up. With a body of
/// `application/offset+octet-stream` its bytes are the first of the file.
///
/// With `presign=true` the client sends the parts of the file to the bucket itself, each by a `PUT` to its address, where the server keeps files in
/// a bucket and lets clients go there; `POST /v1/uploads/{id}/complete` ends it.
#[utoipa::path(post, path = "/v1/uploads", operation_id = "beginUpload", tag = "Uploads",
    params(
        ("presign" = Option<bool>, Query, description = "Whether the client sends the file to the bucket itself.", example = true),
        ("Tus-Resumable" = String, Header, description = "The version of the protocol.", example = "1.0.0"),
        ("Upload-Length" = u64, Header, description = "Bytes of the whole file.", example = 4_194_304),
        ("Upload-Metadata" = String, Header, description = "What is said of the file.", example = "kind Y2hlY2twb2ludA==,name bTAuc2FmZXRlbnNvcnM=")),
    responses(
        (status = 200, description = "The upload has begun, with `presign=true`: where its parts go.", body = PartsView,
            headers(("Location", description = "Its address."), ("Upload-Expires", description = "When it is removed unless it is completed."))),
        (status = 201, description = "The upload has begun.",
            headers(("Location", description = "Where its bytes go."), ("Upload-Expires", description = "When it is removed unless it continues."),
                ("Upload-Offset", description = "Bytes that are stored; only where the request had some."))),
        (status = 400, description = "A header is missing or cannot be read.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken, or a request is sending bytes to it.", body = ProblemView, content_type = "application/problem+json"),
        (status = 412, description = "Another version of the protocol.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The file is larger than the server allows.", body = ProblemView, content_type = "application/problem+json"),
        Writes))]
pub(super) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let presigned = direct::is_wanted(&state, request.uri())?;
    let upload = begin(&state, &caller, request.headers()).await?;
    let mut headers = HeaderMap::new();
    let location = format!("/v1/uploads/{}", upload.upload.id);
    headers.extend(HeaderValue::from_str(&location).ok().map(|location| (header::LOCATION, location)));
    headers.extend(expires(upload.expires_at));
    if let Some(multipart) = presigned {
        let parts = direct::offer(&state, multipart, &upload).await?;
        return Ok((StatusCode::OK, headers, Json(parts)).into_response());
    }
    if request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == OFFSET_STREAM) {
        let total = upload.upload.total.unwrap_or_default();
        let offset = match resume::take(state, caller, upload, 0, request).await? {
            UploadOutcome::Created(_) | UploadOutcome::Same(_) => total,
            UploadOutcome::Partial(offset) => offset,
        };
        headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    }
    Ok((StatusCode::CREATED, headers).into_response())
}

/// Begins an upload, unless its file could not be stored anyway.
async fn begin(state: &AppState, caller: &Caller, headers: &HeaderMap) -> Result<Unfinished, Problem> {
    if headers.contains_key(UPLOAD_DEFER_LENGTH) {
        let detail = "The length of the file has to be known when its upload begins: send `Upload-Length`.";
        return Err(Problem::new(Code::BadRequest, detail));
    }
    let total = number(headers, &UPLOAD_LENGTH)?;
    let Metadata { kind, name, labels, text } = Metadata::of(headers)?;
    let limit = match kind {
        Kind::Checkpoint => state.settings.limits.max_checkpoint.0,
        Kind::Dataset => state.settings.limits.max_dataset.0,
    };
    if total > limit {
        return Err(Problem::new(Code::TooLarge, format!("The file has {total} bytes; the limit is {limit}.")));
    }
    if total == 0 {
        return Err(Problem::new(Code::BadRequest, "The file is empty."));
    }
    if let Some(existing) = state.publisher.taken(kind, &caller.tenant, &name).await? {
        let detail = format!(
            "`{name}` is taken by {} ({} bytes, SHA-256 {}). Choose another name, or delete that one first.",
            existing.id, existing.bytes, existing.sha256
        );
        return Err(Problem::new(Code::NameTaken, detail));
    }
    let announced = Announced { start: 0, length: Some(total), total: Some(total), sha256: None };
    let (state, caller) = (state.clone(), caller.clone());
    let put =
        Put { state, caller, kind, name: name.clone(), labels, announced, limit, is_indivisible: false, key: None };
    let (staging, tenant) = (&put.state.staging, &put.caller.tenant);
    let earlier = staging.uploads().find(kind, tenant, &name).await?;
    put.room(earlier.as_ref().map(|earlier| earlier.id)).await?;
    let busy = || Problem::new(Code::UploadInProgress, format!("Another request is uploading to `{name}`."));
    if let Some(earlier) = earlier
        && !staging.abandon(earlier.id).await?
    {
        return Err(busy());
    }
    staging.uploads().begin(kind, tenant, &name, total, &text).await?.ok_or_else(busy)
}
