//! `GET /v1/checkpoints`.

use axum::Json;
use axum::extract::State;

use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::listing::{ListParameters, Page, RawQuery, parse};
use crate::http::state::AppState;
use crate::http::views::checkpoints::CheckpointSummary;
use crate::http::views::problem::ProblemView;

/// List checkpoints
///
/// Newest first. `?label.NAME=VALUE` keeps those with this label.
#[utoipa::path(get, path = "/v1/checkpoints", operation_id = "listCheckpoints", tag = "Checkpoints", params(ListParameters),
    responses(
        (status = 200, description = "One page.", body = Page<CheckpointSummary>),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<CheckpointSummary>>, Problem> {
    let listing = parse(&query, &[])?;
    let rows = state.checkpoints.list(&caller.tenant, &listing).await?;
    Ok(Json(Page::new(&listing, rows, |row| row.id.to_string(), |row| CheckpointSummary::from(&row))))
}
