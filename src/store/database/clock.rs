//! The date by a database server: hosts that share one may differ in theirs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::domain::clock::{Clock, SharedClock, from_millis};

/// What the server has last said the time was; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct DatabaseTime(Arc<Mutex<Option<(i64, Instant)>>>);

impl DatabaseTime {
    /// The server has just said so, in milliseconds since the epoch.
    pub(super) fn note(&self, now: i64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Instant::now()));
    }

    /// A clock that goes on from there; it is `local` until the server has said anything.
    pub(super) fn clock(&self, local: SharedClock) -> SharedClock {
        Arc::new(DatabaseClock { time: self.clone(), local })
    }
}

#[derive(Debug)]
struct DatabaseClock {
    time: DatabaseTime,
    local: SharedClock,
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        match *self.time.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((millis, noted)) => {
                let since = i64::try_from(noted.elapsed().as_millis()).unwrap_or(i64::MAX);
                from_millis(millis.saturating_add(since))
            }
            None => self.local.now(),
        }
    }

    fn since_boot(&self) -> Duration {
        self.local.since_boot()
    }

    fn boot(&self) -> String {
        self.local.boot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::ManualClock;

    #[test]
    fn the_date_is_the_servers_however_far_off_the_hosts_is() {
        let local = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let time = DatabaseTime::default();
        let clock = time.clock(local.clone());
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH, "nothing is known yet");
        time.note(1_000_000);
        local.advance(Duration::from_hours(5));
        let off = clock.now().as_millisecond() - 1_000_000;
        assert!((0..60_000).contains(&off), "{off}");
    }
}
