//! `GET /metrics`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::domain::access::Scope;
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::views::problem::ProblemView;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Show the server's figures
///
/// In the text format of Prometheus. Needs a key of scope `admin`, since the figures are about all tenants.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "Service",
    responses(
        (status = 200, description = "The figures.", body = String, content_type = "application/openmetrics-text",
            example = "# TYPE engraft_http_requests counter"),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 403, description = "Not an admin's key.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn metrics(State(state): State<AppState>, caller: Caller) -> Result<Response, Problem> {
    caller.require(Scope::Admin)?;
    let census = state.census.take().await?;
    let text = state.metrics.encode(&census);
    let text = text.map_err(|error| Problem::new(Code::Internal, format!("The figures cannot be written: {error}")))?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response())
}
