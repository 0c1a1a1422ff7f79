//! Files that the server fetches from elsewhere: they go the way of uploads, with all its limits, and what arrives of one is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;

use super::announced::Announced;
use super::incoming::Incoming;
use super::put::{Put, UploadOutcome};
use crate::domain::access::{Scope, Tenant};
use crate::domain::name::FileName;
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::store::files::Kind;

/// A file, or the rest of one, on its way.
#[derive(Debug)]
pub(in crate::http) struct Fetched {
    /// Whose it becomes.
    pub(in crate::http) tenant: Tenant,
    /// What it becomes.
    pub(in crate::http) kind: Kind,
    /// What it will be called.
    pub(in crate::http) name: FileName,
    /// Its owner's labels.
    pub(in crate::http) labels: BTreeMap<String, String>,
    /// Where in the file the body begins.
    pub(in crate::http) start: u64,
    /// Length of the body, where its host says it.
    pub(in crate::http) length: Option<u64>,
    /// SHA-256 of the whole file, where that is known.
    pub(in crate::http) sha256: Option<[u8; 32]>,
    /// The bytes.
    pub(in crate::http) body: Body,
}

/// Stores a file that comes from elsewhere.
///
/// # Errors
/// Every way in which an upload can be refused.
pub(in crate::http) async fn fetched(state: &AppState, file: Fetched) -> Result<UploadOutcome, Problem> {
    let Fetched { tenant, kind, name, labels, start, length, sha256, body } = file;
    let (limits, server) = (&state.settings.limits, &state.settings.server);
    let limit = match kind {
        Kind::Checkpoint => limits.max_checkpoint.0,
        Kind::Dataset => limits.max_dataset.0,
    };
    let total = length.map(|length| start + length);
    if let Some(bytes) = total.filter(|&bytes| bytes > limit) {
        return Err(Problem::new(Code::TooLarge, format!("The file has {bytes} bytes; the limit is {limit}.")));
    }
    let caller = Caller { tenant: Arc::new(tenant), scope: Scope::Write, label: None };
    let announced = Announced { start, length, total, sha256 };
    let mut incoming = Incoming::new(body, &HeaderMap::new(), server.body_idle_timeout.0, server.min_upload_rate.0);
    let put =
        Put { state: state.clone(), caller, kind, name, labels, announced, limit, is_indivisible: false, key: None };
    put.run(&mut incoming).await.map_err(Problem::from)
}
