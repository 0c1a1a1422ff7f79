//! `DELETE /v1/comparisons/{id}`.

use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::{absent, parse_id};
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::views::problem::ProblemView;
use crate::store::comparisons::ComparisonDeletion;

/// Delete a comparison
///
/// With its jobs, their history and their results.
#[utoipa::path(delete, path = "/v1/comparisons/{id}", operation_id = "deleteComparison", tag = "Comparisons",
    params(("id" = String, Path, description = "Its id.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 403, description = "The key may not write.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "A job of it has not ended.", body = ProblemView, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = parse_id(&id)?;
    let (state, tenant) = (&state, &caller.tenant);
    let delete = || async move { Ok(state.comparisons.delete(&state.blobs, tenant, id).await?) };
    match state.reserve.free(delete).await? {
        ComparisonDeletion::Absent => Err(absent(&format!("There is no comparison `{id}`"))),
        ComparisonDeletion::Active => {
            let detail =
                format!("Not now: not all of its jobs have ended; POST /v1/comparisons/{id}/cancel ends them.");
            Err(Problem::new(Code::JobActive, detail))
        }
        ComparisonDeletion::Done => Ok(StatusCode::NO_CONTENT),
    }
}
