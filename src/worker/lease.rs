//! Keeps a job's lease alive beside whatever else the supervisor does.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::domain::job::Fence;
use crate::store::jobs::{JobError, Jobs};

/// How soon a request to end the job is seen.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// What the latest renewal has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Go on, until then at most.
    Held {
        /// When the job's time is up.
        deadline: Instant,
    },
    /// The job's end has been requested.
    Cancelling,
    /// The job has moved on, or the database has not answered for as long as the lease.
    Lost,
}

/// A lease that is renewed until dropped.
#[derive(Debug)]
pub(super) struct Lease {
    standing: watch::Receiver<Standing>,
    renewing: JoinHandle<()>,
}

impl Lease {
    /// Renews the lease of `fence` every `every`, at once for the first time, and as soon as the job's end has been requested.
    pub(super) fn keep(jobs: Jobs, fence: Fence, lease: Duration, every: Duration) -> Self {
        let far = Instant::now() + Duration::from_hours(24 * 365);
        let (sender, standing) = watch::channel(Standing::Held { deadline: far });
        let renewing = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut answered = Instant::now();
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = cancelling(&jobs, fence), if !is_cancelling(&sender) => {}
                }
                let Some(standing) = renew(&jobs, fence, lease, &mut answered).await else { continue };
                sender.send_replace(standing);
                if standing == Standing::Lost {
                    return;
                }
            }
        });
        Self { standing, renewing }
    }

    /// Waits until the lease is lost.
    pub(super) async fn lost(&mut self) {
        // The sender only ends after it has said so.
        let _lost = self.standing.wait_for(|standing| *standing == Standing::Lost).await;
    }

    /// The next news.
    pub(super) async fn changed(&mut self) -> Standing {
        // The sender only ends after it has said that the lease is lost.
        match self.standing.changed().await {
            Ok(()) => *self.standing.borrow_and_update(),
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

fn is_cancelling(sender: &watch::Sender<Standing>) -> bool {
    *sender.borrow() == Standing::Cancelling
}

/// Waits until the job's end has been requested. A database that does not answer is a matter of the renewals.
async fn cancelling(jobs: &Jobs, fence: Fence) {
    loop {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        if jobs.is_cancelling(fence).await.unwrap_or(false) {
            return;
        }
    }
}

/// Renews once; `None` when the database failed and the lease is still good.
async fn renew(jobs: &Jobs, fence: Fence, lease: Duration, answered: &mut Instant) -> Option<Standing> {
    let sent = Instant::now();
    let Ok(renewed) = tokio::time::timeout_at(*answered + lease, jobs.renew(fence, lease)).await else {
        tracing::warn!(%fence, "the database has not answered for the time of the lease, which is lost");
        return Some(Standing::Lost);
    };
    match renewed {
        Ok(heartbeat) => {
            *answered = sent;
            let deadline = sent + heartbeat.time_left;
            Some(if heartbeat.cancel_requested { Standing::Cancelling } else { Standing::Held { deadline } })
        }
        Err(JobError::Store(error)) if answered.elapsed() < lease => {
            tracing::warn!(%fence, %error, "the lease could not be renewed; trying again");
            None
        }
        Err(error) => {
            tracing::warn!(%fence, %error, "the lease is lost");
            Some(Standing::Lost)
        }
    }
}
