//! JSON bodies, with errors of our own.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::state::AppState;
use crate::domain::problem::{Code, Problem};

/// A body that is JSON, whatever it says.
#[derive(Debug)]
pub struct JsonBody {
    /// What it says.
    pub value: Value,
    /// How it says it.
    pub bytes: Bytes,
}

impl FromRequest<AppState> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        check_media_type(&request)?;
        let limit = state.settings.limits.max_json.0;
        let bytes = read(request.into_body(), limit, state.settings.server.body_idle_timeout.0).await?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Problem::new(Code::InvalidJson, format!("The body is not valid JSON: {error}.")))?;
        Ok(Self { value, bytes })
    }
}

/// `application/json`, or any type that ends in `+json`.
///
/// # Errors
/// `unsupported_media_type` for anything else.
pub(super) fn check_media_type(request: &Request) -> Result<(), Problem> {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let detail = format!("Expected `Content-Type: application/json` (curl: --json), got `{given}`.");
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

/// The whole body, within `limit` bytes and `patience`.
async fn read(body: Body, limit: u64, patience: Duration) -> Result<Bytes, Problem> {
    let limited = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX));
    match tokio::time::timeout(patience, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Code::TooLarge, format!("The body is larger than {limit} bytes.")))
        }
        Ok(Err(error)) => Err(Problem::new(Code::BadRequest, format!("The body ended early: {error}."))),
        Err(_) => {
            let detail = format!("The body did not arrive within {} s.", patience.as_secs_f64());
            Err(Problem::new(Code::RequestTimeout, detail))
        }
    }
}
