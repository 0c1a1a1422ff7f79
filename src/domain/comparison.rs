//! How far a group of jobs is that are compared: the states of its runs, and what they make of the whole.

/// Runs by the state of their jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateCounts {
    /// Wait for a worker.
    pub queued: usize,
    /// Are computed, or about to stop.
    pub running: usize,
    /// Have a result.
    pub succeeded: usize,
    /// Have none, and never will.
    pub failed: usize,
    /// Were stopped.
    pub cancelled: usize,
    /// Are gone.
    pub deleted: usize,
}

impl StateCounts {
    /// Counts `runs` more whose jobs are in this state, as it is shown; none for those whose jobs are gone.
    pub fn add(&mut self, state: Option<&str>, runs: usize) {
        let count = match state {
            None => &mut self.deleted,
            Some("queued") => &mut self.queued,
            Some("succeeded") => &mut self.succeeded,
            Some("failed") => &mut self.failed,
            Some("cancelled") => &mut self.cancelled,
            Some(_) => &mut self.running,
        };
        *count += runs;
    }

    /// All runs.
    #[must_use]
    pub fn total(&self) -> usize {
        let Self { queued, running, succeeded, failed, cancelled, deleted } = self;
        queued + running + succeeded + failed + cancelled + deleted
    }

    /// Whether no run will change any more.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.queued + self.running == 0
    }

    /// The group's state: that of a job whose parts its runs are.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self { queued, .. } if *queued == self.total() => "queued",
            counts if !counts.ended() => "running",
            Self { failed: 1.., .. } => "failed",
            Self { cancelled: 1.., .. } => "cancelled",
            _ => "succeeded",
        }
    }
}

impl FromIterator<Option<String>> for StateCounts {
    fn from_iter<T: IntoIterator<Item = Option<String>>>(states: T) -> Self {
        let mut counts = Self::default();
        states.into_iter().for_each(|state| counts.add(state.as_deref(), 1));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_as_far_as_its_slowest_run_and_as_good_as_its_worst() {
        let counts =
            |states: &[Option<&str>]| -> StateCounts { states.iter().map(|state| state.map(str::to_owned)).collect() };
        assert_eq!(counts(&[Some("queued"), Some("queued")]).state(), "queued");
        assert_eq!(counts(&[Some("queued"), Some("failed")]).state(), "running");
        assert_eq!(counts(&[Some("cancelling"), Some("succeeded")]).state(), "running");
        assert_eq!(counts(&[Some("failed"), Some("cancelled"), Some("succeeded")]).state(), "failed");
        assert_eq!(counts(&[Some("cancelled"), Some("succeeded")]).state(), "cancelled");
        assert_eq!(counts(&[None, Some("succeeded")]).state(), "succeeded");
        assert_eq!(counts(&[None, Some("succeeded")]).total(), 2);
    }
}
