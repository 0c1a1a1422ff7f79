//! `GET /v1/checkpoints/{name}/content`.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;

use super::find;
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::uploads;
use crate::http::views::problem::ProblemView;

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
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 416, description = "The range is outside.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn content(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = find(&state, &caller, &name).await?.file;
    uploads::download(file).respond(&state, &method, &headers).await
}
