//! Whether requests run on a connection, and since when none does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Version;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What a connection is doing.
#[derive(Debug, Clone, Copy)]
struct Doing {
    /// Requests whose answer is not complete.
    running: usize,
    /// When the connection or the last request ended or began.
    since: Instant,
    /// The version of the first request, once there was one.
    version: Option<Version>,
}

/// Follows the requests of one connection; clones follow the same.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<watch::Sender<Doing>>);

impl Activity {
    /// A connection that has just begun.
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Doing { running: 0, since: Instant::now(), version: None })))
    }

    /// A request begins; it runs until the guard is dropped.
    pub(super) fn begin(&self, version: Version) -> RunningRequest {
        self.0.send_modify(|doing| {
            doing.running += 1;
            doing.version.get_or_insert(version);
        });
        RunningRequest(self.clone())
    }

    /// The version of HTTP, known since the first request.
    pub(super) fn version(&self) -> Option<Version> {
        self.0.borrow().version
    }

    /// Returns once no request has run for some time: `first` before the first request, `between` later.
    pub(super) async fn idle(&self, first: Duration, between: Duration) {
        let quiet = |doing: Doing| doing.since + if doing.version.is_none() { first } else { between };
        self.until(quiet).await;
    }

    /// Returns as soon as no request runs and the time that `deadline` tells has come; it is asked again whenever something
    /// changes and when its time has come.
    pub(super) async fn silent(&self, deadline: impl Fn(Instant) -> Instant) {
        self.until(|doing| deadline(doing.since)).await;
    }

    async fn until(&self, deadline: impl Fn(Doing) -> Instant) {
        let mut changes = self.0.subscribe();
        loop {
            let doing = *changes.borrow_and_update();
            let at = (doing.running == 0).then(|| deadline(doing));
            if at.is_some_and(|at| at <= Instant::now()) {
                return;
            }
            let time = async {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = time => {}
                // This activity holds the sender, so it only ends with a change.
                _ = changes.changed() => {}
            }
        }
    }
}

/// A running request.
#[derive(Debug)]
pub(super) struct RunningRequest(Activity);

impl RunningRequest {
    /// The answer's body, with which the request ends.
    pub(super) fn answers(self, body: Body) -> Answer {
        Answer { body, _running: self }
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.0.0.send_modify(|doing| {
            doing.running -= 1;
            doing.since = Instant::now();
        });
    }
}

/// The body of an answer; the request runs as long as it is there.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    _running: RunningRequest,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const BETWEEN: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn time_without_requests_counts_from_the_end_of_the_last_one() {
        let activity = Activity::new();
        let begun = Instant::now();
        activity.idle(FIRST, BETWEEN).await;
        assert!((FIRST..BETWEEN).contains(&begun.elapsed()), "nothing was asked at all");

        let answer = activity.begin(Version::HTTP_2).answers(Body::from("x"));
        let waiting = tokio::time::timeout(BETWEEN * 2, activity.idle(FIRST, BETWEEN));
        assert!(waiting.await.is_err(), "a request runs");
        drop(answer);
        let ended = Instant::now();
        activity.idle(FIRST, BETWEEN).await;
        assert!(ended.elapsed() >= BETWEEN, "counts from the end");
    }
}
