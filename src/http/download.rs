//! Files as answers: byte ranges, conditions, digests (RFC 9110 sections 8, 13 and 14; RFC 9530).

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::exports::ExportedFile;
use super::state::AppState;
use crate::domain::problem::{Code, Problem};

/// `Repr-Digest` (RFC 9530).
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// How long an address is good that was signed for a client.
const SIGNED_FOR: Duration = Duration::from_mins(15);

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In the blob of this key.
    Blob(String),
    /// In a file that was made for the answer.
    ExportedFile(Arc<ExportedFile>),
}

/// A file that is offered for download.
#[derive(Debug, Clone)]
pub struct Download {
    /// Where it is.
    pub content: Content,
    /// Its length.
    pub bytes: u64,
    /// SHA-256, in hexadecimal: the strong entity tag.
    pub sha256: String,
    /// Its media type.
    pub media_type: String,
    /// What the client may call it; of `[A-Za-z0-9._-]`.
    pub file_name: String,
}

/// What of a request decides how much of a file its answer sends.
#[derive(Debug)]
pub struct Selector {
    method: Method,
    headers: HeaderMap,
}

impl<S: Sync> FromRequestParts<S> for Selector {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self { method: parts.method.clone(), headers: parts.headers.clone() })
    }
}

/// What the request's conditions and range come down to.
#[derive(Debug, PartialEq, Eq)]
enum Selection {
    All,
    Part(Range<u64>),
    NotModified,
    Failed,
    Unsatisfiable,
}

/// The strong entity tag of a file.
#[must_use]
pub fn etag(sha256: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{sha256}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// `Repr-Digest` of a file, from its SHA-256 in hexadecimal.
#[must_use]
pub fn repr_digest(sha256: &str) -> HeaderValue {
    let digest = hex::decode(sha256).unwrap_or_default();
    HeaderValue::from_str(&format!("sha-256=:{}:", STANDARD.encode(digest))).unwrap_or(HeaderValue::from_static(""))
}

/// Whether `value`, a list of entity tags, names `sha256`.
#[must_use]
pub fn names(value: &HeaderValue, sha256: &str) -> bool {
    let tag = |text: &str| text.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    value.to_str().unwrap_or_default().split(',').map(tag).any(|tag| tag == "*" || tag == sha256)
}

impl Download {
    /// The answer to a GET or HEAD for this file.
    ///
    /// # Errors
    /// `precondition_failed`, `file_damaged`, or `internal_error` when the blob cannot be read.
    pub async fn respond(self, state: &AppState, request: &Selector) -> Result<Response, Problem> {
        let (status, range) = match self.select(&request.headers) {
            Selection::All => (StatusCode::OK, 0..self.bytes),
            Selection::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Selection::NotModified => return Ok((StatusCode::NOT_MODIFIED, self.validators()).into_response()),
            Selection::Unsatisfiable => return Ok(self.unsatisfiable()),
            Selection::Failed => {
                let detail = format!("The file's entity tag is \"{}\".", self.sha256);
                return Err(Problem::new(Code::PreconditionFailed, detail));
            }
        };
        let mut headers = self.headers();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        if status == StatusCode::PARTIAL_CONTENT {
            headers.insert(header::CONTENT_RANGE, content_range(&range, self.bytes));
        }
        let body = if request.method == Method::HEAD {
            Body::empty()
        } else {
            match self.content {
                Content::Blob(key) => {
                    state.soundness.check(&state.blobs, &key, &self.sha256).await?;
                    Body::from_stream(state.blobs.read(&key, range).await?)
                }
                Content::ExportedFile(made) => Body::from_stream(made.read(range)),
            }
        };
        Ok((status, headers, body).into_response())
    }

    /// The same, where the client gets a whole file that lies in a bucket from there, if the operator wants it so.
    ///
    /// # Errors
    /// Those of [`Download::respond`].
    pub async fn respond_or_redirect(self, state: &AppState, request: &Selector) -> Result<Response, Problem> {
        let (Content::Blob(key), Some(bucket), true) =
            (&self.content, state.blobs.bucket(), state.settings.storage.presign.0)
        else {
            return self.respond(state, request).await;
        };
        // Who asks for a part goes on with a download, and needs our entity tag for that; the bucket has another one.
        let is_whole = !request.headers.contains_key(header::RANGE) && self.select(&request.headers) == Selection::All;
        if request.method == Method::HEAD || !is_whole {
            return self.respond(state, request).await;
        }
        let disposition = format!("attachment; filename=\"{}\"", self.file_name);
        let url = bucket.presigned(key, &disposition, &self.media_type, SIGNED_FOR).await?;
        let url = HeaderValue::from_str(&url).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let headers = [(header::LOCATION, url), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response())
    }

    fn select(&self, request: &HeaderMap) -> Selection {
        if request.get(header::IF_MATCH).is_some_and(|value| !names(value, &self.sha256)) {
            return Selection::Failed;
        }
        if request.get(header::IF_NONE_MATCH).is_some_and(|value| names(value, &self.sha256)) {
            return Selection::NotModified;
        }
        if request.get(header::IF_RANGE).is_some_and(|value| *value != etag(&self.sha256)) {
            return Selection::All;
        }
        request.get(header::RANGE).and_then(|value| value.to_str().ok()).map_or(Selection::All, |text| self.part(text))
    }

    /// One range of bytes; anything else that `Range` can say is ignored, as RFC 9110 allows.
    fn part(&self, text: &str) -> Selection {
        let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
        else {
            return Selection::All;
        };
        let number = |text: &str| text.parse::<u64>().ok();
        let range = match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(self.bytes),
            (Some(first), None) if last.is_empty() => first..self.bytes,
            (None, Some(count)) if first.is_empty() => self.bytes.saturating_sub(count)..self.bytes,
            _ => return Selection::All,
        };
        if range.is_empty() { Selection::Unsatisfiable } else { Selection::Part(range) }
    }

    fn validators(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ETAG, etag(&self.sha256));
        headers.insert(REPR_DIGEST, repr_digest(&self.sha256));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = self.validators();
        let text = |text: &str| HeaderValue::from_str(text).ok();
        headers.extend(text(&self.media_type).map(|value| (header::CONTENT_TYPE, value)));
        // Pages are to be looked at where they are: they load and run nothing, and link to what lies beside them.
        let kind = if self.media_type.starts_with("text/html") { "inline" } else { "attachment" };
        let disposition = format!("{kind}; filename=\"{}\"", self.file_name);
        headers.extend(text(&disposition).map(|value| (header::CONTENT_DISPOSITION, value)));
        headers
    }

    fn unsatisfiable(&self) -> Response {
        let detail = format!("The file has {} bytes.", self.bytes);
        let whole = format!("bytes */{}", self.bytes);
        let mut response = Problem::new(Code::RangeNotSatisfiable, detail).into_response();
        response.headers_mut().extend(HeaderValue::from_str(&whole).ok().map(|value| (header::CONTENT_RANGE, value)));
        response
    }
}

