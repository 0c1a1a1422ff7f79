//! `/v1/uploads`: uploads that have not ended yet, and uploads by the tus protocol 1.0.0, with its extensions `creation`,
//! `creation-with-upload`, `checksum`, `termination` and `expiration`.

mod checksum;
mod complete;
mod create;
mod metadata;
mod resume;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use jiff::fmt::rfc2822::DateTimePrinter;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::unfinished;
use crate::domain::clock::from_millis;
use crate::domain::problem::{Code, Problem};
use crate::http::state::AppState;
use crate::http::views::problem::ProblemView;

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
/// The version that is spoken.
const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,checksum,termination,expiration";
/// What a body with bytes of a file says that it is.
pub(in crate::http) const OFFSET_STREAM: &str = "application/offset+octet-stream";

/// The routes of uploads.
pub(in crate::http) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(unfinished::list, create::create, options))
        .routes(routes!(resume::head, resume::append, unfinished::delete))
        .routes(routes!(complete::complete))
        .layer(from_fn(versioned))
}

/// Says with every answer which version it is of, and refuses requests of another one.
async fn versioned(request: Request, next: Next) -> Response {
    let asked = request.headers().get(TUS_RESUMABLE);
    // What lists and deletes uploads is there for clients of no protocol, too.
    let is_tus = matches!(*request.method(), Method::POST | Method::HEAD | Method::PATCH)
        && !request.uri().path().ends_with(complete::LAST);
    let differs = asked.map_or(is_tus, |asked| *request.method() != Method::OPTIONS && asked != VERSION);
    let mut response = if differs {
        let detail =
            format!("Expected `Tus-Resumable: {VERSION}`, the version of the tus protocol that the server has.");
        let mut refused = Problem::new(Code::PreconditionFailed, detail).into_response();
        refused.headers_mut().insert(TUS_VERSION, HeaderValue::from_static(VERSION));
        refused
    } else {
        next.run(request).await
    };
    response.headers_mut().insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
    response
}

/// Show what uploads by tus can do
///
/// Version, extensions, largest file and algorithms of checksums, as headers.
#[utoipa::path(options, path = "/v1/uploads", operation_id = "describeTus", tag = "Uploads", security(()),
    responses((status = 204, description = "The headers say it.",
        headers(("Tus-Resumable", description = "The version of the protocol."), ("Tus-Version", description = "All versions."),
            ("Tus-Extension", description = "The extensions."), ("Tus-Max-Size", description = "Bytes of the largest file."),
            ("Tus-Checksum-Algorithm", description = "How parts may be checked."))),
        (status = 421, description = "The server does not answer for this host.", body = ProblemView, content_type = "application/problem+json")))]
async fn options(State(state): State<AppState>) -> (StatusCode, HeaderMap) {
    let limits = &state.settings.limits;
    let largest = limits.max_checkpoint.0.max(limits.max_dataset.0);
    let headers = HeaderMap::from_iter([
        (TUS_VERSION, HeaderValue::from_static(VERSION)),
        (TUS_EXTENSION, HeaderValue::from_static(EXTENSIONS)),
        (TUS_MAX_SIZE, HeaderValue::from(largest)),
        (TUS_CHECKSUM_ALGORITHM, HeaderValue::from_static(checksum::ALGORITHMS)),
    ]);
    (StatusCode::NO_CONTENT, headers)
}

/// `Upload-Expires`, a date as RFC 9110 has them, of milliseconds since the epoch.
fn expires(millis: i64) -> Option<(HeaderName, HeaderValue)> {
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&from_millis(millis)).ok()?;
    Some((UPLOAD_EXPIRES, HeaderValue::from_str(&date).ok()?))
}

/// A number of bytes in a header.
///
/// # Errors
/// `bad_request` where there is none.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Problem> {
    let text = headers.get(name).and_then(|value| value.to_str().ok());
    let number = text.and_then(|text| text.parse().ok()).filter(|number: &u64| i64::try_from(*number).is_ok());
    let got = text.map_or_else(|| "nothing".to_owned(), |text| format!("`{text}`"));
    number.ok_or_else(|| {
        Problem::new(Code::BadRequest, format!("Expected a number of bytes in the header {name}, got {got}."))
    })
}
