//! Problems as they are shown (RFC 9457).

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::problem::{Fault, Problem};

/// Problem details: the body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemView {
    /// A URN that names the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "urn:engraft:problem:not_found")]
    kind: String,
    /// The kind of problem in words.
    #[schema(example = "Not found")]
    title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What happened, what was expected and what to do.
    #[schema(example = "There is no checkpoint `m7.safetensors`.")]
    detail: String,
    /// Stable name of the kind of problem, for programs.
    #[schema(example = "not_found")]
    code: String,
    /// The id of the request, as in the header `X-Request-Id` and in the log of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "019324a5-b7c0-7f3e-8d1c-2b3a4f5e6d7c")]
    request_id: Option<String>,
    /// Every value that is not valid, if the problem is about values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FaultView>,
}

/// One value that is not valid.
#[derive(Debug, Serialize, ToSchema)]
pub struct FaultView {
    /// JSON pointer (RFC 6901) into the body; `/query/NAME` and `/path/NAME` for parameters.
    #[schema(example = "/finetune/epochs")]
    pointer: String,
    /// The kind of fault, for programs.
    #[schema(example = "invalid_value")]
    code: String,
    /// What was expected and what was found.
    #[schema(example = "expected an integer of at least 1, got 0")]
    detail: String,
}

impl From<&Fault> for FaultView {
    fn from(fault: &Fault) -> Self {
        Self { pointer: fault.pointer.clone(), code: fault.code.as_str().to_owned(), detail: fault.detail.clone() }
    }
}

impl ProblemView {
    /// Shows `problem`, as the outcome of a request if one is named.
    #[must_use]
    pub fn new(problem: &Problem, request_id: Option<&str>) -> Self {
        Self {
            kind: format!("urn:engraft:problem:{}", problem.code.as_str()),
            title: problem.code.title().to_owned(),
            status: problem.code.status(),
            detail: problem.detail.clone(),
            code: problem.code.as_str().to_owned(),
            request_id: request_id.map(str::to_owned),
            errors: problem.errors.iter().map(FaultView::from).collect(),
        }
    }
}