fn content_range(range: &Range<u64>, bytes: u64) -> HeaderValue {
    let text = format!("bytes {}-{}/{bytes}", range.start, range.end - 1);
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("bytes */*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(headers: &[(HeaderName, &'static str)]) -> Selection {
        let file = Download {
            content: Content::Blob("k".into()),
            bytes: 10,
            sha256: "ab".into(),
            media_type: "application/octet-stream".into(),
            file_name: "f".into(),
        };
        file.select(&headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect())
    }

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        let range = |text| select(&[(header::RANGE, text)]);
        assert_eq!(range("bytes=2-4"), Selection::Part(2..5));
        assert_eq!(range("bytes=2-"), Selection::Part(2..10));
        assert_eq!(range("bytes=-3"), Selection::Part(7..10));
        assert_eq!(range("bytes=-30"), Selection::Part(0..10));
        assert_eq!(range("bytes=2-18446744073709551615"), Selection::Part(2..10));
        for unsatisfiable in ["bytes=10-", "bytes=11-12", "bytes=-0"] {
            assert_eq!(range(unsatisfiable), Selection::Unsatisfiable, "{unsatisfiable}");
        }
        for ignored in
            ["bytes=4-2", "bytes=0-1,4-5", "items=0-1", "bytes=-", "bytes=x-y", "bytes=99999999999999999999-"]
        {
            assert_eq!(range(ignored), Selection::All, "{ignored}");
        }
    }

    #[test]
    fn conditions_come_before_the_range() {
        let range = (header::RANGE, "bytes=0-1");
        assert_eq!(select(&[(header::IF_NONE_MATCH, "\"x\", \"ab\"")]), Selection::NotModified);
        assert_eq!(select(&[(header::IF_NONE_MATCH, "\"x\""), range.clone()]), Selection::Part(0..2));
        assert_eq!(select(&[(header::IF_MATCH, "\"x\"")]), Selection::Failed);
        assert_eq!(select(&[(header::IF_RANGE, "\"ab\""), range.clone()]), Selection::Part(0..2));
        assert_eq!(select(&[(header::IF_RANGE, "\"old\""), range]), Selection::All);
    }
}
