//! `/v1/checkpoints`: list, show, upload, put together, download, delete.

mod assemble;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::problem::{Code, Problem};
use crate::http::addressed::Addressed;
use crate::http::auth::Caller;
use crate::http::download::Selector;
use crate::http::listing::{ListParameters, Page, RawQuery, UploadParameters, parse};
use crate::http::shared_responses::{Finds, ReadsFile, ReadsQuery, SendsFile, ShowsUpload, Writes};
use crate::http::state::AppState;
use crate::http::uploads::{self, Refusal};
use crate::http::views::checkpoints::{CheckpointSummary, CheckpointView};
use crate::http::views::network::NetworkView;
use crate::http::views::problem::ProblemView;
use crate::model::families::inspect;
use crate::store::checkpoints::StoredCheckpoint;
use crate::store::files::Kind;

/// Every route of checkpoints.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, assemble::assemble))
        .routes(routes!(get, head, put, delete))
        .routes(routes!(content))
        .routes(routes!(graph))
}

/// List checkpoints
///
/// The newest come first. `?label=NAME=VALUE` selects those with this label; several must all match.
#[utoipa::path(get, path = "/v1/checkpoints", operation_id = "listCheckpoints", tag = "Checkpoints", params(ListParameters),
    responses(
        (status = 200, description = "One page of checkpoints.", body = Page<CheckpointSummary>),
        ReadsQuery))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<CheckpointSummary>>, Problem> {
    let listing = parse(&query, &[])?;
    let rows = state.checkpoints.list(&caller.tenant, &listing).await?;
    Ok(Json(Page::of(listing.limit, rows, |row| row.id.to_string(), |row| CheckpointSummary::from(&row))))
}

/// Show a checkpoint
///
/// The answer lists its tensors and says what their names and shapes show of the network.
#[utoipa::path(get, path = "/v1/checkpoints/{name}", operation_id = "getCheckpoint", tag = "Checkpoints",
    params(("name" = String, Path, description = "The id or the name of the checkpoint.", example = "m0.safetensors")),
    responses(
        (status = 200, description = "The checkpoint.", body = CheckpointView),
        Finds))]
async fn get(request: Addressed) -> Result<Json<CheckpointView>, Problem> {
    Ok(Json(find(&request).await?.into()))
}

/// Check how far an upload has come
///
/// The answer is 200 with `ETag` for a complete checkpoint, and 204 with `Upload-Offset` for an unfinished one:
/// `curl -C OFFSET -T FILE` continues from there.
#[utoipa::path(head, path = "/v1/checkpoints/{name}", operation_id = "headCheckpoint", tag = "Checkpoints",
    params(("name" = String, Path, description = "The id or the name of the checkpoint.", example = "m0.safetensors")),
    responses(ShowsUpload))]
async fn head(request: Addressed) -> Result<Response, Problem> {
    let found = request.state.checkpoints.find(&request.caller.tenant, &request.name).await?;
    uploads::presence(&request, Kind::Checkpoint, found.map(|checkpoint| checkpoint.file)).await
}

/// Upload a checkpoint
///
/// The body is a file as `curl -T FILE` sends it: safetensors, of `torch.save` (a `state_dict`, a training checkpoint with one, or
/// a whole model; no code in it runs), an ONNX model, an npz of arrays, or the folder of a model in several files (shards with their index, an ONNX
/// model with its data) as one tar or zip. Shards and their index may also come one by one: POST /v1/checkpoints puts them together. What is no
/// checkpoint is refused by its first bytes, with what to do. If the connection breaks, the server keeps what has arrived: get
/// the offset with HEAD, then continue with `curl -C OFFSET -T FILE`, which sends `Content-Range`. Unfinished uploads
/// expire after a day. The server checks `Repr-Digest: sha-256=:BASE64:`. `?label=NAME=VALUE` puts labels on the checkpoint.
#[utoipa::path(put, path = "/v1/checkpoints/{name}", operation_id = "putCheckpoint", tag = "Checkpoints",
    params(
        UploadParameters,
        ("name" = String, Path, description = "The name of the checkpoint: 1 to 128 characters of `[A-Za-z0-9._-]`.", example = "m0.safetensors"),
        ("Content-Range" = Option<String>, Header, description = "Which part of the file the body holds.", example = "bytes 1048576-4194303/4194304"),
        ("Repr-Digest" = Option<String>, Header, description = "The digest of the whole file (RFC 9530).",
            example = "sha-256=:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=:")),
    request_body(content = inline(uploads::FileBytes), content_type = "application/octet-stream", description = "The bytes of the file."),
    responses(
        (status = 200, description = "The same file was already stored under this name.", body = CheckpointView),
        (status = 201, description = "The checkpoint was uploaded.", body = CheckpointView,
            headers(("ETag", description = "The SHA-256 of the file."), ("Repr-Digest", description = "The same digest, as RFC 9530 writes it."), ("Location", description = "The address of the checkpoint."))),
        (status = 204, description = "A part of the file was stored.", headers(("Upload-Offset" = u64, description = "The offset at which the upload continues."))),
        (status = 409, description = "The name belongs to another file, another request is uploading to it, or the offset is wrong.",
            body = ProblemView, content_type = "application/problem+json",
            headers(("Upload-Offset" = u64, description = "The right offset, if the given one was wrong."))),
        (status = 422, description = "The file is not a usable checkpoint, or its digest is not the announced one.", body = ProblemView, content_type = "application/problem+json"),
        Writes, ReadsFile))]
