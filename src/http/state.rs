//! What every handler can reach.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::Settings;
use crate::domain::clock::SharedClock;
use crate::lifecycle::Shutdown;
use crate::store::idempotency::Idempotency;
use crate::store::keys::{Keys, Secret};
use crate::store::{Blobs, Database};

/// The shared state; clones are cheap.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Shared>);

/// What is behind an [`AppState`].
#[derive(Debug)]
pub struct Shared {
    /// Every setting.
    pub settings: Settings,
    /// Rows.
    pub database: Database,
    /// Bytes.
    pub blobs: Blobs,
    /// API keys.
    pub keys: Keys,
    /// Answers to repeated requests.
    pub idempotency: Idempotency,
    /// The key from the environment.
    pub bootstrap: Option<Secret>,
    /// The time.
    pub clock: SharedClock,
    /// Whether the program is about to end.
    pub shutdown: Shutdown,
    /// Rings when a job was queued: a hint for workers in this process, who also poll.
    pub job_queued: Arc<Notify>,
}

impl AppState {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        settings: Settings,
        database: Database,
        blobs: Blobs,
        keys: Keys,
        bootstrap: Option<Secret>,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Self {
        let job_queued = Arc::new(Notify::new());
        let idempotency = Idempotency::new(database.clone(), clock.clone());
        Self(Arc::new(Shared { settings, database, blobs, keys, idempotency, bootstrap, clock, shutdown, job_queued }))
    }
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
