//! How the program ends: softly on the first signal, hard on the second or when draining takes too long.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Ends every part of the program; clones share the message.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Shutdown {
    /// No end has been requested yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests to finish what runs and to begin nothing new.
    pub fn drain(&self) {
        self.soft.cancel();
    }

    /// Requests to stop at once.
    pub fn stop(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Whether nothing new may begin.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Ends when nothing new may begin any more.
    pub async fn draining(&self) {
        self.soft.cancelled().await;
    }

    /// Ends when everything must stop.
    pub async fn stopping(&self) {
        self.hard.cancelled().await;
    }
}

/// Turns SIGTERM and SIGINT into a shutdown: the first drains, a second one, or `patience` after the first, stops.
///
/// # Errors
/// When the signals cannot be listened to.
pub fn listen_for_signals(shutdown: Shutdown, patience: Duration) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let name = tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        tracing::info!(signal = name, "draining: finishing what runs, beginning nothing new");
        shutdown.drain();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = tokio::time::sleep(patience) => tracing::warn!("draining took too long; stopping now"),
        }
        shutdown.stop();
    });
    Ok(())
}
/// What `work` makes, which takes a while and waits for no other task.
///
/// # Errors
/// When it panics, or the program ends before it does.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await?)
}
