//! The fused model, in every format: `GET /v1/jobs/{id}/model`.

use std::num::NonZeroUsize;

use axum::response::{IntoResponse, Response};

use super::artifacts::{artifact, offered, send};
use super::{unknown_parameter, wrong_parameter};
use crate::domain::problem::{Code, Problem};
use crate::export::{ExportFormat, ExportOptions, Packing, came_in_shards};
use crate::http::addressed::Addressed;
use crate::http::download::{Content, Download, Selector};
use crate::http::exports::ExportSource;
use crate::http::listing::{RawQuery, pairs};
use crate::http::shared_responses::{NeedsSuccess, SendsFile};
use crate::http::views::problem::ProblemView;
use crate::model::formats::limits::MAX_FILES;
use crate::settings::Normalize;
use crate::store::blobs::LocalFile;
use crate::store::jobs::Artifact;

/// What the fused model is called on the client's disk, but for the end of the name.
const MODEL: &str = "fused";
const MODEL_FILE: &str = "fused.safetensors";

/// Download the fused model
///
/// The model is a safetensors file with the tensor names of the members (a tar of shards, as `tar`, where all members came in shards), or
/// what `format` says: `pt` is a `state_dict` for
/// `torch.load`, `onnx` runs in onnxruntime, `py` is the source of its PyTorch module and `json` its graph; the last three need a network
/// that is known. `tar`, or `shards=N`, is a tar of at most N files of safetensors with `model.safetensors.index.json`. An ONNX model of 2 GiB and
/// more is a tar of `model.onnx` and `model.onnx.data`. `Range`, `If-Range` and `If-None-Match` work as in RFC 9110, so that `curl -C - -o fused.safetensors` resumes a
/// download.
#[utoipa::path(get, path = "/v1/jobs/{id}/model", operation_id = "getJobModel", tag = "Jobs",
    params(
        ("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("format" = Option<String>, Query,
            description = "The format: `safetensors` (unless given, and the members did not come in shards), `tar` (the same in shards), `pt`, `onnx`, `py` or `json`.", example = "onnx"),
        ("shards" = Option<usize>, Query,
            description = "In how many files of safetensors the model comes at most; unless given, in as many as the first member, or as keep them below 5 GB.",
            example = 2),
        ("normalize" = Option<bool>, Query,
            description = "Whether an ONNX model takes its inputs before the job's normalisation, which then is a part of it.", example = true),
        ("Range" = Option<String>, Header, description = "Which bytes to send.", example = "bytes=1048576-")),
    responses(SendsFile, NeedsSuccess,
        (status = 307, description = "The file is at the address in `Location`, for a quarter of an hour: where the operator has clients get models from a bucket.",
            headers(("Location", description = "A signed address of the file, which needs no key."))),
        (status = 422, description = "A parameter is not valid, or the format cannot hold the model.", body = ProblemView,
        content_type = "application/problem+json"),
        (status = 507, description = "The disk has no room for the model in another format.", body = ProblemView,
        content_type = "application/problem+json")))]
pub(super) async fn model(
    request: Addressed,
    RawQuery(query): RawQuery,
    selector: Selector,
) -> Result<Response, Problem> {
    let mut wanted = Wanted::parse(&query)?;
    if !wanted.named && in_shards(&request).await? {
        wanted.format = ExportFormat::Shards;
    }
    match wanted.format {
        ExportFormat::Safetensors => {
            let download = offered(artifact(&request, "model").await?, MODEL_FILE);
            download.respond_or_redirect(&request.state, &selector).await
        }
        ExportFormat::Architecture => send(&request, &selector, "architecture", "architecture.json").await,
        ExportFormat::Python if has(&request, SOURCE).await? => send(&request, &selector, SOURCE, SOURCE).await,
        _ => converted(&request, &selector, wanted).await,
    }
}

/// Show the fused model's digest
///
/// The answer has the format that `sha256sum -c` reads.
#[utoipa::path(get, path = "/v1/jobs/{id}/model.sha256", operation_id = "getJobModelDigest", tag = "Jobs",
    params(("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "The digest and the name of the file.", body = String, content_type = "text/plain",
            example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  fused.safetensors\n"),
        NeedsSuccess))]
pub(super) async fn model_sha256(request: Addressed) -> Result<Response, Problem> {
    let artifact = artifact(&request, "model").await?;
    Ok(format!("{}  {MODEL_FILE}\n", artifact.sha256).into_response())
}

/// Name and file of the artifact that is a network's source.
const SOURCE: &str = "model.py";

/// In which form the model is wanted.
struct Wanted {
    format: ExportFormat,
    /// Whether the client says so.
    named: bool,
    normalize: bool,
    shards: Option<NonZeroUsize>,
}

