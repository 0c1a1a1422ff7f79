//! `HEAD /v1/datasets/{name}`.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};

use super::absent;
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::uploads::presence;
use crate::store::files::Kind;

/// Ask how far an upload has come
///
/// 200 with `ETag` for a complete dataset; 204 with `Upload-Offset` for an unfinished one: `curl -C OFFSET -T FILE` goes on
/// from there.
#[utoipa::path(head, path = "/v1/datasets/{name}", operation_id = "headDataset", tag = "Datasets",
    params(("name" = String, Path, description = "Id or name.", example = "mnist.npz")),
    responses(
        (status = 200, description = "It is complete.",
            headers(("ETag", description = "Its SHA-256."), ("Upload-Complete", description = "`?1`."))),
        (status = 204, description = "It is unfinished.",
            headers(("Upload-Offset" = u64, description = "Bytes that are safe."), ("Upload-Complete", description = "`?0`."))),
        (status = 401, description = "No valid key."),
        (status = 404, description = "There is none.")))]
pub(super) async fn head(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let complete = state.datasets.find(&caller.tenant, &name).await?.map(|dataset| dataset.file);
    let presence = presence(&state, &caller, Kind::Dataset, &name, complete).await?;
    Ok(presence.ok_or_else(|| absent(&name))?.into_response())
}
