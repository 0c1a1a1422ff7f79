//! `/healthz`: the process lives. `/readyz`: it can do its work.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::problem::{Code, Problem};
use crate::http::state::AppState;
use crate::http::views::problem::ProblemView;
use crate::store::staging::free_bytes;

/// A sign of life.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`, or `ready`.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
    /// The program's version.
    #[schema(value_type = String, example = "0.1.0")]
    version: &'static str,
}

impl Health {
    fn new(status: &'static str) -> Json<Self> {
        Json(Self { status, version: env!("CARGO_PKG_VERSION") })
    }
}

/// Say that the process lives
#[utoipa::path(get, path = "/healthz", operation_id = "getHealth", tag = "Service", security(()),
    responses(
        (status = 200, description = "The process lives.", body = Health),
        (status = 405, description = "Only GET and HEAD.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn healthz() -> Json<Health> {
    Health::new("ok")
}

/// Say whether the server can do its work
///
/// It can when a row can be written (tried once a second at most), the disk has room, and it is not about to end.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "Service", security(()),
    responses(
        (status = 200, description = "It can.", body = Health),
        (status = 405, description = "Only GET and HEAD.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "It cannot.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn readyz(State(state): State<AppState>) -> Result<Json<Health>, Problem> {
    let not_ready = |detail: &str| Problem::new(Code::Unavailable, detail);
    if state.shutdown.is_draining() {
        return Err(not_ready("The server is about to end."));
    }
    let storage = &state.settings.storage;
    if free_bytes(&storage.data_dir)? < storage.keep_free.0 {
        return Err(not_ready("The disk is full."));
    }
    state
        .readiness
        .probe()
        .await
        .map_err(|code| not_ready(&format!("The storage cannot be written ({}); the log says why.", code.as_str())))?;
    Ok(Health::new("ready"))
}
