//! Lists, asks for, shows and forgets imports.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::body::{ImportRequest, read};
use super::{absent, find, parse_id};
use crate::domain::problem::{Code, Problem};
use crate::http::addressed::Addressed;
use crate::http::auth::Caller;
use crate::http::idempotent::{Creation, accept};
use crate::http::listing::{Page, RawQuery, parse_unlabelled};
use crate::http::polling::{answer, wait};
use crate::http::shared_responses::{Finds, ReadsJson, ReadsQuery, Writes};
use crate::http::state::AppState;
use crate::http::views::imports::ImportView;
use crate::http::views::problem::ProblemView;
use crate::store::imports::{ImportCreation, ImportState, MOST};

/// List imports
///
/// The newest come first; those that have ended are forgotten after 30 days, their files are not.
#[utoipa::path(get, path = "/v1/imports", operation_id = "listImports", tag = "Imports",
    params(
        ("limit" = Option<usize>, Query, description = "The most entries of a page, 1 to 200.", example = 50),
        ("after" = Option<String>, Query, description = "The `next_after` of the previous page.", example = "imp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "One page of imports.", body = Page<ImportView>),
        ReadsQuery))]
pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<ImportView>>, Problem> {
    let listing = parse_unlabelled(&query)?;
    let rows = state.imports.list(&caller.tenant, &listing).await?;
    Ok(Json(Page::of(listing.limit, rows, |row| row.id.to_string(), ImportView::from)))
}

/// Fetch a file from elsewhere
///
/// The server fetches a checkpoint or a dataset by itself and treats it like an upload of that name, with the same limits. `from` is an
/// address `https://HOST/FILE`, a file in a repository of the Hugging Face Hub (`hf://ORG/NAME@REVISION/FILE`,
/// `hf://datasets/ORG/NAME@REVISION/FILE`) or an object (`s3://BUCKET/KEY`). The host must have an address of the public internet, or one that the
/// operator allows (`--allow-address`). What breaks off is fetched on from where it was, as long as the file is the same; what the source
/// refuses fails at once, what it spoils is tried seven times within three hours. A file with another SHA-256 than `sha256`, or than the Hub has
/// for it, is refused.
#[utoipa::path(post, path = "/v1/imports", operation_id = "createImport", tag = "Imports",
    params(("Idempotency-Key" = Option<String>, Header, description = "Requests with the same key and the same body get the same answer for 24 hours.",
        example = "5b0e2a51-7f0c-4b6e-9d0e-0b5f6f0f3c55")),
    request_body(content = ImportRequest, description = "Where the file is, and what it becomes.",
        example = json!({"kind": "checkpoint", "from": "hf://timm/resnet18.a1_in1k@main/model.safetensors", "name": "m0.safetensors"})),
    responses(
        (status = 202, description = "The file will be fetched.", body = ImportView,
            headers(("Location", description = "The address of the import."), ("Retry-After", description = "After how many seconds to look at the import."))),
        (status = 409, description = "A file of this name is being fetched already.", body = ProblemView, content_type = "application/problem+json"),
        (status = 429, description = "The tenant has as many imports waiting as it may have.", body = ProblemView, content_type = "application/problem+json"),
        Writes, ReadsJson))]
pub(super) async fn create(request: Creation) -> Result<Response, Problem> {
    let Creation { state, caller, body, .. } = &request;
    let new = read(&body.value)?;
    let key = request.key()?;
    let key = key.as_ref();
    accept(state, caller, key, async {
        let name = new.name.clone();
        match state.imports.create(&caller.tenant, new, key).await? {
            ImportCreation::Made(id) | ImportCreation::Before(id) => Ok(id),
            ImportCreation::NameTaken(other) => {
                let detail =
                    format!("`{name}` is being fetched already: wait for {other}, or DELETE /v1/imports/{other}.");
                Err(Problem::new(Code::UploadInProgress, detail))
            }
            ImportCreation::TooMany => {
                let detail = format!("A tenant has at most {MOST} imports that wait; wait for some of them.");
                Err(Problem::new(Code::TooMany, detail))
            }
        }
    })
    .await
}

/// Show an import
///
/// With `Prefer: wait=N` (at most 60) the server answers when the state changes, or after N seconds; when it has ended it answers at once.
#[utoipa::path(get, path = "/v1/imports/{id}", operation_id = "getImport", tag = "Imports",
    params(
        ("id" = String, Path, description = "The id of the import.", example = "imp_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("Prefer" = Option<String>, Header, description = "How many seconds to wait for another state.", example = "wait=30"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the answer that the client already has.", example = "\"5d41402abc4b2a76\"")),
    responses(
        (status = 200, description = "The import.", body = ImportView,
            headers(("ETag", description = "Identifies this version of the answer."), ("Retry-After", description = "After how many seconds to look again. It is only sent while the import has not ended."))),
        (status = 304, description = "Nothing has changed since."),
        Finds))]
pub(super) async fn get(request: Addressed, headers: HeaderMap) -> Result<Response, Problem> {
    let ended = |state: &ImportState| matches!(state, ImportState::Succeeded { .. } | ImportState::Failed(_));
    let mut import = find(&request).await?;
    if !ended(&import.state) {
        let is_running = import.state == ImportState::Running;
        let news = async {
            let mut ticks = request.state.changes.ticks();
            loop {
                ticks.next().await;
                let state = find(&request).await?.state;
                if ended(&state) || (state == ImportState::Running) != is_running {
                    return Ok(());
                }
            }
        };
        if wait(&request.state, &headers, news).await? {
            import = find(&request).await?;
        }
    }
    let has_ended = ended(&import.state);
    answer(&ImportView::from(import), has_ended, &headers)
}

/// Forget an import
///
/// One that has not ended is given up, and what is here of the file with it. A file that is complete stays.
#[utoipa::path(delete, path = "/v1/imports/{id}", operation_id = "deleteImport", tag = "Imports",
    params(("id" = String, Path, description = "The id of the import.", example = "imp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses((status = 204, description = "The import was forgotten."), Finds, Writes))]
pub(super) async fn delete(request: Addressed) -> Result<StatusCode, Problem> {
    let import = find(&request).await?;
    let Addressed { state, caller, .. } = &request;
    if !state.imports.delete(&caller.tenant, parse_id(&request.name)?).await? {
        return Err(absent(&format!("There is no import `{}`", import.id)));
    }
    // What is being written right now is removed by whoever writes it.
    if import.progress.is_some()
        && let Ok(name) = import.name.parse()
        && let Some(upload) = state.staging.uploads().find(import.kind, &caller.tenant, &name).await?
    {
        state.staging.abandon(upload.id).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
