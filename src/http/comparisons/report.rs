//! `GET /v1/comparisons/{id}/report` and the same as a page.

use axum::Json;
use axum::response::{Html, IntoResponse, Response};
use futures_util::TryStreamExt;

use super::find;
use crate::domain::problem::{Code, Problem};
use crate::http::addressed::Addressed;
use crate::http::page::shown;
use crate::http::shared_responses::Finds;
use crate::http::state::AppState;
use crate::report::{Comparison, Report, Run};
use crate::store::comparisons;
use crate::store::comparisons::{GridPlace, RunJob};

/// Read the report
///
/// The answer holds the report of every run that has ended, in the order of the plan and as `engraft compare --report` writes
/// it. It grows until the comparison has ended.
#[utoipa::path(get, path = "/v1/comparisons/{id}/report", operation_id = "getComparisonReport", tag = "Comparisons",
    params(("id" = String, Path, description = "The id of the comparison.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "The report.", body = Comparison),
        Finds))]
pub(super) async fn report(request: Addressed) -> Result<Json<Comparison>, Problem> {
    collect(&request).await.map(Json)
}

/// Read the report as a page
///
/// The page holds the same report with plots, and loads nothing from the network.
#[utoipa::path(get, path = "/v1/comparisons/{id}/report.html", operation_id = "getComparisonReportPage", tag = "Comparisons",
    params(("id" = String, Path, description = "The id of the comparison.", example = "cmp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
        Finds))]
pub(super) async fn report_html(request: Addressed) -> Result<Response, Problem> {
    collect(&request).await.map(|comparison| shown(Html(comparison.page()).into_response()))
}

async fn collect(request: &Addressed) -> Result<Comparison, Problem> {
    let (summary, runs) = find(request).await?;
    let mut comparison = Comparison::new(summary.title, summary.quick);
    for comparisons::StoredRun { place, job } in runs {
        let Some(RunJob { id, state: shown, seconds, error, report }) = job else { continue };
        let GridPlace { ensemble, method, target, seed } = place;
        let (report, error) = match (shown.as_str(), report) {
            ("succeeded", Some((key, bytes))) => match read(&request.state, &key, bytes).await? {
                Ok(report) => (Some(report), None),
                Err(error) => (None, Some(format!("its report was written by another version: {error}"))),
            },
            ("failed", _) => (None, error.map(|problem| problem.detail)),
            ("cancelled", _) => (None, Some("cancelled".to_owned())),
            _ => continue,
        };
        let job = Some(id.to_string());
        comparison.runs.push(Run { job, ensemble, method, target, seed, seconds, report, error });
    }
    Ok(comparison)
}

/// A job's report; the inner error is of one that has another form.
async fn read(state: &AppState, key: &str, bytes: u64) -> Result<serde_json::Result<Report>, Problem> {
    let broken = |error| Problem::new(Code::Internal, format!("A report cannot be read: {error}."));
    let chunks: Vec<bytes::Bytes> = state.blobs.read(key, 0..bytes).await?.try_collect().await.map_err(broken)?;
    Ok(serde_json::from_slice(&chunks.concat()))
}
