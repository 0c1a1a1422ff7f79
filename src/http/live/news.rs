//! What all who follow a job get to know at the same time.

use std::collections::VecDeque;

use axum::response::sse::Event as Sse;
use serde_json::Value;

use super::KEPT;
use crate::http::views::jobs::EventView;
use crate::store::jobs::{Event, Glimpse};

/// A job as it was at one moment, and the last of its events, ready to be sent.
#[derive(Debug, Clone)]
pub struct News {
    /// The state's name, as it is shown.
    pub state: String,
    /// Whether the job never changes again.
    pub ended: bool,
    progress: Option<Value>,
    /// The progress as it is sent.
    shown: Option<Sse>,
    /// How often the progress has been another.
    steps: u64,
    /// By position, without a gap.
    recent: VecDeque<(i64, Sse)>,
}

impl News {
    /// The first of a job, whose last `events` these are.
    pub(super) fn first(glimpse: Glimpse, events: Vec<Event>) -> Self {
        let Glimpse { state, ended, progress } = glimpse;
        let (shown, steps) = (progress.as_ref().map(rendered_progress), u64::from(progress.is_some()));
        let mut news = Self { state, ended, progress, shown, steps, recent: VecDeque::new() };
        news.add(events);
        news
    }

    /// These, with what a later glimpse shows.
    pub(super) fn with(&self, glimpse: Glimpse) -> Self {
        let Glimpse { state, ended, progress } = glimpse;
        let other = progress != self.progress;
        let shown = if other { progress.as_ref().map(rendered_progress) } else { self.shown.clone() };
        Self { state, ended, progress, shown, steps: self.steps + u64::from(other), recent: self.recent.clone() }
    }

    /// Takes up the events that follow; the oldest make room.
    pub(super) fn add(&mut self, events: Vec<Event>) {
        self.recent.extend(events.into_iter().map(|event| (event.seq, rendered(event))));
        self.recent.drain(..self.recent.len().saturating_sub(KEPT));
    }

    /// The position of the last event; 0 where there is none.
    pub(super) fn last(&self) -> i64 {
        self.recent.back().map_or(0, |(seq, _)| *seq)
    }

    /// Whether they tell anything that `before` did not.
    pub(super) fn differs(&self, before: &Self) -> bool {
        let told = |news: &Self| (news.last(), news.steps, news.ended);
        told(self) != told(before) || self.state != before.state
    }

    /// The events behind the position `after`, with the position of the last; none when some of them are no longer here.
    #[must_use]
    pub fn events_after(&self, after: i64) -> Option<(Vec<Sse>, i64)> {
        let gap = self.recent.front().is_some_and(|(first, _)| after + 1 < *first);
        let new = self.recent.iter().filter(|(seq, _)| *seq > after);
        (!gap).then(|| (new.map(|(_, event)| event.clone()).collect(), after.max(self.last())))
    }

    /// The progress of a job that has not ended, if it is another than after `seen` steps, and the steps with it.
    #[must_use]
    pub fn progress_after(&self, seen: u64) -> (Option<Sse>, u64) {
        (self.shown.clone().filter(|_| !self.ended && self.steps > seen), self.steps)
    }
}

/// An event as it is sent, with its position as id.
pub fn rendered(event: Event) -> Sse {
    let sse = Sse::default().id(event.seq.to_string()).event(event.kind.as_str());
    sse.data(serde_json::json!(EventView::from(event)).to_string())
}

fn rendered_progress(progress: &Value) -> Sse {
    Sse::default().event("progress").data(progress.to_string())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::store::jobs::EventKind;

    fn events(positions: std::ops::RangeInclusive<i64>) -> Vec<Event> {
        let event = |seq| Event { seq, at: Timestamp::UNIX_EPOCH, kind: EventKind::Log, attempt: 1, data: Value::Null };
        positions.map(event).collect()
    }

    fn glimpse(state: &str, progress: Option<i64>) -> Glimpse {
        Glimpse { state: state.to_owned(), ended: false, progress: progress.map(Value::from) }
    }

    #[test]
    fn whoever_is_too_far_behind_is_told_so() {
        let mut news = News::first(glimpse("running", None), events(1..=3));
        assert_eq!(news.events_after(0).map(|(new, last)| (new.len(), last)), Some((3, 3)));
        assert_eq!(news.events_after(2).map(|(new, last)| (new.len(), last)), Some((1, 3)));
        assert_eq!(news.events_after(9).map(|(new, last)| (new.len(), last)), Some((0, 9)), "a client that is ahead");
        let many = KEPT as i64 + 2;
        news.add(events(4..=many));
        assert_eq!(news.last(), many);
        assert!(news.events_after(1).is_none());
        assert_eq!(news.events_after(2).map(|(new, last)| (new.len(), last)), Some((KEPT, many)));
    }

    #[test]
    fn progress_is_told_once_and_only_when_it_is_another() {
        let first = News::first(glimpse("running", Some(1)), Vec::new());
        let (progress, seen) = first.progress_after(0);
        assert!(progress.is_some() && first.progress_after(seen).0.is_none());
        let same = first.with(glimpse("running", Some(1)));
        assert!(!same.differs(&first));
        let other = first.with(glimpse("running", Some(2)));
        assert!(other.differs(&first) && other.progress_after(seen).0.is_some());
        assert!(first.with(glimpse("cancelling", Some(1))).differs(&first));
    }
}
