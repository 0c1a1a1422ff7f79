//! Problems as answers: RFC 9457 `application/problem+json`.
//!
//! A handler returns a [`Problem`]; its answer carries it as an extension, and [`super::frame`] writes the body, since
//! only the frame knows the request id.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::domain::problem::{Code, Fault, Problem};

/// The media type of problems.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The body of every answer that is an error.
#[derive(Debug, Serialize)]
pub struct ProblemBody<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: Code,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if self.code == Code::Unauthorized {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"engraft\""));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The answer's body for `problem`.
#[must_use]
pub fn render(problem: &Problem, request_id: &str) -> Vec<u8> {
    let body = ProblemBody {
        kind: format!("urn:engraft:problem:{}", problem.code.as_str()),
        title: problem.code.title(),
        status: problem.code.status(),
        detail: &problem.detail,
        code: problem.code,
        request_id,
        errors: &problem.errors,
    };
    serde_json::to_vec(&body).unwrap_or_default()
}

/// The problem behind an error that a library answered with a bare status.
#[must_use]
pub fn from_status(status: StatusCode, method: &str, path: &str) -> Problem {
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => {
            (Code::NotFound, format!("There is nothing at {path}; /openapi.json lists every path."))
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            (Code::MethodNotAllowed, format!("{path} has no method {method}; the header Allow lists those it has."))
        }
        StatusCode::PAYLOAD_TOO_LARGE => (Code::TooLarge, "The body is larger than the server takes.".to_owned()),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (Code::UnsupportedMediaType, "Send `Content-Type: application/json`.".to_owned())
        }
        StatusCode::REQUEST_TIMEOUT => (Code::RequestTimeout, "The request did not arrive in time.".to_owned()),
        status if status.is_client_error() => (Code::BadRequest, format!("The request cannot be read ({status}).")),
        _ => (Code::Internal, "The server failed; the log has the details under this request id.".to_owned()),
    };
    Problem::new(code, detail)
}
