//! `/v1/comparisons`: groups of jobs, and one report over them.

mod create;
mod manage;
mod report;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::addressed::Addressed;
use super::auth::Caller;
use super::idempotent::Made;
use super::state::AppState;
use super::views::comparisons::ComparisonView;
use crate::domain::id::ComparisonId;
use crate::domain::problem::{Code, Problem};
use crate::store::comparisons::{StoredComparison, StoredRun};

/// Every route of comparisons.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(manage::list, create::create))
        .routes(routes!(manage::get, manage::delete))
        .routes(routes!(manage::cancel))
        .routes(routes!(report::report))
        .routes(routes!(report::report_html))
}

impl Made for ComparisonId {
    const PATH: &'static str = "/v1/comparisons";

    async fn render(self, state: &AppState, caller: &Caller) -> Result<Vec<u8>, Problem> {
        let (summary, runs) = read(state, caller, self).await?;
        serde_json::to_vec(&ComparisonView::new(summary, runs))
            .map_err(|error| Problem::new(Code::Internal, format!("The comparison cannot be shown: {error}")))
    }
}

/// The id in a path; text that is no comparison's id names no comparison.
fn parse_id(text: &str) -> Result<ComparisonId, Problem> {
    text.parse().map_err(|error| absent(&format!("{error}")))
}

/// The caller's comparison with its runs.
async fn find(request: &Addressed) -> Result<(StoredComparison, Vec<StoredRun>), Problem> {
    read(&request.state, &request.caller, parse_id(&request.name)?).await
}

async fn read(
    state: &AppState,
    caller: &Caller,
    id: ComparisonId,
) -> Result<(StoredComparison, Vec<StoredRun>), Problem> {
    let found = state.comparisons.find(&caller.tenant, id).await?;
    found.ok_or_else(|| absent(&format!("There is no comparison `{id}`")))
}

fn absent(detail: &str) -> Problem {
    Problem::new(Code::NotFound, format!("{detail}; GET /v1/comparisons lists them."))
}
