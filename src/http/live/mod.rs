//! Jobs that somebody follows: one reader for each of them, however many follow it. It begins with the first and ends with the
//! last, or with the job.

mod news;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::domain::id::JobId;
use crate::store::changes::Changes;
use crate::store::jobs::{JobError, Jobs};

pub use news::{News, rendered};

/// Events that are read at a time.
pub(super) const BATCH: u32 = 200;
/// Events that every follower finds without reading them.
const KEPT: usize = 128;

type Channel = watch::Sender<Option<Arc<News>>>;

/// The readers; clones share them.
#[derive(Debug, Clone)]
pub struct Live {
    jobs: Jobs,
    changes: Changes,
    tasks: TaskTracker,
    readers: Arc<Mutex<BTreeMap<JobId, Channel>>>,
}

/// Follows one job.
#[derive(Debug)]
pub struct Follower(watch::Receiver<Option<Arc<News>>>);

impl Follower {
    /// What is new since the call before, as soon as there is something; none when there never will be: the job has ended or
    /// cannot be read.
    pub async fn next(&mut self) -> Option<Arc<News>> {
        loop {
            self.0.changed().await.ok()?;
            let news = self.0.borrow_and_update().clone();
            if news.is_some() {
                return news;
            }
        }
    }
}

impl Live {
    /// Reads `jobs` when `changes` tells to, by tasks among `tasks`.
    #[must_use]
    pub fn new(jobs: Jobs, changes: Changes, tasks: TaskTracker) -> Self {
        Self { jobs, changes, tasks, readers: Arc::default() }
    }

    /// Follows `job`; what is known of it is new at first.
    #[must_use]
    pub fn follow(&self, job: JobId) -> Follower {
        let mut readers = self.readers();
        let channel = readers.entry(job).or_insert_with(|| watch::Sender::new(None));
        let mut receiver = channel.subscribe();
        receiver.mark_changed();
        // The map, and the task once there is one.
        if channel.sender_count() == 1 {
            self.tasks.spawn(self.clone().read(job, channel.clone()));
        }
        Follower(receiver)
    }

    /// Returns once the state of `job` is not the one that is `shown`, or can no longer be told.
    pub async fn leaves(&self, job: JobId, shown: &str) {
        let mut follower = self.follow(job);
        while follower.next().await.is_some_and(|news| news.state == shown) {}
    }

    fn readers(&self) -> MutexGuard<'_, BTreeMap<JobId, Channel>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(self, job: JobId, channel: Channel) {
        let mut ticks = self.changes.ticks();
        loop {
            tokio::select! {
                () = ticks.next() => {}
                () = channel.closed() => {
                    let mut readers = self.readers();
                    // Somebody may have come since.
                    if channel.receiver_count() == 0 {
                        readers.remove(&job);
                        return;
                    }
                    continue;
                }
            }
            let before = channel.borrow().clone();
            match self.look(job, before.as_deref()).await {
                Ok(None) => {}
                Ok(Some(news)) => {
                    let ended = news.ended;
                    channel.send_replace(Some(Arc::new(news)));
                    if ended {
                        break;
                    }
                }
                Err(error) => {
                    // Clients come back and go on where they were; a job that was deleted is then 404.
                    tracing::debug!(%job, %error, "a job is no longer followed");
                    break;
                }
            }
        }
        self.readers().remove(&job);
    }

    /// What is new since `before`. The state is read ahead of the events: a job that has ended by then has all of them.
    async fn look(&self, job: JobId, before: Option<&News>) -> Result<Option<News>, JobError> {
        let glimpse = self.jobs.watch(job).await?;
        let Some(before) = before else {
            let events = self.jobs.last_events(job, KEPT as u32).await?;
            return Ok(Some(News::first(glimpse, events)));
        };
        let mut news = before.with(glimpse);
        loop {
            let events = self.jobs.events(job, news.last(), BATCH).await?;
            let complete = events.len() < BATCH as usize;
            news.add(events);
            if complete {
                return Ok(news.differs(before).then_some(news));
            }
        }
    }
}
