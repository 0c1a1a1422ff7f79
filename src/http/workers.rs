//! `GET /v1/workers`.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::state::AppState;
use super::views::problem::ProblemView;
use super::views::workers::{WorkerView, WorkersView};
use crate::domain::problem::Problem;

/// Every route of workers.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// List the workers
///
/// Those that are alive, with the devices that a job can ask for.
#[utoipa::path(get, path = "/v1/workers", operation_id = "listWorkers", tag = "Service",
    responses(
        (status = 200, description = "The workers.", body = WorkersView),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json")))]
async fn list(State(state): State<AppState>, _caller: Caller) -> Result<Json<WorkersView>, Problem> {
    let data = state.workers.live().await?.into_iter().map(WorkerView::from).collect();
    Ok(Json(WorkersView { data }))
}
