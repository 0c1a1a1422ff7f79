//! `GET /v1/comparisons`.

use axum::Json;
use axum::extract::State;

use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::listing::{Page, RawQuery, parse_unlabelled};
use crate::http::state::AppState;
use crate::http::views::comparisons::ComparisonSummary;
use crate::http::views::problem::ProblemView;

/// List comparisons
///
/// Newest first.
#[utoipa::path(get, path = "/v1/comparisons", operation_id = "listComparisons", tag = "Comparisons",
    params(
        ("limit" = Option<usize>, Query, description = "Entries per page, 1 to 200.", example = 50),
        ("after" = Option<String>, Query, description = "The `next_after` of the page before.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "One page.", body = Page<ComparisonSummary>),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<ComparisonSummary>>, Problem> {
    let listing = parse_unlabelled(&query)?;
    let rows = state.comparisons.list(&caller.tenant, &listing).await?;
    Ok(Json(Page::new(&listing, rows, |row| row.id.to_string(), ComparisonSummary::from)))
}
