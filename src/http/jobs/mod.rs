//! `/v1/jobs`.

mod artifacts;
mod create;
mod history;
mod manage;
mod model;
mod stream;
pub(super) mod submission;

use axum::http::{HeaderMap, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::addressed::Addressed;
use super::auth::Caller;
use super::idempotent::Made;
use super::state::AppState;
use super::views::jobs::JobView;
use crate::domain::id::JobId;
use crate::domain::job::State;
use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::store::jobs::{Job, WholeJob};

/// Every route of jobs.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(manage::list, create::create))
        .routes(routes!(manage::get, manage::delete))
        .routes(routes!(manage::cancel))
        .routes(routes!(manage::retry))
        .routes(routes!(history::events))
        .routes(routes!(history::metrics))
        .routes(routes!(history::logs))
        .routes(routes!(model::model))
        .routes(routes!(model::model_sha256))
        .routes(routes!(artifacts::report))
        .routes(routes!(artifacts::report_html))
        .routes(routes!(artifacts::architecture))
        .routes(routes!(artifacts::provenance))
        .routes(routes!(artifacts::card))
}

impl Made for JobId {
    const PATH: &'static str = "/v1/jobs";

    async fn render(self, state: &AppState, caller: &Caller) -> Result<Vec<u8>, Problem> {
        let view = view(state, state.jobs.get_whole(&caller.tenant, self).await?).await?;
        serde_json::to_vec(&view)
            .map_err(|error| Problem::new(Code::Internal, format!("The job cannot be shown: {error}")))
    }
}

/// The id in a path; text that is no job's id names no job.
fn parse_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|error| Problem::new(Code::NotFound, format!("{error}; GET /v1/jobs lists the jobs.")))
}

/// The caller's job.
async fn find(request: &Addressed) -> Result<Job, Problem> {
    Ok(request.state.jobs.get(&request.caller.tenant, parse_id(&request.name)?).await?)
}

/// The caller's job with its files.
async fn find_whole(request: &Addressed) -> Result<WholeJob, Problem> {
    Ok(request.state.jobs.get_whole(&request.caller.tenant, parse_id(&request.name)?).await?)
}

/// The job with everything that belongs to it.
async fn view(state: &AppState, whole: WholeJob) -> Result<JobView, Problem> {
    let queued = matches!(whole.job.state, State::Queued(_));
    let queue_position = if queued { state.jobs.queue_position(whole.job.id).await? } else { None };
    Ok(JobView::new(whole, queue_position))
}

/// Whether the client accepts the media type `wanted` by name.
fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let types = values.flat_map(|value| value.split(',')).map(|part| part.split(';').next().unwrap_or_default().trim());
    types.into_iter().any(|kind| kind.eq_ignore_ascii_case(wanted))
}

/// A parameter of the query that is wrong.
fn wrong_parameter(name: &str, detail: String) -> Problem {
    Problem::faults(vec![Fault::new(format!("/query/{name}"), FaultCode::InvalidValue, detail)])
}

/// A parameter that is not known.
fn unknown_parameter(name: &str, known: &str) -> Problem {
    let detail = format!("the parameter is unknown; known are {known}");
    Problem::faults(vec![Fault::new(format!("/query/{name}"), FaultCode::UnknownParameter, detail)])
}

/// A parameter that is a whole number within `range`.
fn number(name: &str, value: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, Problem> {
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        wrong_parameter(name, format!("expected a number from {} to {}, got `{value}`", range.start(), range.end()))
    })
}
