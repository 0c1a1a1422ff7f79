//! `/v1/checkpoints`.

mod content;
mod delete;
mod get;
mod head;
mod list;
mod put;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::state::AppState;
use crate::domain::problem::{Code, Problem};
use crate::store::checkpoints::Checkpoint;

/// Every route of checkpoints.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(get::get, head::head, put::put, delete::delete))
        .routes(routes!(content::content))
}

/// The caller's checkpoint with this id or name.
async fn find(state: &AppState, caller: &Caller, id_or_name: &str) -> Result<Checkpoint, Problem> {
    let found = state.checkpoints.find(&caller.tenant, id_or_name).await?;
    found.ok_or_else(|| absent(id_or_name))
}

fn absent(id_or_name: &str) -> Problem {
    Problem::new(Code::NotFound, format!("There is no checkpoint `{id_or_name}`; GET /v1/checkpoints lists them."))
}
