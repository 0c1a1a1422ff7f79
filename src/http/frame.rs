//! What is around every request: its id, its log line, problem bodies and the headers that all answers have.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

use super::problem;
use super::state::AppState;
use crate::domain::problem::{Code, Problem};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_ID: usize = 128;
/// From here on an answer is slow; a client that waits by request is, too.
const SLOW: Duration = Duration::from_secs(1);

/// The id of a request, for handlers that want to name it.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// The outermost layer.
pub async fn frame(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = tracing::info_span!("request", %id, %method, path);
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let code = write_problem(&mut response, &id, &method, &path);
    add_headers(&mut response, &id);
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    state.metrics.request(route, known(&method), status, code, elapsed.as_secs_f64());
    span.in_scope(|| log(&method, status, elapsed));
    response
}

/// Logs an answer by how much it matters: what has failed here as a warning, what was refused, has changed something or was slow as
/// information, and what polling clients read again and again for debugging only.
fn log(method: &Method, status: u16, elapsed: Duration) {
    let milliseconds = elapsed.as_millis() as u64;
    let only_reads = matches!(*method, Method::GET | Method::HEAD);
    match status {
        500.. => tracing::warn!(status, milliseconds, "answered"),
        ..400 if only_reads && elapsed < SLOW => tracing::debug!(status, milliseconds, "answered"),
        _ => tracing::info!(status, milliseconds, "answered"),
    }
}

/// Clients can invent methods; the figures must not grow with them.
fn known(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "PUT" | "POST" | "DELETE" | "OPTIONS" | "PATCH") => known,
        _ => "other",
    }
}

/// Takes the client's id over if it is printable and short, else makes one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    let usable = |id: &&str| (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(usable).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Gives every error the body of a problem, also those that the router or a library made, and tells its code.
fn write_problem(response: &mut Response, id: &str, method: &Method, path: &str) -> Option<Code> {
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if status.is_client_error() || status.is_server_error() => {
            problem::from_status(status, method.as_str(), path)
        }
        None => return None,
    };
    let body = problem::render(&problem, id);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
    Some(problem.code)
}

fn add_headers(response: &mut Response, id: &str) {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
}
