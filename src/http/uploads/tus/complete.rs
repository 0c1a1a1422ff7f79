//! `POST /v1/uploads/{id}/complete`: the parts that a client has sent to the bucket become a file.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::metadata::Metadata;
use crate::domain::id::UploadId;
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::json::JsonBody;
use crate::http::shared_responses::{Finds, ReadsJson, Writes};
use crate::http::state::AppState;
use crate::http::uploads::announced::Announced;
use crate::http::uploads::answers::file_headers;
use crate::http::uploads::incoming::Incoming;
use crate::http::uploads::put::{Put, UploadOutcome, apart};
use crate::http::uploads::refusal::Refusal;
use crate::http::views::problem::ProblemView;

/// The last part of its path.
pub(super) const LAST: &str = "/complete";

/// The parts of a file that are in the bucket.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PartsRequest {
    /// The entity tag of each part, in order, as the answer to its `PUT` has it.
    #[schema(example = json!(["\"5d41402abc4b2a76b9719d911017c592\""]))]
    etags: Vec<String>,
}

/// Complete an upload whose parts are in the bucket
///
/// For uploads that were begun with `presign=true`. The server reads the file, checks it as it checks every upload, and gives it its name; until then it
/// has none.
#[utoipa::path(post, path = "/v1/uploads/{id}/complete", operation_id = "completeUpload", tag = "Uploads",
    params(("id" = String, Path, description = "The id of the upload.", example = "up_019324a5a0007f3e8d1c2b3a4f5e6d7c")),
    request_body(content = PartsRequest, description = "The parts."),
    responses(
        (status = 200, description = "The same file was already stored under this name."),
        (status = 201, description = "The parts are a file.",
            headers(("ETag", description = "The SHA-256 of the file."), ("Repr-Digest", description = "The same digest, as RFC 9530 writes it."), ("Location", description = "The address of the file."))),
        (status = 409, description = "The parts are other ones, or another request completes the upload.", body = ProblemView, content_type = "application/problem+json"),
        Finds, Writes, ReadsJson))]
pub(super) async fn complete(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Response, Refusal> {
    let absent =
        || Problem::new(Code::NotFound, format!("There is no upload `{id}` any more; begin it with POST /v1/uploads."));
    let id: UploadId = id.parse().map_err(|_| absent())?;
    let upload = state.staging.uploads().owned(&caller.tenant, id).await?.ok_or_else(absent)?;
    let multipart = state.staging.multipart().ok_or_else(absent)?;
    let metadata = Metadata::parse(upload.metadata.as_deref().ok_or_else(absent)?)?;
    let parts: PartsRequest = serde_json::from_value(body.value)
        .map_err(|error| Problem::new(Code::BadRequest, format!("Expected the `etags` of all parts: {error}.")))?;
    let total = upload.upload.total.unwrap_or_default();
    if upload.upload.acknowledged < total && !multipart.complete_presigned(id, parts.etags, total).await? {
        let detail = format!(
            "The bucket does not have these parts, or they are not the {total} bytes of this upload: send what is missing to its addresses \
             and complete it with the entity tags of all parts in order, or begin it again with POST /v1/uploads."
        );
        return Err(Problem::new(Code::UploadOffsetMismatch, detail).into());
    }
    // From here on it is an upload whose last byte has come.
    let incoming = Incoming::new(Body::empty(), &HeaderMap::new(), state.settings.server.body_idle_timeout.0, 0);
    let kind = metadata.kind;
    let put = Put {
        state: state.clone(),
        caller,
        kind,
        name: metadata.name,
        labels: metadata.labels,
        announced: Announced { start: total, length: Some(0), total: Some(total), sha256: None },
        limit: total,
        is_indivisible: false,
        key: None,
    };
    match apart(&state, incoming, move || Ok(put)).await? {
        UploadOutcome::Created(file) => Ok((StatusCode::CREATED, file_headers(kind, &file)).into_response()),
        UploadOutcome::Same(file) => Ok((StatusCode::OK, file_headers(kind, &file)).into_response()),
        UploadOutcome::Partial(_) => Err(Problem::new(Code::Internal, "The upload is not complete.").into()),
    }
}
