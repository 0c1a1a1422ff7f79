//! Time is passed in, so that tests decide what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// Where the time comes from.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// The present moment, with millisecond resolution (what the database stores).
    fn now(&self) -> Timestamp;

    /// Time since the machine was started, times of sleep included: whoever sets the date does not change it.
    fn since_boot(&self) -> Duration;

    /// Which start of the machine that was; all processes on it agree.
    fn boot(&self) -> String;
}

/// A point of time that setting the date does not move, the same for all processes on a machine. Later starts of the machine have
/// later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SteadyTime(i64);

impl SteadyTime {
    /// As it is stored.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// As it is stored.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// The point a `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` on; none where that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// The present, for people and for measuring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The date: what is shown.
    pub date: Timestamp,
    /// What leases and running times are counted by.
    pub steady: SteadyTime,
}

/// A clock to hand around.
pub type SharedClock = Arc<dyn Clock>;

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the real time")]
        let now = Timestamp::now();
        from_millis(now.as_millisecond())
    }

    fn since_boot(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let part = |value: i64| u64::try_from(value).unwrap_or(0);
        Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
    }

    fn boot(&self) -> String {
        // A machine that does not say counts as started once: its leases lapse by their time.
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
    }
}

/// A clock that only moves by hand.
#[derive(Debug)]
pub struct ManualClock {
    date: AtomicI64,
    since_boot: AtomicI64,
    boots: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at `start`, on a machine that was started then.
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        Self { date: AtomicI64::new(start.as_millisecond()), since_boot: AtomicI64::new(0), boots: AtomicI64::new(0) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.date.fetch_add(millis, Ordering::SeqCst);
        self.since_boot.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the date forward, or back, without any time passing.
    pub fn set_date_by(&self, millis: i64) {
        self.date.fetch_add(millis, Ordering::SeqCst);
    }

    /// Starts the machine anew, without any time passing.
    pub fn reboot(&self) {
        self.since_boot.store(0, Ordering::SeqCst);
        self.boots.fetch_add(1, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        from_millis(self.date.load(Ordering::SeqCst))
    }

    fn since_boot(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.since_boot.load(Ordering::SeqCst)).unwrap_or(0))
    }

    fn boot(&self) -> String {
        self.boots.load(Ordering::SeqCst).to_string()
    }
}

/// Milliseconds since the epoch, as stored, to a timestamp; values out of range become the epoch.
#[must_use]
pub fn from_millis(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}
