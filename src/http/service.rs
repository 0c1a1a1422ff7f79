//! The server itself: whether it lives and can work, its figures, its workers, the architectures that it knows.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::metrics::Machine;
use super::shared_responses::{NeedsKey, OnlyReads};
use super::state::AppState;
use super::views::problem::ProblemView;
use super::views::workers::{WorkerView, WorkersView};
use crate::domain::access::Scope;
use crate::domain::problem::{Code, Problem};
use crate::model::families::{FAMILIES, Family};

/// Every route of the service itself.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .routes(routes!(workers))
        .routes(routes!(architectures))
}

/// The state of the process.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok` or `ready`.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
    /// The version of the program.
    #[schema(value_type = String, example = "0.1.0")]
    version: &'static str,
}

impl Health {
    fn new(status: &'static str) -> Json<Self> {
        Json(Self { status, version: env!("CARGO_PKG_VERSION") })
    }
}

/// Check that the process runs
#[utoipa::path(get, path = "/healthz", operation_id = "getHealth", tag = "Service", security(()),
    responses(
        (status = 200, description = "The process runs.", body = Health),
        OnlyReads))]
async fn healthz() -> Json<Health> {
    Health::new("ok")
}

/// Check whether the server can work
///
/// It can if the database accepts a write (tried at most once a second), the disk has room, and the server is not about to stop.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "Service", security(()),
    responses(
        (status = 200, description = "The server can work.", body = Health),
        (status = 503, description = "The server cannot work now; `detail` says why.", body = ProblemView, content_type = "application/problem+json"),
        OnlyReads))]
async fn readyz(State(state): State<AppState>) -> Result<Json<Health>, Problem> {
    let not_ready = |detail: &str| Problem::new(Code::Unavailable, detail);
    if state.shutdown.is_draining() {
        return Err(not_ready("The server is about to end."));
    }
    let storage = &state.settings.storage;
    match state.blobs.room(&storage.data_dir) {
        Ok(free) if free >= storage.keep_free.0 => {}
        Ok(_) => return Err(not_ready("The disk is full.")),
        Err(error) => {
            tracing::warn!(%error, "the free space of the disk cannot be read");
            return Err(not_ready("The free space of the disk cannot be read; the log says why."));
        }
    }
    state
        .readiness
        .probe()
        .await
        .map_err(|code| not_ready(&format!("The storage cannot be written ({}); the log says why.", code.as_str())))?;
    Ok(Health::new("ready"))
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Read the metrics of the server
///
/// The metrics have the text format of Prometheus. They need a key with the scope `admin`, because they cover all tenants.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "Service",
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "application/openmetrics-text",
            example = "# TYPE engraft_http_requests counter"),
        (status = 403, description = "The key does not have the scope `admin`.", body = ProblemView, content_type = "application/problem+json"),
        NeedsKey))]
async fn metrics(State(state): State<AppState>, caller: Caller) -> Result<Response, Problem> {
    caller.require(Scope::Admin)?;
    let census = state.census.take().await?;
    let storage = &state.settings.storage;
    let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let machine = Machine {
        disk_free: gauge(state.blobs.room(&storage.data_dir)?),
        keep_free: gauge(storage.keep_free.0),
        connections: gauge(state.connections.open() as u64),
        connections_limit: gauge(state.connections.limit() as u64),
        workers: gauge(state.workers.live().await?.len() as u64),
    };
    let text = state.metrics.encode(&census, &machine);
    let text = text.map_err(|error| Problem::new(Code::Internal, format!("The figures cannot be written: {error}")))?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response())
}

/// List the workers
///
/// The answer lists the workers that are running, with the devices that a job can request and the jobs that they run.
#[utoipa::path(get, path = "/v1/workers", operation_id = "listWorkers", tag = "Service",
    responses(
        (status = 200, description = "The running workers.", body = WorkersView),
        NeedsKey))]
async fn workers(State(state): State<AppState>, caller: Caller) -> Result<Json<WorkersView>, Problem> {
    let (live, running) = (state.workers.live().await?, state.jobs.running().await?);
    let view = |worker| WorkerView::of(worker, &running, &caller);
    Ok(Json(WorkersView { data: live.into_iter().map(view).collect() }))
}

/// The families of networks that are recognised.
#[derive(Debug, Serialize, ToSchema)]
struct Architectures {
    /// The families.
    data: Vec<FamilyView>,
}

/// A family of networks.
#[derive(Debug, Serialize, ToSchema)]
struct FamilyView {
    /// The value of `architecture.family` of a job.
    #[schema(value_type = String, example = "mlp")]
    name: &'static str,
    /// How it is recognised and what is assumed.
    #[schema(value_type = String, example = "Matrices only, with ReLU between them.")]
    description: &'static str,
}

/// List the architectures that are recognised
#[utoipa::path(get, path = "/v1/architectures", operation_id = "listArchitectures", tag = "Service",
    responses(
        (status = 200, description = "All families of networks.", body = Architectures),
        NeedsKey))]
async fn architectures(_: Caller) -> Json<Architectures> {
    let view = |family: &Family| FamilyView { name: family.name, description: family.description };
    Json(Architectures { data: FAMILIES.iter().map(view).collect() })
}
