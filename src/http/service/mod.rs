//! What concerns the whole server: health, metrics, the API's description, the known architectures.

mod architectures;
pub(super) mod description;
mod health;
mod metrics;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::AppState;

/// Every route of the service itself.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(description::openapi))
        .routes(routes!(architectures::architectures))
}
