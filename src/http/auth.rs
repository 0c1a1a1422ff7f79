//! Who is asking: `Authorization: Bearer engraft_…`, or the cookie of somebody who has signed in to the pages.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};

use super::cookie;
use super::state::AppState;
use crate::domain::access::{Scope, Tenant};
use crate::domain::problem::{Code, Problem};
use crate::store::keys::Secret;

/// Somebody who may do what the request needs: read for GET and HEAD, write for everything else.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose things the request reaches.
    pub tenant: Arc<Tenant>,
    /// What else the caller may do.
    pub scope: Scope,
    /// What is written on the caller's key, if anything: who has it.
    pub label: Option<Arc<str>>,
}

impl Caller {
    /// Refuses callers whose scope does not include `needed`.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require(&self, needed: Scope) -> Result<(), Problem> {
        if self.scope >= needed {
            return Ok(());
        }
        let detail = format!("This needs a key of scope `{needed}`; the key's scope is `{}`.", self.scope);
        Err(Problem::new(Code::Forbidden, detail))
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let caller = whoever(state, &parts.method, &parts.headers).await?;
        let needed = if matches!(parts.method, Method::GET | Method::HEAD) { Scope::Read } else { Scope::Write };
        caller.require(needed)?;
        state.pace.admit(&state.tenants, &caller.tenant).await?;
        Ok(caller)
    }
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(Code::Unauthorized, detail)
}

/// What is said of a key that is not good.
pub(super) const UNKNOWN_KEY: &str = "The key is unknown, revoked or expired.";

/// Who sends a request with these headers. A cookie whose key is not known says nothing: browsers send those of another
/// server on another port of this machine, too.
///
/// # Errors
/// `unauthorized`, or `cross_origin` where the cookie is sent by what is no page of this server.
pub(super) async fn whoever(state: &AppState, method: &Method, headers: &HeaderMap) -> Result<Caller, Problem> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        return identify(state, value.to_str().unwrap_or_default()).await;
    }
    if let Some(secret) = cookie::secret(headers)
        && let Some(caller) = holder(state, &secret).await?
    {
        cookie::check(method, headers)?;
        return Ok(caller);
    }
    anonymous(state).await
}

async fn identify(state: &AppState, header: &str) -> Result<Caller, Problem> {
    let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.ok_or_else(|| unauthorized("Expected `Authorization: Bearer engraft_…`."))?.1.trim();
    let unknown = || unauthorized(UNKNOWN_KEY);
    let secret = Secret::parse(token).ok_or_else(unknown)?;
    holder(state, &secret).await?.ok_or_else(unknown)
}

/// Who has the key `secret`; none where it is not good.
///
/// # Errors
/// When the database fails.
pub(super) async fn holder(state: &AppState, secret: &Secret) -> Result<Option<Caller>, Problem> {
    if state.bootstrap.as_ref().is_some_and(|bootstrap| secret.matches(&bootstrap.digest())) {
        return Ok(Some(Caller { tenant: Arc::default(), scope: Scope::Admin, label: None }));
    }
    let Some(key) = state.keys.find(secret).await? else { return Ok(None) };
    state.keys.note_use(key.id);
    let label = Some(key.label).filter(|label| !label.is_empty()).map(Arc::from);
    Ok(Some(Caller { tenant: Arc::new(key.tenant), scope: key.scope, label }))
}

/// Whether the server is for whoever reaches it: without any key it listens on loopback only.
///
/// # Errors
/// When the database fails.
pub(super) async fn is_open(state: &AppState) -> Result<bool, Problem> {
    Ok(state.settings.server.listen.ip().is_loopback() && state.bootstrap.is_none() && !state.keys.any().await?)
}

/// Whoever reaches an open server may do everything.
async fn anonymous(state: &AppState) -> Result<Caller, Problem> {
    if is_open(state).await? {
        Ok(Caller { tenant: Arc::default(), scope: Scope::Admin, label: None })
    } else {
        Err(unauthorized("Send `Authorization: Bearer engraft_…`; `engraft keys create` makes keys."))
    }
}
