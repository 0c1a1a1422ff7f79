//! The pages that a browser shows: files of this program, which ask the API for everything that they show.

mod files;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};
use utoipa_axum::router::OpenApiRouter;

use super::download::{etag, names};
use super::state::AppState;
use crate::domain::problem::{Code, Problem};
use files::{FILES, INDEX, PageFile};

/// What a page may load: files of this server. Pictures of datasets are part of the API's answers, as `data:` URLs; nothing in
/// a page can be a script or a style.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

/// What a report may do, which is one file with its own style: nothing else.
const REPORT_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");

/// The routes of the pages. They are no part of the API and its description.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .route("/", get(index))
        .route("/docs", get(|| async { Redirect::to("/#/docs") }))
        .route("/page/{file}", get(file))
}

async fn index(request: HeaderMap) -> Response {
    answer(&INDEX, &request)
}

async fn file(Path(name): Path<String>, request: HeaderMap) -> Result<Response, Problem> {
    let file = FILES.iter().find(|file| file.name == name);
    let file = file.ok_or_else(|| Problem::new(Code::NotFound, "The pages have no such file; they begin at /."))?;
    Ok(answer(file, &request))
}

/// The file, or that the browser has it already: browsers ask each time, so that no page is of another version than the server.
fn answer(file: &PageFile, request: &HeaderMap) -> Response {
    let sha256 = hex::encode(Sha256::digest(file.text));
    let headers = [(header::ETAG, etag(&sha256)), (header::CONTENT_SECURITY_POLICY, POLICY)];
    if request.get(header::IF_NONE_MATCH).is_some_and(|value| names(value, &sha256)) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let media_type = [(header::CONTENT_TYPE, file.media_type())];
    (headers, media_type, file.text).into_response()
}

/// Lets a browser show an answer that is a report, where it would save it or leave its style out.
#[must_use]
pub(super) fn shown(mut report: Response) -> Response {
    let headers = report.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, REPORT_POLICY);
    headers.remove(header::CONTENT_DISPOSITION);
    report
}
