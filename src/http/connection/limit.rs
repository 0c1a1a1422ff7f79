//! How many connections there may be at a time.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Open files that are left to everything but connections.
const OTHER_FILES: u64 = 256;
/// A request may hold a file beside its socket.
const FILES_EACH: u64 = 2;
/// Time between two log lines about the same thing.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

/// Places for connections.
#[derive(Debug)]
pub struct Connections {
    limit: usize,
    places: Arc<Semaphore>,
    refused: Tally,
}

impl Connections {
    /// Room for `wanted` connections, or for as many as this process may open files for: the soft limit on open files is
    /// raised as far as that takes.
    #[must_use]
    pub fn new(wanted: NonZero<u32>) -> Self {
        let limit = allowed(wanted.get(), files_for(wanted.get()));
        if limit < wanted.get() {
            tracing::warn!(%wanted, limit, "the limit on open files allows fewer connections than --max-connections");
        }
        let refused = Tally::new(|count| tracing::warn!(count, "connections were refused: the limit is reached"));
        let limit = limit as usize;
        Self { limit, places: Arc::new(Semaphore::new(limit)), refused }
    }

    /// The most connections.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.limit - self.places.available_permits()
    }

    /// A place, free again when it is dropped; none when all are taken, which is logged.
    pub(super) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned().ok();
        if place.is_none() {
            self.refused.count();
        }
        place
    }
}

/// Counts what may happen very often, and logs the count once a second at most.
#[derive(Debug)]
pub(super) struct Tally {
    count: Arc<AtomicU64>,
    line: fn(u64),
}

impl Tally {
    /// `line` logs how often it has happened since the line before.
    pub(super) fn new(line: fn(u64)) -> Self {
        Self { count: Arc::default(), line }
    }

    /// It has happened once more.
    pub(super) fn count(&self) {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            let (count, line) = (self.count.clone(), self.line);
            tokio::spawn(async move {
                tokio::time::sleep(BETWEEN_LINES).await;
                line(count.swap(0, Ordering::Relaxed));
            });
        }
    }
}

/// How many files this process may open once its soft limit is raised for `wanted` connections, or as far as it may.
fn files_for(wanted: u32) -> u64 {
    let needed = u64::from(wanted) * FILES_EACH + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current.filter(|current| *current < needed) else { return needed };
    let raised = maximum.map_or(needed, |most| most.min(needed));
    let outcome = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
    if outcome.is_ok() { raised } else { current }
}

/// How many of `wanted` connections so many open `files` are enough for.
fn allowed(wanted: u32, files: u64) -> u32 {
    // Where there are very few, half of them are left to the rest of the program.
    let free = files.saturating_sub(OTHER_FILES).max(files / 2);
    wanted.min(u32::try_from(free / FILES_EACH).unwrap_or(u32::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_bound_the_connections() {
        assert_eq!(allowed(4096, 4096 * 2 + 256), 4096);
        assert_eq!(allowed(4096, 1024), 384);
        assert_eq!(allowed(4096, 64), 16);
        assert_eq!(allowed(1, 0), 1);
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_its_connection_has_ended() {
        let connections = Connections::new(NonZero::<u32>::MIN);
        let place = connections.admit().expect("a place");
        assert!(connections.admit().is_none());
        assert_eq!((connections.open(), connections.limit()), (1, 1));
        drop(place);
        assert_eq!(connections.open(), 0);
        assert!(connections.admit().is_some());
    }
}
