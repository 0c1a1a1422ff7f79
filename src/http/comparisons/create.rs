//! `POST /v1/comparisons`.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::domain::problem::{Fault, FaultCode, Problem};
use crate::http::auth::Caller;
use crate::http::idempotent::{Creation, accept};
use crate::http::jobs::submission;
use crate::http::listing::flags;
use crate::http::shared_responses::{ReadsJson, Writes};
use crate::http::state::AppState;
use crate::http::views::comparisons::{ComparisonView, OutlookView, RunOutlookView};
use crate::plan::comparison::{Cell, Grid};
use crate::plan::parse::comparison;
use crate::store::comparisons::{GridPlace, NewComparison};
use crate::store::jobs::NewJob;

/// Most jobs of one group.
const MOST_RUNS: usize = 500;
/// Most bytes of all jobs' descriptions together: a network that is spelled out comes with each of them.
const MOST_BYTES: usize = 64 << 20;
/// Most faults of one answer.
const MOST_FAULTS: usize = 100;

/// Queue a comparison
///
/// A grid of jobs: every ensemble with every method, target and seed. `{"title": "Rankings", "seeds": [0, 1, 2],
/// "job": {"dataset": "mnist.npz"}, "ensembles": [{"name": "two", "members": ["m0.safetensors", "m1.safetensors"]}],
/// "methods": [{"name": "paper", "job": {"method": {"compensate": "none"}}}, {"name": "css", "job": {"method": {"importance": "css"}}}]}`
/// is a complete body. Each `job` is a part of the body of a job. Later parts override earlier ones: the common part, those of the
/// ensemble, the method and the target, and with `quick=true` that of `quick`, which may also select fewer `seeds`, `ensembles`,
/// `methods` and `targets`. A comparison has at most 500 jobs; either all are queued or none. With `validate_only=true` the
/// answer says what each of them would take.
#[utoipa::path(post, path = "/v1/comparisons", operation_id = "createComparison", tag = "Comparisons",
    params(
        ("validate_only" = Option<bool>, Query, description = "Whether to plan only, without queueing anything.", example = false),
        ("quick" = Option<bool>, Query, description = "Whether to run the short form of the plan.", example = false),
        ("Idempotency-Key" = Option<String>, Header, description = "Requests with the same key and the same body get the same answer for 24 hours.",
            example = "5b0e2a51-7f0c-4b6e-9d0e-0b5f6f0f3c55")),
    request_body(content = ref("#/components/schemas/ComparisonRequest"), description = "The plan of the comparison.",
        example = json!({"title": "Rankings", "seeds": [0, 1, 2], "job": {"dataset": "mnist.npz"},
            "ensembles": [{"name": "two", "members": ["m0.safetensors", "m1.safetensors"]}],
            "methods": [{"name": "magnitude"}, {"name": "css", "job": {"method": {"importance": "css"}}}]})),
    responses(
        (status = 200, description = "What the comparison would take; only with `validate_only`.", body = OutlookView),
        (status = 202, description = "The comparison was queued.", body = ComparisonView,
            headers(("Location", description = "The address of the comparison."), ("Retry-After", description = "After how many seconds to look at the comparison."))),
        Writes, ReadsJson))]
pub(super) async fn create(request: Creation) -> Result<Response, Problem> {
    let Creation { state, caller, query, body, .. } = &request;
    let [validate_only, quick] = flags(query, ["validate_only", "quick"])?;
    let grid = comparison(&body.value, quick).map_err(Problem::faults)?;
    bounded(&grid, body.bytes.len())?;
    if validate_only {
        let runs = Box::pin(read(state, caller, &grid)).await?;
        return Ok(Json(outlook(&grid, &runs)).into_response());
    }
    let key = request.key()?;
    let key = key.as_ref();
    accept(state, caller, key, async {
        let runs = Box::pin(read(state, caller, &grid)).await?;
        let (tenant, title) = (caller.tenant.as_ref().clone(), grid.title.clone());
        Ok(state.comparisons.insert(&NewComparison { tenant, title, quick, runs }, key).await?)
    })
    .await
}

fn bounded(grid: &Grid, bytes: usize) -> Result<(), Problem> {
    let (runs, total) = (grid.runs(), grid.runs().saturating_mul(bytes));
    let fault = |detail| Err(Problem::faults(vec![Fault::new("", FaultCode::TooManyRuns, detail)]));
    if runs > MOST_RUNS {
        return fault(format!("a comparison has at most {MOST_RUNS} runs, this one {runs}"));
    }
    if total > MOST_BYTES {
        return fault(format!(
            "{runs} runs of up to {bytes} bytes each are too much: expected at most {MOST_BYTES} bytes"
        ));
    }
    Ok(())
}

/// Reads every job of the grid.
async fn read(state: &AppState, caller: &Caller, grid: &Grid) -> Result<Vec<(GridPlace, NewJob)>, Problem> {
    let mut runs = Vec::with_capacity(grid.runs());
    let mut faults: Vec<Fault> = Vec::new();
    for cell in grid.cells() {
        match submission::read(state, caller, &grid.body(&cell)).await {
            Ok(job) => runs.push((place(&cell), job)),
            Err(problem) if problem.errors.is_empty() => {
                return Err(Problem { detail: format!("{cell}: {}", problem.detail), ..problem });
            }
            Err(problem) => {
                for fault in problem.errors.iter().map(|fault| grid.locate(&cell, fault)) {
                    // The same part of the plan is in many jobs.
                    let known = faults.iter().any(|one| one.path() == fault.path() && one.code == fault.code);
                    if !known && faults.len() < MOST_FAULTS {
                        faults.push(fault);
                    }
                }
            }
        }
    }
    if faults.is_empty() { Ok(runs) } else { Err(Problem::faults(faults)) }
}

fn place(cell: &Cell<'_>) -> GridPlace {
    GridPlace {
        ensemble: cell.ensemble.name.clone(),
        method: cell.method.name.clone(),
        target: cell.target.name.clone(),
        seed: cell.seed,
    }
}

/// What the jobs would take, one after another.
fn outlook(grid: &Grid, runs: &[(GridPlace, NewJob)]) -> OutlookView {
    let shown = |(place, job): &(GridPlace, NewJob)| {
        let GridPlace { ensemble, method, target, seed } = place.clone();
        let warnings = job.plan["warnings"].as_array().into_iter().flatten();
        RunOutlookView {
            ensemble,
            method,
            target,
            seed,
            parameters: job.plan["parameters"]["fused"].as_u64(),
            memory_peak_bytes: job.plan["memory_peak_bytes"].as_u64(),
            seconds_estimate: job.plan["seconds_estimate"].as_f64(),
            warnings: warnings.filter_map(|warning| Some(warning.as_str()?.to_owned())).collect(),
        }
    };
    let runs: Vec<RunOutlookView> = runs.iter().map(shown).collect();
    let seconds_estimate = runs.iter().map(|run| run.seconds_estimate).sum();
    OutlookView { title: grid.title.clone(), quick: grid.quick, seconds_estimate, runs }
}
