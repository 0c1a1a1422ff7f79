//! Fetches what is wanted, a few files at a time, as long as the server runs.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fetch::{Failure, fetch};
use crate::http::state::AppState;
use crate::store::StoreError;
use crate::store::imports::ToFetch;

/// Time between two looks for what is wanted.
const POLL: Duration = Duration::from_millis(500);
/// How long a file belongs to whoever fetches it, unless that is prolonged.
const LEASE: Duration = Duration::from_mins(1);
/// Time between two prolongations, each of which also tells whether the file is still wanted.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Files that are fetched at the same time.
const AT_ONCE: usize = 4;

/// Fetches until the shutdown begins; what has arrived by then is kept.
pub async fn run(state: AppState) {
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE {
            match state.imports.claim(LEASE).await {
                Ok(Some(wanted)) => {
                    running.spawn(attempt(state.clone(), wanted, stop.child_token()));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "imports could not be read; it is tried again");
                    break;
                }
            }
        }
        tokio::select! {
            () = state.shutdown.draining() => break,
            () = tokio::time::sleep(POLL) => {}
            Some(_ended) = running.join_next() => {}
        }
    }
    stop.cancel();
    while running.join_next().await.is_some() {}
}

/// How an attempt was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// The server is about to end.
    Drained,
    /// The import was deleted, or somebody else has it.
    Lost,
}

async fn attempt(state: AppState, wanted: ToFetch, stop: CancellationToken) {
    let id = wanted.id;
    tracing::info!(import = %id, source = %wanted.file.source, "fetching");
    let ended = {
        let fetching = fetch(&state, &wanted, &stop);
        tokio::pin!(fetching);
        let mut stopped = None;
        loop {
            tokio::select! {
                outcome = &mut fetching => break (outcome, stopped),
                () = stop.cancelled(), if stopped.is_none() => stopped = Some(Stopped::Drained),
                () = tokio::time::sleep(HEARTBEAT), if stopped.is_none() => match state.imports.renew(&wanted, LEASE).await {
                    Ok(true) => {}
                    Ok(false) => {
                        stopped = Some(Stopped::Lost);
                        stop.cancel();
                    }
                    Err(error) => tracing::warn!(import = %id, %error, "a lease could not be prolonged; it is tried again"),
                },
            }
        }
    };
    let written = match ended {
        // It is there, whatever was to stop it.
        (Ok(file), _) => {
            tracing::info!(import = %id, file, "fetched");
            let arrived = state.imports.succeed(&wanted, &file).await;
            state.dataset_arrived.notify_one();
            arrived
        }
        (Err(Failure { problem, again }), None) => {
            tracing::info!(import = %id, code = problem.code.as_str(), detail = problem.detail, again, "not fetched");
            state.imports.fail(&wanted, &problem, again).await
        }
        (Err(_), Some(Stopped::Drained)) => state.imports.release(&wanted).await,
        (Err(_), Some(Stopped::Lost)) => forget(&state, &wanted).await,
    };
    if let Err(error) = written {
        tracing::error!(import = %id, %error, "what became of an import could not be written; it is tried again");
    }
}

/// Removes what is here of a file that nobody wants any more.
async fn forget(state: &AppState, wanted: &ToFetch) -> Result<(), StoreError> {
    if state.imports.find(&wanted.tenant, wanted.id).await?.is_some() {
        return Ok(());
    }
    if let Some(upload) = state.staging.uploads().find(wanted.file.kind, &wanted.tenant, &wanted.file.name).await? {
        state.staging.abandon(upload.id).await?;
    }
    Ok(())
}
