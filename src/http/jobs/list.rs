//! `GET /v1/jobs`.

use axum::Json;
use axum::extract::State as Extract;

use crate::domain::job::State;
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::listing::{ListParameters, Page, RawQuery, parse};
use crate::http::state::AppState;
use crate::http::views::jobs::JobSummary;
use crate::http::views::problem::ProblemView;

/// List jobs
///
/// Newest first. `?state=STATE` keeps those in a state, `?label.NAME=VALUE` those with this label.
#[utoipa::path(get, path = "/v1/jobs", operation_id = "listJobs", tag = "Jobs", params(ListParameters),
    responses(
        (status = 200, description = "One page.", body = Page<JobSummary>),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(
    Extract(state): Extract<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<JobSummary>>, Problem> {
    let listing = parse(&query, State::SHOWN)?;
    let rows = state.jobs.list(&caller.tenant, &listing).await?;
    Ok(Json(Page::new(&listing, rows, |job| job.id.to_string(), |job| JobSummary::from(&job))))
}
