//! `PUT /v1/checkpoints/{name}`.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};

use super::find;
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::uploads::{self, Refusal, UploadOutcome, file_headers, offset_headers};
use crate::http::views::checkpoints::CheckpointView;
use crate::http::views::problem::ProblemView;
use crate::store::files::{Kind, StoredFile};
use axum::http::StatusCode;

/// Upload a checkpoint
///
/// The body is a safetensors file, as `curl -T FILE` sends it. A PUT that was cut keeps what arrived: ask for the offset
/// with HEAD, then go on with `curl -C OFFSET -T FILE`, which sends `Content-Range`. Unfinished uploads expire after a day.
/// `Repr-Digest: sha-256=:BASE64:` is checked. `?label.NAME=VALUE` puts labels on the checkpoint.
#[utoipa::path(put, path = "/v1/checkpoints/{name}", operation_id = "putCheckpoint", tag = "Checkpoints",
    params(
        ("name" = String, Path, description = "Its name: 1-128 characters of `[A-Za-z0-9._-]`.", example = "m0.safetensors"),
        ("Content-Range" = Option<String>, Header, description = "The part that the body is.", example = "bytes 1048576-4194303/4194304"),
        ("Repr-Digest" = Option<String>, Header, description = "Digest of the whole file (RFC 9530).",
            example = "sha-256=:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=:")),
    request_body(content = inline(uploads::Bytes), content_type = "application/octet-stream", description = "The file."),
    responses(
        (status = 200, description = "The name had the same bytes already.", body = CheckpointView),
        (status = 201, description = "Uploaded.", body = CheckpointView,
            headers(("ETag", description = "Its SHA-256."), ("Repr-Digest", description = "The same (RFC 9530)."), ("Location", description = "Its address."))),
        (status = 204, description = "A part of it has arrived.", headers(("Upload-Offset" = u64, description = "Where it goes on."))),
        (status = 400, description = "The headers or the body cannot be read.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 403, description = "The key may not write.", body = ProblemView, content_type = "application/problem+json"),
        (status = 408, description = "The body stopped coming.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken by other bytes, another request uploads to it, or the offset is wrong.",
            body = ProblemView, content_type = "application/problem+json",
            headers(("Upload-Offset" = u64, description = "The right offset, where the offset is wrong."))),
        (status = 413, description = "Over the limit.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "Not a usable checkpoint, or not the announced digest.", body = ProblemView, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn put(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    match uploads::put(state.clone(), caller.clone(), Kind::Checkpoint, &name, request).await? {
        UploadOutcome::Created(file) => shown(&state, &caller, StatusCode::CREATED, &file).await,
        UploadOutcome::Same(file) => shown(&state, &caller, StatusCode::OK, &file).await,
        UploadOutcome::Partial(offset) => Ok((StatusCode::NO_CONTENT, offset_headers(offset, false)).into_response()),
    }
}

async fn shown(state: &AppState, caller: &Caller, status: StatusCode, file: &StoredFile) -> Result<Response, Refusal> {
    let checkpoint = find(state, caller, &file.id).await?;
    Ok((status, file_headers(Kind::Checkpoint, file), Json(CheckpointView::from(checkpoint))).into_response())
}
