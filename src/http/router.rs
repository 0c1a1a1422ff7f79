//! Every route, and the layers around them.

use std::any::Any;
use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::description::{self, Description, add_requests, refer_to_entries};
use super::frame::frame;
use super::state::AppState;
use super::{
    checkpoints, comparisons, cors, datasets, imports, jobs, origin, page, pins, service, session, uploads, webhooks,
};
use crate::domain::problem::{Code, Problem};

/// Every route with its description. A resource adds itself here with a function `routes() -> OpenApiRouter<AppState>`.
fn described() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(description::openapi))
        .routes(routes!(description::schema))
        .merge(service::routes())
        .merge(pins::routes())
        .merge(checkpoints::routes())
        .merge(datasets::routes())
        .merge(uploads::routes())
        .merge(imports::routes())
        .merge(jobs::routes())
        .merge(comparisons::routes())
        .merge(webhooks::routes())
        .merge(page::routes())
        .merge(session::routes())
}

/// The whole service.
pub fn router(state: AppState) -> Router {
    let (router, document) = routes_and_document();
    let router = router.layer(Extension(Arc::new(document)));
    let router = router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state.clone(), origin::check))
        .layer(from_fn_with_state(state.clone(), frame));
    // Outside of all, so that pages can read what is refused, too.
    let router = match cors::layer(&state.settings.server.allow_origin) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.with_state(state)
}

/// The OpenAPI description of every route.
#[must_use]
pub fn document() -> Document {
    routes_and_document().1
}

fn routes_and_document() -> (Router<AppState>, Document) {
    let (router, mut document) = described().split_for_parts();
    refer_to_entries(&mut document);
    add_requests(&mut document);
    (router, document)
}

/// A bug must not close the connection, and the answer says no more than that there is one.
#[expect(clippy::needless_pass_by_value, reason = "the signature that the layer requires")]
fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = text, "a request handler panicked");
    Problem::new(Code::Internal, "The server failed; the log has the details under this request id.").into_response()
}
