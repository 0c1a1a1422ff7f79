//! What is kept, and for how long.

use std::time::Duration;

/// What is kept; a rule that is absent keeps everything. Pinned things are always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// How long a job is kept after its end, with its results.
    pub jobs_for: Option<Duration>,
    /// Ended jobs of each tenant that are kept, the latest.
    pub jobs: Option<u64>,
    /// How long a checkpoint or dataset is kept that no job reads, from its upload on.
    pub files_for: Option<Duration>,
    /// Bytes of each tenant that are kept: the oldest ended jobs go first, then the oldest files that no job reads.
    pub bytes: Option<u64>,
}

impl Rules {
    /// Whether there is any rule.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}