impl Wanted {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut wanted = Self { format: ExportFormat::Safetensors, named: false, normalize: false, shards: None };
        for (name, value) in pairs(query) {
            match name.as_str() {
                "format" => {
                    wanted.named = true;
                    wanted.format = ExportFormat::of_name(&value).ok_or_else(|| {
                        let known = ExportFormat::ALL.map(ExportFormat::extension).join(", ");
                        wrong_parameter("format", format!("expected one of {known}, got `{value}`"))
                    })?;
                }
                "normalize" => {
                    wanted.normalize = value
                        .parse()
                        .map_err(|_| wrong_parameter("normalize", format!("expected true or false, got `{value}`")))?;
                }
                "shards" => {
                    let shards = value.parse().ok().filter(|shards: &NonZeroUsize| shards.get() <= MAX_FILES);
                    let expected = || wrong_parameter("shards", format!("expected 1 to {MAX_FILES}, got `{value}`"));
                    wanted.shards = Some(shards.ok_or_else(expected)?);
                }
                other => return Err(unknown_parameter(other, "format, normalize and shards")),
            }
        }
        if wanted.normalize && wanted.format != ExportFormat::Onnx {
            let detail = "only an ONNX model takes its normalisation in; the source has a function for it".to_owned();
            return Err(wrong_parameter("normalize", detail));
        }
        match (wanted.shards, wanted.format) {
            (None, _) | (_, ExportFormat::Shards) => Ok(wanted),
            (_, ExportFormat::Safetensors) => Ok(Self { format: ExportFormat::Shards, named: true, ..wanted }),
            _ => Err(wrong_parameter("shards", "only files of safetensors are written in shards".to_owned())),
        }
    }
}

/// Whether all members of the job came in shards, so that its model leaves in some.
async fn in_shards(request: &Addressed) -> Result<bool, Problem> {
    let model = local(request, &artifact(request, "model").await?).await?;
    let found = tokio::task::spawn_blocking(move || came_in_shards(model.path())).await;
    found.map_err(|error| Problem::new(Code::Internal, error.to_string()))
}

/// Sends the model in a format that is made on demand.
async fn converted(
    request: &Addressed,
    selector: &Selector,
    Wanted { format, normalize, shards, .. }: Wanted,
) -> Result<Response, Problem> {
    let (state, model) = (&request.state, artifact(request, "model").await?);
    let architecture = match artifact(request, "architecture").await {
        Ok(artifact) => Some(local(request, &artifact).await?),
        Err(problem) if problem.code == Code::NotFound && format.needs_network() => {
            let detail = format!(
                "The job {} was fused without deciding which network its members are, which .{} needs.",
                request.name,
                format.extension()
            );
            return Err(Problem::new(Code::NotFound, detail));
        }
        Err(problem) if problem.code == Code::NotFound => None,
        Err(problem) => return Err(problem),
    };
    let normalization = if normalize || format == ExportFormat::Python { normalization(request).await? } else { None };
    if normalize && normalization.is_none() {
        let detail = "the job has not normalised its inputs".to_owned();
        return Err(wrong_parameter("normalize", detail));
    }
    let weights = local(request, &model).await?;
    let source = ExportSource {
        model: weights.path().to_owned(),
        bytes: model.bytes,
        sha256: model.sha256,
        architecture: architecture.as_ref().map(|architecture| architecture.path().to_owned()),
        format,
        options: ExportOptions {
            normalize: normalization,
            weights: Some(MODEL_FILE.to_owned()),
            shards,
            ..ExportOptions::default()
        },
    };
    let made = state.exports.get(source).await?;
    let download = Download {
        bytes: made.bytes,
        sha256: made.sha256.clone(),
        media_type: format.media_type().to_owned(),
        file_name: match made.packing {
            Packing::Alone => format!("{MODEL}.{}", format.extension()),
            Packing::Tar => format!("{MODEL}.tar"),
        },
        content: Content::ExportedFile(made),
    };
    download.respond(state, selector).await
}

/// What the job has normalised its inputs with, as its report says.
async fn normalization(request: &Addressed) -> Result<Option<Normalize>, Problem> {
    #[derive(serde::Deserialize)]
    struct OfReport {
        #[serde(default)]
        normalize: Option<Normalize>,
    }
    let report = local(request, &artifact(request, "report").await?).await?;
    let unread = |error: std::io::Error| Problem::new(Code::of_system(&error), "The job's report cannot be read.");
    let text = tokio::fs::read(report.path()).await.map_err(unread)?;
    let report: OfReport = serde_json::from_slice(&text).map_err(|error| unread(error.into()))?;
    Ok(report.normalize)
}

/// A local file with the bytes of an artifact.
async fn local(request: &Addressed, artifact: &Artifact) -> Result<LocalFile, Problem> {
    Ok(request.state.blobs.local(&artifact.blob_key, Some(&artifact.sha256)).await?)
}

/// Whether the job has the artifact `name`.
async fn has(request: &Addressed, name: &str) -> Result<bool, Problem> {
    match artifact(request, name).await {
        Ok(_) => Ok(true),
        Err(problem) if problem.code == Code::NotFound => Ok(false),
        Err(problem) => Err(problem),
    }
}
