//! `GET /v1/datasets`.

use axum::Json;
use axum::extract::State;

use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::listing::{ListParameters, Page, RawQuery, parse};
use crate::http::state::AppState;
use crate::http::views::datasets::DatasetView;
use crate::http::views::problem::ProblemView;
use crate::store::datasets::DatasetState;

/// List datasets
///
/// Newest first. `?label.NAME=VALUE` keeps those with this label.
#[utoipa::path(get, path = "/v1/datasets", operation_id = "listDatasets", tag = "Datasets", params(ListParameters),
    responses(
        (status = 200, description = "One page.", body = Page<DatasetView>),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<DatasetView>>, Problem> {
    let listing = parse(&query, DatasetState::NAMES)?;
    let rows = state.datasets.list(&caller.tenant, &listing).await?;
    Ok(Json(Page::new(&listing, rows, |row| row.id.to_string(), DatasetView::in_a_list)))
}
