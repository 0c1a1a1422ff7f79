//! `GET /v1/datasets/{name}`.

use axum::Json;
use axum::extract::{Path, State};

use super::find;
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::views::datasets::DatasetView;
use crate::http::views::problem::ProblemView;

/// Show a dataset
///
/// `state` goes from `validating` to `ready` (then `facts` says what is in it) or `invalid` (then `error` says why).
#[utoipa::path(get, path = "/v1/datasets/{name}", operation_id = "getDataset", tag = "Datasets",
    params(("name" = String, Path, description = "Id or name.", example = "mnist.npz")),
    responses(
        (status = 200, description = "The dataset.", body = DatasetView),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<DatasetView>, Problem> {
    Ok(Json(find(&state, &caller, &name).await?.into()))
}
