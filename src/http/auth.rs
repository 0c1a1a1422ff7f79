//! Who is asking: `Authorization: Bearer engraft_…`.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Method, header};

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
        let caller = match parts.headers.get(header::AUTHORIZATION) {
            Some(value) => identify(state, value.to_str().unwrap_or_default()).await?,
            None => anonymous(state).await?,
        };
        let needed = if matches!(parts.method, Method::GET | Method::HEAD) { Scope::Read } else { Scope::Write };
        caller.require(needed)?;
        state.pace.admit(&state.tenants, &caller.tenant).await?;
        Ok(caller)
    }
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(Code::Unauthorized, detail)
}

async fn identify(state: &AppState, header: &str) -> Result<Caller, Problem> {
    let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.ok_or_else(|| unauthorized("Expected `Authorization: Bearer engraft_…`."))?.1.trim();
    let unknown = || unauthorized("The key is unknown, revoked or expired.");
    let secret = Secret::parse(token).ok_or_else(unknown)?;
    if state.bootstrap.as_ref().is_some_and(|bootstrap| secret.matches(&bootstrap.digest())) {
        return Ok(Caller { tenant: Arc::default(), scope: Scope::Admin });
    }
    let key = state.keys.find(&secret).await?.ok_or_else(unknown)?;
    state.keys.note_use(key.id);
    Ok(Caller { tenant: Arc::new(key.tenant), scope: key.scope })
}

/// Without any key the server listens on loopback only, and whoever reaches it may do everything.
async fn anonymous(state: &AppState) -> Result<Caller, Problem> {
    let open =
        state.settings.server.listen.ip().is_loopback() && state.bootstrap.is_none() && !state.keys.any().await?;
    if open {
        Ok(Caller { tenant: Arc::default(), scope: Scope::Admin })
    } else {
        Err(unauthorized("Send `Authorization: Bearer engraft_…`; `engraft keys create` makes keys."))
    }
}
