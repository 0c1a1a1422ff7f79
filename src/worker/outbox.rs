//! Progress and log lines on their way to the database: gathered, so that a talkative child costs two writes a second at most.

use crate::domain::job::Fence;
use crate::domain::progress::{Level, Progress};
use crate::store::jobs::{JobError, Jobs, LogLine};

/// Lines that are kept per attempt; a child that writes more is told so in the log.
const MOST_LINES: usize = 10_000;

/// What has not been written yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    progress: Option<Progress>,
    lines: Vec<LogLine>,
    taken: usize,
}

impl Outbox {
    /// How far the job is; replaces what was said before.
    pub(super) fn progress(&mut self, progress: Progress) {
        self.progress = Some(progress);
    }

    /// A line for the log.
    pub(super) fn line(&mut self, level: Level, source: &'static str, message: String) {
        self.taken += 1;
        match self.taken.cmp(&MOST_LINES) {
            std::cmp::Ordering::Less => self.lines.push(LogLine { level, message, source }),
            std::cmp::Ordering::Equal => {
                let message = format!("this attempt has logged {MOST_LINES} lines; the rest is dropped");
                self.lines.push(LogLine { level: Level::Warning, message, source: "worker" });
            }
            std::cmp::Ordering::Greater => {}
        }
    }

    /// Writes everything.
    pub(super) async fn flush(&mut self, jobs: &Jobs, fence: Fence) -> Result<(), JobError> {
        if let Some(progress) = self.progress.take() {
            jobs.report_progress(fence, &progress).await?;
        }
        if !self.lines.is_empty() {
            jobs.log(fence, &std::mem::take(&mut self.lines)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_ends_with_a_warning() {
        let mut outbox = Outbox::default();
        for number in 0..MOST_LINES * 2 {
            outbox.line(Level::Info, "stderr", number.to_string());
        }
        assert_eq!(outbox.lines.len(), MOST_LINES);
        assert_eq!(outbox.lines.last().map(|line| line.level), Some(Level::Warning));
    }
}
