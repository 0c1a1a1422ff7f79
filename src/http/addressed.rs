//! Requests about one thing: what its path names, and who asks for it.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use super::auth::Caller;
use super::state::AppState;

/// A request about the thing that its path names.
#[derive(Debug)]
pub(super) struct Addressed {
    /// What every handler can reach.
    pub(super) state: AppState,
    /// Whose thing it has to be.
    pub(super) caller: Caller,
    /// The id or the name of the thing.
    pub(super) name: String,
}

impl FromRequestParts<AppState> for Addressed {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let caller = Caller::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        let Path(name) = Path::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        Ok(Self { state: state.clone(), caller, name })
    }
}
