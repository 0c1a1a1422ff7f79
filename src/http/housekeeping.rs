//! What the server does beside answering: removes uploads that nobody resumes, and what a crash left behind.

use std::time::Duration;

use super::state::AppState;

const EVERY: Duration = Duration::from_mins(1);

/// Sweeps at the start and every minute until the program drains.
pub async fn run(state: AppState) {
    match state.publisher.sweep().await {
        Ok(0) => {}
        Ok(blobs) => tracing::info!(blobs, "removed files of uploads that were never finished"),
        Err(error) => tracing::error!(%error, "sweeping blobs failed"),
    }
    loop {
        match state.staging.sweep().await {
            Ok(0) => {}
            Ok(uploads) => tracing::info!(uploads, "removed expired uploads"),
            Err(error) => tracing::error!(%error, "sweeping uploads failed"),
        }
        tokio::select! {
            () = state.shutdown.draining() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
