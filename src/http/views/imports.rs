//! Imports as they are shown.

use serde::Serialize;
use utoipa::ToSchema;

use super::problem::ProblemView;
use super::time;
use crate::store::imports::{Import, ImportState};

/// A file that the server fetches from elsewhere.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImportView {
    /// Its id.
    #[schema(example = "imp_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    id: String,
    /// What it becomes: `checkpoint` or `dataset`.
    #[schema(value_type = String, example = "checkpoint")]
    kind: &'static str,
    /// What it will be called.
    #[schema(example = "m0.safetensors")]
    name: String,
    /// Where it is.
    #[schema(example = "hf://timm/resnet18.a1_in1k@main/model.safetensors")]
    from: String,
    /// The SHA-256 that it must have.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    sha256: Option<String>,
    /// `waiting`, `running`, `succeeded` or `failed`.
    #[schema(value_type = String, example = "running")]
    state: &'static str,
    /// Bytes that are here, while it is being fetched.
    #[schema(example = 1_048_576)]
    bytes: Option<u64>,
    /// Bytes of the whole file, as far as its host says.
    #[schema(example = 46_807_446)]
    total: Option<u64>,
    /// The id of the checkpoint or dataset that it has become.
    #[schema(example = "ckpt_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    file: Option<String>,
    /// Why it failed, or why it has to be tried again.
    error: Option<ProblemView>,
    /// When it is tried next.
    #[schema(example = "2026-01-31T12:00:15.000Z", format = DateTime)]
    next_attempt_at: Option<String>,
    /// When it was asked for.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    created_at: String,
    /// When it ended.
    #[schema(example = "2026-01-31T12:01:00.000Z", format = DateTime)]
    finished_at: Option<String>,
}

impl From<Import> for ImportView {
    fn from(import: Import) -> Self {
        let (state, file, problem, next) = match import.state {
            ImportState::Waiting { next, problem } => ("waiting", None, problem, Some(next)),
            ImportState::Running => ("running", None, None, None),
            ImportState::Succeeded { file } => ("succeeded", Some(file), None, None),
            ImportState::Failed(problem) => ("failed", None, Some(problem), None),
        };
        Self {
            id: import.id.to_string(),
            kind: import.kind.as_str(),
            name: import.name,
            from: import.source,
            sha256: import.sha256,
            state,
            bytes: import.progress.map(|(bytes, _)| bytes),
            total: import.progress.and_then(|(_, total)| total),
            file,
            error: problem.as_ref().map(|problem| ProblemView::new(problem, None)),
            next_attempt_at: next.map(|next| time(next.as_millisecond())),
            created_at: time(import.created.as_millisecond()),
            finished_at: import.finished.map(|finished| time(finished.as_millisecond())),
        }
    }
}
