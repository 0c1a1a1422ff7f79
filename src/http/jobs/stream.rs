//! A job's history as server-sent events: what has happened, then what happens, to the end of the job.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response, Sse as Stream};
use futures_util::StreamExt;
use futures_util::stream::unfold;

use crate::domain::id::JobId;
use crate::http::live::{BATCH, Follower, News, rendered};
use crate::http::state::AppState;
use crate::store::StoreError;

const HEARTBEAT: Duration = Duration::from_secs(15);

struct Client {
    state: AppState,
    job: JobId,
    follower: Follower,
    /// What has been sent to all and not yet to this one.
    news: Option<Arc<News>>,
    after: i64,
    steps: u64,
    waiting: VecDeque<Sse>,
    ended: bool,
}

/// Streams the events of `job` after `after`. Stored events carry their position as id, so that a client that comes back with
/// `Last-Event-ID` misses none; the progress in between is of the moment and carries none.
pub(super) fn stream(state: &AppState, job: JobId, after: i64) -> Response {
    let (state, shutdown) = (state.clone(), state.shutdown.clone());
    let follower = state.live.follow(job);
    let client = Client { state, job, follower, news: None, after, steps: 0, waiting: VecDeque::new(), ended: false };
    let events = unfold(client, next).take_until(async move { shutdown.draining().await });
    Stream::new(events.boxed()).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}

async fn next(mut client: Client) -> Option<(Result<Sse, Infallible>, Client)> {
    loop {
        if let Some(event) = client.waiting.pop_front() {
            return Some((Ok(event), client));
        }
        if client.ended {
            return None;
        }
        let news = match client.news.take() {
            Some(news) => news,
            None => client.follower.next().await?,
        };
        if let Err(error) = client.take_in(news).await {
            // The client comes back and goes on where it was.
            tracing::debug!(job = %client.job, %error, "an event stream ends");
            return None;
        }
    }
}

impl Client {
    /// Fills `waiting` with what is new to this client; of one that is too far behind with the next events from the database.
    async fn take_in(&mut self, news: Arc<News>) -> Result<(), StoreError> {
        let Some((events, last)) = news.events_after(self.after) else {
            let events = self.state.jobs.events(self.job, self.after, BATCH).await?;
            // None are left of a job that was deleted.
            self.ended = events.is_empty();
            self.after = events.last().map_or(self.after, |event| event.seq);
            self.waiting.extend(events.into_iter().map(rendered));
            self.news = Some(news);
            return Ok(());
        };
        self.after = last;
        self.waiting.extend(events);
        let (progress, steps) = news.progress_after(self.steps);
        self.steps = steps;
        self.waiting.extend(progress);
        self.ended = news.ended;
        Ok(())
    }
}
