//! Files that the server makes of others: they go the way of uploads, with all its limits, but nothing of a failed one is kept.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::HeaderMap;

use super::announced::Announced;
use super::incoming::Incoming;
use super::put::{Put, UploadOutcome};
use crate::domain::name::FileName;
use crate::domain::problem::{Code, Problem};
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::store::files::Kind;
use crate::store::idempotency::RequestKey;

/// A file that is being made.
#[derive(Debug)]
pub(in crate::http) struct Assembled {
    /// What it will be called.
    pub(in crate::http) name: FileName,
    /// Its owner's labels.
    pub(in crate::http) labels: BTreeMap<String, String>,
    /// Its length.
    pub(in crate::http) bytes: u64,
    /// Its bytes.
    pub(in crate::http) body: Body,
    /// The key of the request that makes it, if it has one.
    pub(in crate::http) key: Option<RequestKey>,
}

/// Stores a checkpoint of the caller's. It runs in a task of its own, so that it ends whatever becomes of the client.
///
/// # Errors
/// Every way in which an upload can be refused; and where one to its name is unfinished.
pub(in crate::http) async fn assembled(
    state: &AppState,
    caller: &Caller,
    file: Assembled,
) -> Result<UploadOutcome, Problem> {
    let limit = state.settings.limits.max_checkpoint.0;
    let Assembled { name, labels, bytes, body, key } = file;
    if bytes > limit {
        return Err(Problem::new(Code::TooLarge, format!("The file would have {bytes} bytes; the limit is {limit}.")));
    }
    if let Some(upload) = state.staging.uploads().find(Kind::Checkpoint, &caller.tenant, &name).await? {
        let detail = format!("An upload to `{name}` is unfinished: finish it, or DELETE /v1/uploads/{}.", upload.id);
        return Err(Problem::new(Code::UploadInProgress, detail));
    }
    let mut incoming = Incoming::new(body, &HeaderMap::new(), state.settings.server.body_idle_timeout.0, 0);
    let announced = Announced { start: 0, length: Some(bytes), total: Some(bytes), sha256: None };
    let (state, caller) = (state.clone(), caller.clone());
    let tasks = state.tasks.clone();
    let task = tasks.spawn(async move {
        let put =
            Put { state, caller, kind: Kind::Checkpoint, name, labels, announced, limit, is_indivisible: false, key };
        match put.run(&mut incoming).await.map_err(Problem::from) {
            Ok(outcome) => Ok(outcome),
            Err(problem) if problem.code == Code::UploadInProgress => Err(problem),
            Err(problem) => {
                forget(&put).await;
                Err(without_rest(problem))
            }
        }
    });
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "putting a checkpoint together failed");
        Err(Problem::new(
            Code::Internal,
            "It could not be put together; the log has the details under this request id.",
        ))
    })
}

/// Removes what there is of the file. Where that fails it stays behind, until it expires.
async fn forget(put: &Put) {
    let staging = &put.state.staging;
    let gone = match staging.uploads().find(Kind::Checkpoint, &put.caller.tenant, &put.name).await {
        Ok(Some(upload)) => staging.abandon(upload.id).await.map(|_| ()),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = gone {
        tracing::warn!(name = %put.name, %error, "the part of a checkpoint that was put together stays until it expires");
    }
}

/// A problem that speaks of no upload that could be resumed.
fn without_rest(problem: Problem) -> Problem {
    let detail = match problem.code {
        Code::DiskFull => {
            "The server's disk has no room for this checkpoint. Nothing of it is kept: try again when there is space."
        }
        Code::StorageFailed | Code::ResourcesExhausted | Code::BadRequest | Code::RequestTimeout => {
            "The server could not read the shards or write the checkpoint; the log has the details. Nothing of it is kept: try again."
        }
        _ => return problem,
    };
    let code = if matches!(problem.code, Code::BadRequest | Code::RequestTimeout) {
        Code::StorageFailed
    } else {
        problem.code
    };
    Problem { code, detail: detail.to_owned(), ..problem }
}
