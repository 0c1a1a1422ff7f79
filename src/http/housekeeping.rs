//! What the server does beside answering: removes uploads that nobody resumes, and looks after what a crash left behind.

use std::time::Duration;

use super::state::AppState;
use crate::store::StoreError;
use crate::store::sweep::{BETWEEN_LOOKS, Sweeper};

const EVERY: Duration = Duration::from_mins(1);
/// Time between two looks for jobs whose worker is silent.
const SETTLE_EVERY: Duration = Duration::from_secs(5);

/// Queues jobs again whose worker is silent, every few seconds until the program drains: workers do so too, but none may be left.
pub async fn settle_jobs(state: AppState) {
    loop {
        tokio::select! {
            () = state.shutdown.draining() => return,
            () = tokio::time::sleep(SETTLE_EVERY) => {}
        }
        if let Err(error) = state.jobs.settle().await {
            tracing::warn!(%error, "whether workers are silent could not be seen; it is tried again");
        }
    }
}

/// Sweeps at the start and every minute until the program drains.
pub async fn run(state: AppState) {
    let mut sweeper =
        Sweeper::new(state.database.clone(), state.blobs.clone(), state.trash.clone(), state.clock.clone());
    let mut next_look = state.clock.now();
    loop {
        report("unfinished uploads have been removed", state.staging.sweep(&state.trash, &*state.clock).await);
        if let Err(error) = state.keys.write_uses().await {
            tracing::warn!(%error, "when keys were last used could not be written; it is tried again");
        }
        state.exports.forget();
        if state.clock.now() >= next_look {
            next_look += BETWEEN_LOOKS;
            report("files that no row names have gone to the trash", sweeper.look().await);
            let rules = state.settings.retention.rules();
            if rules.any() {
                report("jobs and files were removed by the rules of retention", state.retention.apply(&rules).await);
            }
            report("old deliveries of webhooks have been forgotten", state.webhooks.forget_old().await);
            report("old imports have been forgotten", state.imports.forget_old().await);
            report("the reserve", state.reserve.fill().await.map(|()| 0));
            report("days have been removed from the trash", state.trash.empty().await);
            let emptied = state.trash.empty_bucket(&state.blobs).await;
            report("objects have been removed from the bucket's trash", emptied);
        }
        tokio::select! {
            () = state.shutdown.draining() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

fn report(what: &str, outcome: Result<usize, StoreError>) {
    match outcome {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "{what}"),
        Err(error) => tracing::error!(%error, "sweeping failed; it is tried again"),
    }
}
