//! What a browser asks before it lets pages of other sites use the API (CORS; Fetch Standard, section 3.3).

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::download::REPR_DIGEST;
use crate::config::Origins;

/// Seconds for which a browser need not ask again.
const REMEMBERED: Duration = Duration::from_mins(10);

/// What such a page may send beside what every page may.
const SENT: [HeaderName; 17] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::RANGE,
    header::IF_RANGE,
    REPR_DIGEST,
    HeaderName::from_static("prefer"),
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("upload-offset"),
    HeaderName::from_static("upload-complete"),
    HeaderName::from_static("upload-length"),
    HeaderName::from_static("upload-metadata"),
    HeaderName::from_static("upload-checksum"),
    HeaderName::from_static("tus-resumable"),
    HeaderName::from_static("x-request-id"),
];

/// What it may read of an answer's headers beside what every page may.
const READ: [HeaderName; 22] = [
    header::LOCATION,
    header::ETAG,
    header::RETRY_AFTER,
    header::LINK,
    header::CONTENT_DISPOSITION,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    REPR_DIGEST,
    HeaderName::from_static("preference-applied"),
    HeaderName::from_static("idempotent-replayed"),
    HeaderName::from_static("upload-offset"),
    HeaderName::from_static("upload-complete"),
    HeaderName::from_static("upload-length"),
    HeaderName::from_static("upload-metadata"),
    HeaderName::from_static("upload-expires"),
    HeaderName::from_static("tus-resumable"),
    HeaderName::from_static("tus-version"),
    HeaderName::from_static("tus-extension"),
    HeaderName::from_static("tus-max-size"),
    HeaderName::from_static("tus-checksum-algorithm"),
    header::CONTENT_LOCATION,
    HeaderName::from_static("x-request-id"),
];

/// Answers browsers for pages of `origins`; none where there are no such pages. Cookies are not theirs to send.
pub(super) fn layer(origins: &Origins) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.0.iter().filter_map(|origin| origin.parse().ok()).collect();
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    (!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods(methods)
            .allow_headers(SENT)
            .expose_headers(READ)
            .max_age(REMEMBERED)
    })
}
