//! `/v1/imports`: checkpoints and datasets that the server fetches from elsewhere.

mod body;
mod fetch;
mod manage;
mod run;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::addressed::Addressed;
use super::auth::Caller;
use super::idempotent::Made;
use super::state::AppState;
use super::views::imports::ImportView;
use crate::domain::id::ImportId;
use crate::domain::problem::{Code, Problem};
use crate::store::imports::Import;

pub use run::run;

/// Every route of imports.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(manage::list, manage::create)).routes(routes!(manage::get, manage::delete))
}

impl Made for ImportId {
    const PATH: &'static str = "/v1/imports";

    async fn render(self, state: &AppState, caller: &Caller) -> Result<Vec<u8>, Problem> {
        let found = state.imports.find(&caller.tenant, self).await?;
        let import = found.ok_or_else(|| absent(&format!("There is no import `{self}`")))?;
        serde_json::to_vec(&ImportView::from(import))
            .map_err(|error| Problem::new(Code::Internal, format!("The import cannot be shown: {error}")))
    }
}

/// The id in a path; text that is no import's id names no import.
fn parse_id(text: &str) -> Result<ImportId, Problem> {
    text.parse().map_err(|error| absent(&format!("{error}")))
}

/// The caller's import.
async fn find(request: &Addressed) -> Result<Import, Problem> {
    let id = parse_id(&request.name)?;
    let found = request.state.imports.find(&request.caller.tenant, id).await?;
    found.ok_or_else(|| absent(&format!("There is no import `{id}`")))
}

fn absent(detail: &str) -> Problem {
    Problem::new(Code::NotFound, format!("{detail}; GET /v1/imports lists them."))
}
