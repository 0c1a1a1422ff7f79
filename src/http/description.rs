//! `GET /openapi.json`, and the parts of the description that belong to no route.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use utoipa::openapi::schema::{ArrayItems, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, Ref, RefOr, Required};
use utoipa::{Modify, OpenApi};

use super::shared_responses::OnlyReads;
use super::views::problem::ProblemView;
use crate::domain::problem::{Code, Problem};
use crate::domain::progress::Phase;
use crate::plan::schemas::{ALL, RequestSchema, parts};

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
        (name = "Imports", description = "Files that the server fetches from elsewhere."),
        (name = "Jobs", description = "Fusions, from the queue to their results."),
        (name = "Comparisons", description = "Groups of jobs that compare methods, targets and seeds."),
        (name = "Webhooks", description = "Calls to addresses of yours when something ends, after the Standard Webhooks specification."),
        (name = "Service", description = "The server itself: its health, its metrics, its workers and its description."),
    ),
    security(("key" = []), ()),
    components(schemas(Phase, ProblemView)),
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

/// Adds the schemas of what clients write, and that a body which follows one of them is needed.
pub(super) fn add_requests(document: &mut Document) {
    let schemas: Vec<RequestSchema> = ALL.into_iter().filter(RequestSchema::is_of_the_api).collect();
    let components = document.components.get_or_insert_default();
    for (name, part) in parts(&schemas, |name| Ref::from_schema_name(name).ref_location) {
        match serde_json::from_value::<RefOr<Schema>>(part) {
            Ok(schema) => components.schemas.insert(name, schema),
            Err(error) => unreachable!("{name} is no schema: {error}"),
        };
    }
    let posts = document.paths.paths.values_mut().filter_map(|path| path.post.as_mut());
    for body in posts.filter_map(|post| post.request_body.as_mut()) {
        if let RefOr::T(body) = body {
            body.required = Some(Required::True);
        }
    }
}

/// Read the schema of what clients write
///
/// `job.schema.json`, `plan.schema.json` (a comparison, also as the file of `engraft compare`), `recipe.schema.json` (the file of `engraft train`)
/// and `assembly.schema.json`, for editors and validators. They refer to each other by these names.
#[utoipa::path(get, path = "/schemas/{file}", operation_id = "getSchema", tag = "Service", security(()),
    params(("file" = String, Path, description = "The name of the schema.", example = "job.schema.json")),
    responses(
        (status = 200, description = "A JSON Schema.", body = serde_json::Value, content_type = "application/schema+json"),
        (status = 404, description = "There is no such schema.", body = ProblemView, content_type = "application/problem+json"),
        OnlyReads))]
pub(super) async fn schema(Path(file): Path<String>) -> Result<Response, Problem> {
    let Some(schema) = ALL.into_iter().find(|schema| schema.file == file) else {
        let files = ALL.map(|schema| format!("`{}`", schema.file)).join(", ");
        let file: String = file.chars().take(80).collect();
        return Err(Problem::new(Code::NotFound, format!("There is no schema `{file}`; there are {files}.")));
    };
    Ok(([(header::CONTENT_TYPE, "application/schema+json")], schema.text()).into_response())
}

/// Show this description
#[utoipa::path(get, path = "/openapi.json", operation_id = "getDescription", tag = "Service", security(()),
    responses(
        (status = 200, description = "An OpenAPI 3.1 document.", body = serde_json::Value),
        OnlyReads))]
pub(super) async fn openapi(Extension(document): Extension<Arc<Document>>) -> Json<Document> {
    Json(Document::clone(&document))
}
