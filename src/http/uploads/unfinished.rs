//! `/v1/uploads`: uploads that have not ended yet.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::id::UploadId;
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::shared_responses::{NeedsKey, Writes};
use crate::http::state::AppState;
use crate::http::views::problem::ProblemView;
use crate::http::views::time;
use crate::store::uploads::Unfinished;

/// An unfinished upload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UploadView {
    /// Its id.
    #[schema(example = "up_019324a5a0007f3e8d1c2b3a4f5e6d7c")]
    id: String,
    /// What it becomes: `checkpoint` or `dataset`.
    #[schema(value_type = String, example = "checkpoint")]
    kind: &'static str,
    /// The name that it is uploaded to.
    #[schema(example = "m0.safetensors")]
    name: String,
    /// Bytes that are stored; the upload continues there.
    #[schema(example = 1_048_576)]
    offset: u64,
    /// Length of the whole file, where the client has announced it.
    #[schema(example = 4_194_304)]
    bytes: Option<u64>,
    /// When it began.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    created_at: String,
    /// When it is removed unless it continues.
    #[schema(example = "2026-02-01T12:00:00.000Z", format = DateTime)]
    expires_at: String,
}

impl From<Unfinished> for UploadView {
    fn from(upload: Unfinished) -> Self {
        Self {
            id: upload.upload.id.to_string(),
            kind: upload.kind.as_str(),
            name: upload.name,
            offset: upload.upload.acknowledged,
            bytes: upload.upload.total,
            created_at: time(upload.created_at),
            expires_at: time(upload.expires_at),
        }
    }
}

/// Unfinished uploads.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UploadsView {
    /// The uploads, oldest first.
    data: Vec<UploadView>,
}

/// List unfinished uploads
///
/// An upload ends when its last byte has arrived, when it is deleted here, or a day after its last byte.
#[utoipa::path(get, path = "/v1/uploads", operation_id = "listUploads", tag = "Uploads",
    responses(
        (status = 200, description = "The caller's unfinished uploads.", body = UploadsView),
        NeedsKey))]
pub(super) async fn list(State(state): State<AppState>, caller: Caller) -> Result<Json<UploadsView>, Problem> {
    let unfinished = state.staging.uploads().list(&caller.tenant).await?;
    Ok(Json(UploadsView { data: unfinished.into_iter().map(UploadView::from).collect() }))
}

/// Delete an unfinished upload
#[utoipa::path(delete, path = "/v1/uploads/{id}", operation_id = "deleteUpload", tag = "Uploads",
    params(("id" = String, Path, description = "The id of the upload.", example = "up_019324a5a0007f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 204, description = "The upload and what had arrived of it are gone."),
        (status = 404, description = "There is no such unfinished upload.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "A request is sending its bytes.", body = ProblemView, content_type = "application/problem+json"),
        Writes))]
pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let absent =
        || Problem::new(Code::NotFound, format!("There is no unfinished upload `{id}`; GET /v1/uploads lists them."));
    let id: UploadId = id.parse().map_err(|_| absent())?;
    let known = state.staging.uploads().list(&caller.tenant).await?;
    known.iter().find(|unfinished| unfinished.upload.id == id).ok_or_else(absent)?;
    if state.staging.abandon(id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(Code::UploadInProgress, "A request is sending its bytes; try again when that has ended."))
    }
}