async fn put(request: Addressed, sent: Request) -> Result<Response, Refusal> {
    let outcome = uploads::put(&request, Kind::Checkpoint, sent).await?;
    let view = |id| async move { find(&Addressed { name: id, ..request }).await.map(CheckpointView::from) };
    uploads::uploaded(outcome, Kind::Checkpoint, view).await
}

/// Show the network of a checkpoint
///
/// The most usual network that fits the checkpoint, as a graph: change a node of it and send it in a job as
/// `{"architecture": {"graph": …}}`. Whether other networks fit as well is in `GET /v1/checkpoints/{name}`.
#[utoipa::path(get, path = "/v1/checkpoints/{name}/graph", operation_id = "getCheckpointGraph", tag = "Checkpoints",
    params(("name" = String, Path, description = "The id or the name of the checkpoint.", example = "m0.safetensors")),
    responses(
        (status = 200, description = "The graph, in the form that docs/graph.schema.json describes.", body = NetworkView),
        (status = 422, description = "No network that is known fits the checkpoint.", body = ProblemView, content_type = "application/problem+json"),
        Finds))]
async fn graph(request: Addressed) -> Result<Json<Value>, Problem> {
    let found = inspect(&find(&request).await?.header);
    match (found.network, found.unrecognised) {
        (Some(network), _) => Ok(Json(json!(network.graph))),
        (None, why) => Err(Problem::new(Code::ArchitectureUnknown, why.unwrap_or_default())),
    }
}

/// Download a checkpoint
///
/// The file is sent byte for byte as it was uploaded. `Range`, `If-Range` and `If-None-Match` work as in RFC 9110, so that
/// `curl -C - -O` resumes a download.
#[utoipa::path(get, path = "/v1/checkpoints/{name}/content", operation_id = "getCheckpointContent", tag = "Checkpoints",
    params(
        ("name" = String, Path, description = "The id or the name of the checkpoint.", example = "m0.safetensors"),
        ("Range" = Option<String>, Header, description = "Which bytes to send.", example = "bytes=1048576-")),
    responses(SendsFile, Finds))]
async fn content(request: Addressed, selector: Selector) -> Result<Response, Problem> {
    uploads::download(find(&request).await?.file).respond(&request.state, &selector).await
}

/// Delete a checkpoint
#[utoipa::path(delete, path = "/v1/checkpoints/{name}", operation_id = "deleteCheckpoint", tag = "Checkpoints",
    params(("name" = String, Path, description = "The id or the name of the checkpoint.", example = "m0.safetensors")),
    responses(
        (status = 204, description = "The checkpoint was deleted."),
        (status = 409, description = "An unfinished job reads the checkpoint.", body = ProblemView, content_type = "application/problem+json"),
        Writes, Finds))]
async fn delete(request: Addressed) -> Result<StatusCode, Problem> {
    let Addressed { state, caller, name } = &request;
    let deletion =
        state.reserve.free(|| async move { Ok(state.checkpoints.delete(&caller.tenant, name).await?) }).await?;
    uploads::deleted(deletion, Kind::Checkpoint, name)
}

/// The caller's checkpoint with this id or name.
async fn find(request: &Addressed) -> Result<StoredCheckpoint, Problem> {
    let found = request.state.checkpoints.find(&request.caller.tenant, &request.name).await?;
    found.ok_or_else(|| uploads::absent(Kind::Checkpoint, &request.name))
}
