//! What a child reports on its way to the database: in order, and gathered, so that a talkative child costs two writes a second at
//! most. What cannot be written waits here until the storage has healed.

use std::collections::VecDeque;

use serde_json::json;

use super::discretion::Discretion;
use crate::domain::job::Fence;
use crate::domain::progress::{EpochMetrics, Level, Phase, Progress};
use crate::plan::Plan;
use crate::store::jobs::{JobError, Jobs, LogLine};

/// Lines that are kept per attempt; where a child writes more, the log says so.
const MOST_LINES: usize = 10_000;

/// Something to write down.
#[derive(Debug)]
enum Entry {
    Phase(Phase),
    Metrics(EpochMetrics),
    Plan(Box<Plan>),
    Progress(Progress),
    Lines(Vec<LogLine>),
}

/// What has not been written yet, in order.
#[derive(Debug)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    taken: usize,
    discretion: Discretion,
}

impl Outbox {
    /// Nothing yet.
    pub(super) fn new(discretion: Discretion) -> Self {
        Self { entries: VecDeque::new(), taken: 0, discretion }
    }

    /// A phase begins.
    pub(super) fn phase(&mut self, phase: Phase) {
        self.entries.push_back(Entry::Phase(phase));
    }

    /// An epoch has ended.
    pub(super) fn metrics(&mut self, metrics: EpochMetrics) {
        self.entries.push_back(Entry::Metrics(metrics));
    }

    /// The plan has changed.
    pub(super) fn plan(&mut self, plan: Plan) {
        self.entries.push_back(Entry::Plan(Box::new(plan)));
    }

    /// How far the job is; replaces what was said before in the same phase.
    pub(super) fn progress(&mut self, progress: Progress) {
        let since_phase = self.entries.iter_mut().rev().take_while(|entry| !matches!(entry, Entry::Phase(_)));
        let waiting = since_phase.filter_map(|entry| match entry {
            Entry::Progress(waiting) => Some(waiting),
            Entry::Phase(_) | Entry::Metrics(_) | Entry::Plan(_) | Entry::Lines(_) => None,
        });
        match waiting.last() {
            Some(waiting) => *waiting = progress,
            None => self.entries.push_back(Entry::Progress(progress)),
        }
    }

    /// A line for the log.
    pub(super) fn line(&mut self, level: Level, source: &'static str, message: String) {
        self.taken += 1;
        match self.taken.cmp(&MOST_LINES) {
            std::cmp::Ordering::Less => self.push_line(LogLine { level, message, source }),
            std::cmp::Ordering::Equal => {
                let message = format!("this attempt has logged {MOST_LINES} lines; the rest is dropped");
                self.push_line(LogLine { level: Level::Warning, message, source: "worker" });
            }
            std::cmp::Ordering::Greater => {}
        }
    }

    fn push_line(&mut self, mut line: LogLine) {
        line.message = self.discretion.text(line.message);
        if let Some(Entry::Lines(lines)) = self.entries.back_mut() {
            lines.push(line);
        } else {
            self.entries.push_back(Entry::Lines(vec![line]));
        }
    }

    /// Writes everything. What was written before a failure is not written again.
    pub(super) async fn flush(&mut self, jobs: &Jobs, fence: Fence) -> Result<(), JobError> {
        while let Some(entry) = self.entries.front() {
            match entry {
                Entry::Phase(phase) => jobs.enter_phase(fence, *phase).await?,
                Entry::Plan(plan) => jobs.replace_plan(fence, &json!(plan)).await?,
                Entry::Metrics(metrics) => jobs.add_metrics(fence, metrics).await?,
                Entry::Progress(progress) => jobs.report_progress(fence, progress).await?,
                Entry::Lines(lines) => jobs.log(fence, lines).await?,
            }
            self.entries.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_ends_with_a_warning() {
        let mut outbox = Outbox::new(Discretion::default());
        for number in 0..MOST_LINES * 2 {
            outbox.line(Level::Info, "stderr", number.to_string());
        }
        let [Entry::Lines(lines)] = outbox.entries.make_contiguous() else { panic!("lines only") };
        assert_eq!(lines.len(), MOST_LINES);
        assert_eq!(lines.last().map(|line| line.level), Some(Level::Warning));
    }

    #[test]
    fn progress_within_a_phase_is_one_entry_and_the_order_stays() {
        let mut outbox = Outbox::new(Discretion::default());
        let progress = |phase, fraction| Progress { fraction, ..Progress::at(phase) };
        outbox.progress(progress(Phase::Load, 0.5));
        outbox.line(Level::Info, "job", "a".to_owned());
        outbox.progress(progress(Phase::Load, 0.75));
        outbox.phase(Phase::Plan);
        outbox.progress(progress(Phase::Plan, 0.25));
        let entries: Vec<&Entry> = outbox.entries.iter().collect();
        let [Entry::Progress(first), Entry::Lines(_), Entry::Phase(Phase::Plan), Entry::Progress(second)] = entries[..]
        else {
            panic!("{entries:?}")
        };
        assert!(first.fraction > 0.7 && second.phase == Phase::Plan);
    }
}
