//! Problems as answers: RFC 9457 `application/problem+json`.
//!
//! A handler returns a [`Problem`]; its answer carries it as an extension, and [`super::frame`] writes the body, since
//! only the frame knows the request id.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::views::problem::ProblemView;
use crate::domain::problem::{Code, Problem};

/// The media type of problems.
pub const MEDIA_TYPE: &str = "application/problem+json";

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if self.code == Code::Unauthorized {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"engraft\""));
        }
        let pause = match self.code {
            Code::TooMany => Some("1"),
            Code::Unavailable | Code::ResourcesExhausted => Some("5"),
            _ => None,
        };
        if let Some(seconds) = pause {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The answer's body for `problem`.
#[must_use]
pub fn render(problem: &Problem, request_id: &str) -> Vec<u8> {
    let body = ProblemView::new(problem, Some(request_id));
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
