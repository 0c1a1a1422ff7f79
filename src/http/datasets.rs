//! `/v1/datasets`: list, show, upload, download, delete.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::addressed::Addressed;
use super::auth::Caller;
use super::download::Selector;
use super::listing::{ListParameters, Page, RawQuery, UploadParameters, flags, parse};
use super::polling::{answer, wait};
use super::shared_responses::{Finds, ReadsFile, ReadsQuery, SendsFile, ShowsUpload, Writes};
use super::state::AppState;
use super::uploads::{self, Refusal};
use super::views::datasets::DatasetView;
use super::views::problem::ProblemView;
use crate::domain::problem::Problem;
use crate::store::datasets::{DatasetState, StoredDataset};
use crate::store::files::Kind;

/// Every route of datasets.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, head, put, delete)).routes(routes!(content))
}

/// List datasets
///
/// The newest come first. `?label=NAME=VALUE` selects those with this label; several must all match.
#[utoipa::path(get, path = "/v1/datasets", operation_id = "listDatasets", tag = "Datasets", params(ListParameters),
    responses(
        (status = 200, description = "One page of datasets.", body = Page<DatasetView>),
        ReadsQuery))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<DatasetView>>, Problem> {
    let listing = parse(&query, DatasetState::NAMES)?;
    let rows = state.datasets.list(&caller.tenant, &listing).await?;
    Ok(Json(Page::of(listing.limit, rows, |row| row.id.to_string(), DatasetView::in_a_list)))
}

/// Show a dataset
///
/// `state` changes from `validating` to `ready` (then `facts` says what the dataset holds) or to `invalid` (then `error` says
/// why). With `Prefer: wait=N` (at most 60) the server answers when it does, or after N seconds. `?preview=true` adds the pictures of some
/// examples.
#[utoipa::path(get, path = "/v1/datasets/{name}", operation_id = "getDataset", tag = "Datasets",
    params(
        ("name" = String, Path, description = "The id or the name of the dataset.", example = "mnist.npz"),
        ("preview" = Option<bool>, Query, description = "Whether to add pictures of some examples, as data of PNG files.", example = true),
        ("Prefer" = Option<String>, Header, description = "How many seconds to wait until the dataset has been read.", example = "wait=30"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the answer that the client already has.", example = "\"5d41402abc4b2a76\"")),
    responses(
        (status = 200, description = "The dataset.", body = DatasetView,
            headers(("ETag", description = "Identifies this version of the answer."), ("Retry-After", description = "After how many seconds to look again. It is only sent while the dataset is being read."))),
        (status = 304, description = "Nothing has changed since."),
        ReadsQuery, Finds))]
async fn get(request: Addressed, RawQuery(query): RawQuery, headers: HeaderMap) -> Result<Response, Problem> {
    let [preview] = flags(&query, ["preview"])?;
    let is_read = |dataset: &StoredDataset| !matches!(dataset.state, DatasetState::Validating);
    let mut dataset = find(&request).await?;
    if !is_read(&dataset) {
        let news = async {
            let mut ticks = request.state.changes.ticks();
            loop {
                ticks.next().await;
                if is_read(&find(&request).await?) {
                    return Ok(());
                }
            }
        };
        if wait(&request.state, &headers, news).await? {
            dataset = find(&request).await?;
        }
    }
    let ended = is_read(&dataset);
    let view = DatasetView::from(dataset);
    answer(&if preview { view } else { view.without_pictures() }, ended, &headers)
}

/// Check how far an upload has come
///
/// The answer is 200 with `ETag` for a complete dataset, and 204 with `Upload-Offset` for an unfinished one:
/// `curl -C OFFSET -T FILE` continues from there.
#[utoipa::path(head, path = "/v1/datasets/{name}", operation_id = "headDataset", tag = "Datasets",
    params(("name" = String, Path, description = "The id or the name of the dataset.", example = "mnist.npz")),
    responses(ShowsUpload))]
async fn head(request: Addressed) -> Result<Response, Problem> {
    let found = request.state.datasets.find(&request.caller.tenant, &request.name).await?;
    uploads::presence(&request, Kind::Dataset, found.map(|dataset| dataset.file)).await
}

