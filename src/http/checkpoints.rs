//! `/v1/checkpoints`: list, show, upload, download, delete.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::listing::{ListParameters, Page, RawQuery, parse};
use super::shared_responses::{Finds, ReadsFile, ReadsQuery, SendsRange, Writes};
use super::state::AppState;
use super::uploads::{self, Refusal, UploadOutcome, file_headers, offset_headers, presence};
use super::views::checkpoints::{CheckpointSummary, CheckpointView};
use super::views::problem::ProblemView;
use crate::domain::problem::{Code, Problem};
use crate::store::checkpoints::Checkpoint;
use crate::store::files::{Deletion, Kind, StoredFile};

/// Every route of checkpoints.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, head, put, delete)).routes(routes!(content))
}

/// List checkpoints
///
/// Newest first. `?label.NAME=VALUE` keeps those with this label.
#[utoipa::path(get, path = "/v1/checkpoints", operation_id = "listCheckpoints", tag = "Checkpoints", params(ListParameters),
    responses(
        (status = 200, description = "One page.", body = Page<CheckpointSummary>),
        ReadsQuery))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<CheckpointSummary>>, Problem> {
    let listing = parse(&query, &[])?;
    let rows = state.checkpoints.list(&caller.tenant, &listing).await?;
    Ok(Json(Page::new(&listing, rows, |row| row.id.to_string(), |row| CheckpointSummary::from(&row))))
}

/// Show a checkpoint
///
/// With its tensors, and what they tell of the network.
#[utoipa::path(get, path = "/v1/checkpoints/{name}", operation_id = "getCheckpoint", tag = "Checkpoints",
    params(("name" = String, Path, description = "Id or name.", example = "m0.safetensors")),
    responses(
        (status = 200, description = "The checkpoint.", body = CheckpointView),
        Finds))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<CheckpointView>, Problem> {
    Ok(Json(find(&state, &caller, &name).await?.into()))
}

/// Ask how far an upload has come
///
/// 200 with `ETag` for a complete checkpoint; 204 with `Upload-Offset` for an unfinished one: `curl -C OFFSET -T FILE` goes on
/// from there.
#[utoipa::path(head, path = "/v1/checkpoints/{name}", operation_id = "headCheckpoint", tag = "Checkpoints",
    params(("name" = String, Path, description = "Id or name.", example = "m0.safetensors")),
    responses(
        (status = 200, description = "It is complete.",
            headers(("ETag", description = "Its SHA-256."), ("Upload-Complete", description = "`?1`."))),
        (status = 204, description = "It is unfinished.",
            headers(("Upload-Offset" = u64, description = "Bytes that are safe."), ("Upload-Complete", description = "`?0`."))),
        (status = 401, description = "No valid key."),
        (status = 404, description = "There is none.")))]
async fn head(State(state): State<AppState>, caller: Caller, Path(name): Path<String>) -> Result<Response, Problem> {
    let complete = state.checkpoints.find(&caller.tenant, &name).await?.map(|checkpoint| checkpoint.file);
    let presence = presence(&state, &caller, Kind::Checkpoint, &name, complete).await?;
    Ok(presence.ok_or_else(|| absent(&name))?.into_response())
}

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
        (status = 409, description = "The name is taken by other bytes, another request uploads to it, or the offset is wrong.",
            body = ProblemView, content_type = "application/problem+json",
            headers(("Upload-Offset" = u64, description = "The right offset, where the offset is wrong."))),
        (status = 422, description = "Not a usable checkpoint, or not the announced digest.", body = ProblemView, content_type = "application/problem+json"),
        Writes, ReadsFile))]
async fn put(
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

/// Download a checkpoint
///
/// Byte for byte as it was uploaded. `Range`, `If-Range` and `If-None-Match` work as RFC 9110 says: `curl -C - -O` resumes.
#[utoipa::path(get, path = "/v1/checkpoints/{name}/content", operation_id = "getCheckpointContent", tag = "Checkpoints",
    params(
        ("name" = String, Path, description = "Id or name.", example = "m0.safetensors"),
        ("Range" = Option<String>, Header, description = "The part to send.", example = "bytes=1048576-")),
    responses(
        (status = 200, description = "All bytes.", body = inline(uploads::Bytes), content_type = "application/octet-stream",
            headers(("ETag", description = "Its SHA-256."), ("Repr-Digest", description = "The same (RFC 9530)."))),
        (status = 206, description = "The part.", body = inline(uploads::Bytes), content_type = "application/octet-stream"),
        (status = 304, description = "The client has it."),
        Finds, SendsRange))]
async fn content(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = find(&state, &caller, &name).await?.file;
    uploads::download(file).respond(&state, &method, &headers).await
}

/// Delete a checkpoint
#[utoipa::path(delete, path = "/v1/checkpoints/{name}", operation_id = "deleteCheckpoint", tag = "Checkpoints",
    params(("name" = String, Path, description = "Id or name.", example = "m0.safetensors")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 409, description = "An unfinished job reads it.", body = ProblemView, content_type = "application/problem+json"),
        Writes, Finds))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let (state, tenant, file) = (&state, &caller.tenant, &name);
    match state.reserve.free(|| async move { Ok(state.checkpoints.delete(tenant, file).await?) }).await? {
        Deletion::Done => Ok(StatusCode::NO_CONTENT),
        Deletion::Absent => Err(absent(&name)),
        Deletion::InUse => {
            let detail = format!("An unfinished job reads `{name}`; cancel the job or wait for its end.");
            Err(Problem::new(Code::InUse, detail))
        }
    }
}

/// The caller's checkpoint with this id or name.
async fn find(state: &AppState, caller: &Caller, id_or_name: &str) -> Result<Checkpoint, Problem> {
    let found = state.checkpoints.find(&caller.tenant, id_or_name).await?;
    found.ok_or_else(|| absent(id_or_name))
}

fn absent(id_or_name: &str) -> Problem {
    Problem::new(Code::NotFound, format!("There is no checkpoint `{id_or_name}`; GET /v1/checkpoints lists them."))
}
