//! The results of a job beside its model: `GET /v1/jobs/{id}/report` and its siblings.

use axum::response::Response;

use super::find;
use crate::domain::job::State as JobState;
use crate::domain::problem::{Code, Problem};
use crate::http::addressed::Addressed;
use crate::http::download::{Content, Download, Selector};
use crate::http::page::shown;
use crate::http::shared_responses::NeedsSuccess;
use crate::http::views::network::NetworkView;
use crate::http::views::provenance::ProvenanceView;
use crate::report::Report;
use crate::store::jobs::{Artifact, Job};

/// Read the model card
///
/// A README in Markdown for the model's repository: what it was made of, its accuracies with their standard errors, how to use it; with the
/// metadata that the Hub of Hugging Face reads.
#[utoipa::path(get, path = "/v1/jobs/{id}/card", operation_id = "getJobCard", tag = "Jobs",
    params(("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "The card.", body = String, content_type = "text/markdown"),
        NeedsSuccess))]
pub(super) async fn card(request: Addressed, selector: Selector) -> Result<Response, Problem> {
    send(&request, &selector, "card", "README.md").await
}

/// Read the report
///
/// It compares the accuracy (or what else the task is judged by), loss, size, cost and latency of the members, the ensemble and the fused model.
#[utoipa::path(get, path = "/v1/jobs/{id}/report", operation_id = "getJobReport", tag = "Jobs",
    params(("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "The report.", body = Report),
        NeedsSuccess))]
pub(super) async fn report(request: Addressed, selector: Selector) -> Result<Response, Problem> {
    send(&request, &selector, "report", "report.json").await
}

/// Read the report as a page
///
/// The page holds the same report with plots, and loads nothing from the network.
#[utoipa::path(get, path = "/v1/jobs/{id}/report.html", operation_id = "getJobReportPage", tag = "Jobs",
    params(("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
        NeedsSuccess))]
pub(super) async fn report_html(request: Addressed, selector: Selector) -> Result<Response, Problem> {
    Ok(shown(send(&request, &selector, "report.html", "report.html").await?))
}

/// Read the fused model's architecture
///
/// The answer is the graph, in the form in which `architecture.graph` of a job takes it.
#[utoipa::path(get, path = "/v1/jobs/{id}/architecture", operation_id = "getJobArchitecture", tag = "Jobs",
    params(("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "The graph of the fused model.", body = NetworkView),
        NeedsSuccess))]
pub(super) async fn architecture(request: Addressed, selector: Selector) -> Result<Response, Problem> {
    send(&request, &selector, "architecture", "architecture.json").await
}

/// Read where the fused model comes from
///
/// The answer lists, for each unit of the fused model, the member and the unit that it comes from; with digests, versions and
/// the seed.
#[utoipa::path(get, path = "/v1/jobs/{id}/provenance", operation_id = "getJobProvenance", tag = "Jobs",
    params(("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "Where each unit comes from.", body = ProvenanceView),
        NeedsSuccess))]
pub(super) async fn provenance(request: Addressed, selector: Selector) -> Result<Response, Problem> {
    send(&request, &selector, "provenance", "provenance.json").await
}

/// Sends the artifact `name`, which the client may call `file_name`.
pub(super) async fn send(
    request: &Addressed,
    selector: &Selector,
    name: &str,
    file_name: &str,
) -> Result<Response, Problem> {
    offered(artifact(request, name).await?, file_name).respond(&request.state, selector).await
}

/// An artifact, which the client may call `file_name`.
pub(super) fn offered(artifact: Artifact, file_name: &str) -> Download {
    let Artifact { blob_key, bytes, sha256, media_type, .. } = artifact;
    Download { content: Content::Blob(blob_key), bytes, sha256, media_type, file_name: file_name.to_owned() }
}

/// The artifact `name` of the caller's job.
pub(super) async fn artifact(request: &Addressed, name: &str) -> Result<Artifact, Problem> {
    let job = find(request).await?;
    expect_success(&job)?;
    let found = request.state.jobs.artifacts(job.id).await?.into_iter().find(|artifact| artifact.name == name);
    found.ok_or_else(|| Problem::new(Code::NotFound, format!("The job {} has no {name}.", request.name)))
}

fn expect_success(job: &Job) -> Result<(), Problem> {
    let shown = job.state.shown();
    match &job.state {
        JobState::Succeeded(_) => Ok(()),
        JobState::Queued(_) | JobState::Running(_) => {
            let detail = format!("The job is {shown}; wait for it with `Prefer: wait=60` on GET /v1/jobs/{}.", job.id);
            Err(Problem::new(Code::JobNotFinished, detail))
        }
        JobState::Failed(_, problem) => {
            Err(Problem::new(Code::JobNotSucceeded, format!("The job failed: {}", problem.detail)))
        }
        JobState::Cancelled(_) => Err(Problem::new(Code::JobNotSucceeded, "The job was cancelled.")),
    }
}
