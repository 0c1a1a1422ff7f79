//! `GET /openapi.json`, and the parts of the description that belong to no route.

use axum::Json;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::http::router::document;
use crate::http::views::problem::ProblemView;

/// What stands around the routes.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "engraft",
        description = "Turns an ensemble of trained neural networks into one compact network: upload the members and a \
                       dataset, queue a fusion, download the fused model.\n\nErrors are problem details (RFC 9457) with a \
                       stable `code`; every answer has an `X-Request-Id`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    servers((url = "/", description = "This server.")),
    tags(
        (name = "Checkpoints", description = "Trained weights, the members of an ensemble."),
        (name = "Datasets", description = "Data to train and to measure with."),
        (name = "Jobs", description = "Fusions: queued, running, done."),
        (name = "Service", description = "The server itself."),
    ),
    security(("key" = []), ()),
    components(schemas(ProblemView)),
    modifiers(&Keys)
)]
pub(in crate::http) struct Description;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "An API key: `engraft_` and 64 hexadecimal digits. A server without any key listens on loopback only and needs none.",
        ));
        document.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(scheme.build()));
    }
}

/// Show this description
#[utoipa::path(get, path = "/openapi.json", operation_id = "getDescription", tag = "Service", security(()),
    responses(
        (status = 200, description = "An OpenAPI 3.1 document.", body = serde_json::Value),
        (status = 405, description = "Only GET and HEAD.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn openapi() -> Json<Document> {
    Json(document())
}
