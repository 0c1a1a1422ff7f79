//! `/session`: signing in to the pages with a key, and out. Programs send the key itself, so it is no part of the API's description.

use axum::Json;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;

use super::auth::{Caller, UNKNOWN_KEY, holder, is_open, whoever};
use super::cookie;
use super::json::JsonBody;
use super::state::AppState;
use crate::domain::access::Scope;
use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::store::keys::Secret;

/// The routes of the session.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().route("/session", get(show).post(sign_in).delete(sign_out))
}

/// Who one is.
#[derive(Debug, Serialize)]
struct SessionView {
    /// Whether the server asks for keys.
    key_required: bool,
    /// Whose things one reaches; none for nobody.
    tenant: Option<String>,
    /// What one may do; none for nobody.
    scope: Option<Scope>,
}

impl SessionView {
    fn of(caller: &Caller, key_required: bool) -> Self {
        Self { key_required, tenant: Some(caller.tenant.to_string()), scope: Some(caller.scope) }
    }
}

/// `GET /session`: who one is, which may be nobody.
async fn show(State(state): State<AppState>, parts: Parts) -> Result<Json<SessionView>, Problem> {
    let key_required = !is_open(&state).await?;
    match whoever(&state, &parts.method, &parts.headers).await {
        Ok(caller) => Ok(Json(SessionView::of(&caller, key_required))),
        Err(problem) if problem.code == Code::Unauthorized => {
            Ok(Json(SessionView { key_required, tenant: None, scope: None }))
        }
        Err(problem) => Err(problem),
    }
}

/// `POST /session` with `{"key": "engraft_…"}`: keeps the key in a cookie.
async fn sign_in(State(state): State<AppState>, headers: HeaderMap, body: JsonBody) -> Result<Response, Problem> {
    let Some(key) = body.value.get("key").and_then(Value::as_str) else {
        let detail = "expected `{\"key\": \"engraft_…\"}`";
        return Err(Problem::faults(vec![Fault::new("/key", FaultCode::MissingField, detail)]));
    };
    let unknown = || Problem::new(Code::Unauthorized, UNKNOWN_KEY);
    let secret = Secret::parse(key.trim()).ok_or_else(unknown)?;
    let caller = holder(&state, &secret).await?.ok_or_else(unknown)?;
    state.pace.admit(&state.tenants, &caller.tenant).await?;
    let mut response = Json(SessionView::of(&caller, true)).into_response();
    let kept = cookie::keep(&secret, headers.get(header::ORIGIN));
    response.headers_mut().extend(kept.map(|value| (header::SET_COOKIE, value)));
    Ok(response)
}

/// `DELETE /session`: lets the browser forget the key, whether or not it is still good.
async fn sign_out() -> Response {
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie::forget())]).into_response()
}
