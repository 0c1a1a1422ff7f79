//! `GET /v1/architectures`.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::auth::Caller;
use crate::http::views::problem::ProblemView;
use crate::model::families::FAMILIES;

/// The families of networks that are recognised.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Architectures {
    /// The families.
    data: Vec<FamilyView>,
}

/// A family of networks.
#[derive(Debug, Serialize, ToSchema)]
struct FamilyView {
    /// For `architecture.family` of a job.
    #[schema(value_type = String, example = "mlp")]
    name: &'static str,
    /// How it is recognised, and what is assumed.
    #[schema(value_type = String, example = "Matrices only, with ReLU between them.")]
    description: &'static str,
}

/// List the architectures that are recognised
#[utoipa::path(get, path = "/v1/architectures", operation_id = "listArchitectures", tag = "Service",
    responses(
        (status = 200, description = "All of them.", body = Architectures),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn architectures(_: Caller) -> Json<Architectures> {
    let view =
        |family: &crate::model::families::Family| FamilyView { name: family.name, description: family.description };
    Json(Architectures { data: FAMILIES.iter().map(view).collect() })
}
