//! What answers about uploaded files have in common.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use utoipa::ToSchema;

use super::refusal::offset_headers;
use crate::domain::name::FileName;
use crate::http::auth::Caller;
use crate::http::download::{Download, REPR_DIGEST, etag, repr_digest};
use crate::http::state::AppState;
use crate::store::StoreError;
use crate::store::files::{Kind, StoredFile};

/// The bytes of a file.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "stands for a body in the description; never made")]
pub struct FileBytes(Vec<u8>);

/// `ETag`, `Repr-Digest` and `Location` of a file.
#[must_use]
pub fn file_headers(kind: Kind, file: &StoredFile) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag(&file.sha256));
    headers.insert(REPR_DIGEST, repr_digest(&file.sha256));
    let location = HeaderValue::from_str(&format!("/v1/{}/{}", kind.plural(), file.id));
    headers.extend(location.ok().map(|location| (header::LOCATION, location)));
    headers
}

/// How much of a file is there: all of it, a part, or (none) nothing.
///
/// # Errors
/// When the database fails.
pub async fn presence(
    state: &AppState,
    caller: &Caller,
    kind: Kind,
    name: &str,
    complete: Option<StoredFile>,
) -> Result<Option<(StatusCode, HeaderMap)>, StoreError> {
    if let Some(file) = complete {
        let mut headers = file_headers(kind, &file);
        headers.extend(offset_headers(file.bytes, true));
        return Ok(Some((StatusCode::OK, headers)));
    }
    let Ok(name) = name.parse::<FileName>() else { return Ok(None) };
    let unfinished = state.staging.uploads().find(kind, &caller.tenant, &name).await?;
    Ok(unfinished.map(|upload| (StatusCode::NO_CONTENT, offset_headers(upload.acknowledged, false))))
}

/// A file as a download.
#[must_use]
pub fn download(file: StoredFile) -> Download {
    Download {
        blob_key: file.blob_key,
        bytes: file.bytes,
        sha256: file.sha256,
        media_type: "application/octet-stream".to_owned(),
        file_name: file.name,
    }
}
