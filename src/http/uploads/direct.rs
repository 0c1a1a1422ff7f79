//! Files that clients send to the bucket themselves, in parts, at addresses that are signed for them.

use std::time::Duration;

use axum::http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::problem::{Code, Problem};
use crate::http::listing::pairs;
use crate::http::state::AppState;
use crate::store::multipart::MultipartUploads;
use crate::store::uploads::Unfinished;

/// How long a signed address may be good: AWS allows no more.
const LONGEST: Duration = Duration::from_hours(7 * 24);

/// Where the parts of a file go.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartsView {
    /// The id of the upload.
    #[schema(example = "up_019324a5a0007f3e8d1c2b3a4f5e6d7c")]
    id: String,
    /// Bytes of each part but the last.
    #[schema(example = 16_777_216)]
    part_bytes: u64,
    /// The address of each part, to which its bytes are sent with `PUT`; the answer's `ETag` is needed at the end.
    #[schema(example = json!(["https://s3.eu-central-1.amazonaws.com/models/checkpoints/ckpt_019324a5?partNumber=1&uploadId=…"]))]
    parts: Vec<String>,
}

/// The uploads to a bucket, where a request wants to send its file there itself.
///
/// # Errors
/// `bad_request` where the server does not let it.
pub(super) fn is_wanted<'a>(state: &'a AppState, uri: &Uri) -> Result<Option<&'a MultipartUploads>, Problem> {
    let mut wanted = false;
    for (name, value) in pairs(uri.query().unwrap_or_default()) {
        match (name.as_str(), value.as_str()) {
            ("presign", "true") => wanted = true,
            ("presign", "false") => wanted = false,
            ("presign", other) => {
                let detail = format!("The parameter `presign` is `true` or `false`, got `{other}`.");
                return Err(Problem::new(Code::BadRequest, detail));
            }
            _ => {}
        }
    }
    if !wanted {
        return Ok(None);
    }
    let multipart = state.staging.multipart().filter(|_| state.settings.storage.presign.0);
    multipart.map(Some).ok_or_else(|| {
        let detail =
            "This server takes the bytes of uploads itself (it runs without `--presign on`): leave `presign` out.";
        Problem::new(Code::BadRequest, detail)
    })
}

/// Says where the parts of an upload go.
///
/// # Errors
/// When the database or the bucket fails.
pub(super) async fn offer(
    state: &AppState,
    multipart: &MultipartUploads,
    upload: &Unfinished,
) -> Result<PartsView, Problem> {
    let lifetime = state.settings.limits.upload_expiry.0.min(LONGEST);
    let total = upload.upload.total.unwrap_or_default();
    let parts = multipart.presign(&upload.upload, upload.kind, total, lifetime).await?;
    Ok(PartsView { id: upload.upload.id.to_string(), part_bytes: parts.part_bytes, parts: parts.urls })
}