/// Upload a dataset
///
/// The body is an npz or safetensors file with x and y (or `MedMNIST`'s; x alone where there are no labels), a .npy file of inputs, an archive of the four MNIST IDX files or of CIFAR's binary or
/// pickled files, a Parquet file with images as on the Hugging Face hub, or a zip or tar archive with one folder of images per class
/// (below train/, val/ and test/ where it has splits) or with images and a table `labels.csv`, as `curl -T FILE` sends it. Labels are
/// outputs of the networks by position; classes that are folders or words are numbered in the order of their names, empty folders
/// too, unless a job gives the order as `dataset.classes`, and there must be one for each output. If the connection breaks, the server keeps what has arrived: get the offset with HEAD, then
/// continue with `curl -C OFFSET -T FILE`, which sends `Content-Range`. Unfinished uploads expire after a day. The server
/// checks `Repr-Digest: sha-256=:BASE64:`. `?label=NAME=VALUE` puts labels on the dataset.
#[utoipa::path(put, path = "/v1/datasets/{name}", operation_id = "putDataset", tag = "Datasets",
    params(
        UploadParameters,
        ("name" = String, Path, description = "The name of the dataset: 1 to 128 characters of `[A-Za-z0-9._-]`.", example = "mnist.npz"),
        ("Content-Range" = Option<String>, Header, description = "Which part of the file the body holds.", example = "bytes 1048576-4194303/4194304"),
        ("Repr-Digest" = Option<String>, Header, description = "The digest of the whole file (RFC 9530).",
            example = "sha-256=:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=:")),
    request_body(content = inline(uploads::FileBytes), content_type = "application/octet-stream", description = "The bytes of the file."),
    responses(
        (status = 200, description = "The same file was already stored under this name.", body = DatasetView),
        (status = 201, description = "The dataset was uploaded.", body = DatasetView,
            headers(("ETag", description = "The SHA-256 of the file."), ("Repr-Digest", description = "The same digest, as RFC 9530 writes it."), ("Location", description = "The address of the dataset."))),
        (status = 204, description = "A part of the file was stored.", headers(("Upload-Offset" = u64, description = "The offset at which the upload continues."))),
        (status = 409, description = "The name belongs to another file, another request is uploading to it, or the offset is wrong.",
            body = ProblemView, content_type = "application/problem+json",
            headers(("Upload-Offset" = u64, description = "The right offset, if the given one was wrong."))),
        (status = 422, description = "The file is empty, or its digest is not the announced one.", body = ProblemView, content_type = "application/problem+json"),
        Writes, ReadsFile))]
async fn put(request: Addressed, sent: Request) -> Result<Response, Refusal> {
    let outcome = uploads::put(&request, Kind::Dataset, sent).await?;
    request.state.dataset_arrived.notify_one();
    let view = |id| async move { find(&Addressed { name: id, ..request }).await.map(DatasetView::from) };
    uploads::uploaded(outcome, Kind::Dataset, view).await
}

/// Download a dataset
///
/// The file is sent byte for byte as it was uploaded. `Range`, `If-Range` and `If-None-Match` work as in RFC 9110, so that
/// `curl -C - -O` resumes a download.
#[utoipa::path(get, path = "/v1/datasets/{name}/content", operation_id = "getDatasetContent", tag = "Datasets",
    params(
        ("name" = String, Path, description = "The id or the name of the dataset.", example = "mnist.npz"),
        ("Range" = Option<String>, Header, description = "Which bytes to send.", example = "bytes=1048576-")),
    responses(SendsFile, Finds))]
async fn content(request: Addressed, selector: Selector) -> Result<Response, Problem> {
    uploads::download(find(&request).await?.file).respond(&request.state, &selector).await
}

/// Delete a dataset
#[utoipa::path(delete, path = "/v1/datasets/{name}", operation_id = "deleteDataset", tag = "Datasets",
    params(("name" = String, Path, description = "The id or the name of the dataset.", example = "mnist.npz")),
    responses(
        (status = 204, description = "The dataset was deleted."),
        (status = 409, description = "An unfinished job reads the dataset.", body = ProblemView, content_type = "application/problem+json"),
        Writes, Finds))]
async fn delete(request: Addressed) -> Result<StatusCode, Problem> {
    let Addressed { state, caller, name } = &request;
    let deletion = state.reserve.free(|| async move { Ok(state.datasets.delete(&caller.tenant, name).await?) }).await?;
    uploads::deleted(deletion, Kind::Dataset, name)
}

/// The caller's dataset with this id or name.
async fn find(request: &Addressed) -> Result<StoredDataset, Problem> {
    let found = request.state.datasets.find(&request.caller.tenant, &request.name).await?;
    found.ok_or_else(|| uploads::absent(Kind::Dataset, &request.name))
}
