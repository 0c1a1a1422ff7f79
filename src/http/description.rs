//! `GET /openapi.json`, and the parts of the description that belong to no route.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::{Extension, Json};
use utoipa::openapi::schema::{ArrayItems, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, Ref, RefOr};
use utoipa::{Modify, OpenApi};

use super::shared_responses::OnlyReads;
use super::views::problem::ProblemView;

/// What stands around the routes.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "engraft",
        description = "Turns an ensemble of trained neural networks into one compact network: upload the members and a \
                       dataset, queue a fusion, download the fused model.\n\nErrors are problem details (RFC 9457) with a \
                       stable `code`; every answer has an `X-Request-Id`. Any request may be refused with 421 \
                       `host_not_allowed` (its Host is not a name of this server) or 403 `cross_origin` (a page of another \
                       site sent it). Any write may fail with 507 `disk_full`, 500 `storage_failed` or 503 `unavailable`: \
                       it has then changed nothing and may be sent again.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    servers((url = "/", description = "This server.")),
    tags(
        (name = "Checkpoints", description = "Trained weights: the members of an ensemble."),
        (name = "Datasets", description = "Data for training and evaluation."),
        (name = "Uploads", description = "Uploads that have not ended yet."),
        (name = "Jobs", description = "Fusions, from the queue to their results."),
        (name = "Comparisons", description = "Groups of jobs that compare methods, targets and seeds."),
        (name = "Service", description = "The server itself: its health, its metrics, its workers and its description."),
    ),
    security(("key" = []), ()),
    components(schemas(ProblemView)),
    modifiers(&Keys)
)]
pub(super) struct Description;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "An API key: `engraft_` and 64 hexadecimal digits. A server without any key listens on the loopback interface only and needs none.",
        ));
        document.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(scheme.build()));
    }
}

/// Lets every page of a list refer to the schema of its entries, which the derive of a generic type writes out in each.
pub(super) fn refer_to_entries(document: &mut Document) {
    let Some(components) = &mut document.components else { return };
    let names: BTreeSet<String> = components.schemas.keys().cloned().collect();
    for (name, schema) in &mut components.schemas {
        if let Some(entry) = name.strip_prefix("Page_").filter(|entry| names.contains(*entry))
            && let RefOr::T(Schema::Object(page)) = schema
            && let Some(RefOr::T(Schema::Array(entries))) = page.properties.get_mut("data")
        {
            entries.items = ArrayItems::RefOrSchema(Box::new(Ref::from_schema_name(entry).into()));
        }
    }
}

/// Show this description
#[utoipa::path(get, path = "/openapi.json", operation_id = "getDescription", tag = "Service", security(()),
    responses(
        (status = 200, description = "An OpenAPI 3.1 document.", body = serde_json::Value),
        OnlyReads))]
pub(super) async fn openapi(Extension(document): Extension<Arc<Document>>) -> Json<Document> {
    Json(Document::clone(&document))
}
