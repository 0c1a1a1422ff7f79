//! A job's history as server-sent events: what has happened, then what happens, to the end of the job.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response, Sse as Stream};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use serde_json::Value;

use crate::domain::id::JobId;
use crate::http::state::AppState;
use crate::http::views::jobs::EventView;
use crate::store::jobs::{Event, JobError};

const LOOK_EVERY: Duration = Duration::from_millis(200);
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that are read at a time.
const BATCH: u32 = 200;

struct Reader {
    state: AppState,
    job: JobId,
    after: i64,
    waiting: VecDeque<Sse>,
    progress: Option<Value>,
    ended: bool,
}

/// Streams the events of `job` after `after`. Stored events carry their position as id, so that a client that comes back with
/// `Last-Event-ID` misses none; the progress in between is of the moment and carries none.
pub(super) fn stream(state: &AppState, job: JobId, after: i64) -> Response {
    let (state, shutdown) = (state.clone(), state.shutdown.clone());
    let reader = Reader { state, job, after, waiting: VecDeque::new(), progress: None, ended: false };
    let events = unfold(reader, next).take_until(async move { shutdown.draining().await });
    Stream::new(events.boxed()).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}

async fn next(mut reader: Reader) -> Option<(Result<Sse, Infallible>, Reader)> {
    loop {
        if let Some(event) = reader.waiting.pop_front() {
            return Some((Ok(event), reader));
        }
        if reader.ended {
            return None;
        }
        if let Err(error) = reader.look().await {
            // The client comes back and goes on where it was; a job that was deleted is then 404.
            tracing::debug!(job = %reader.job, %error, "an event stream ends");
            return None;
        }
        if reader.waiting.is_empty() && !reader.ended {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Reader {
    /// Fills `waiting` with what is new. The state is read before the events: a job that has ended by then has all of them.
    async fn look(&mut self) -> Result<(), JobError> {
        let glimpse = self.state.jobs.watch(self.job).await?;
        let events = self.state.jobs.events(self.job, self.after, BATCH).await?;
        self.ended = glimpse.ended && events.len() < BATCH as usize;
        self.after = events.last().map_or(self.after, |event| event.seq);
        self.waiting.extend(events.into_iter().map(stored));
        if glimpse.progress != self.progress && !glimpse.ended {
            self.progress = glimpse.progress;
            let data = self.progress.as_ref().map(Value::to_string);
            self.waiting.extend(data.map(|data| Sse::default().event("progress").data(data)));
        }
        Ok(())
    }
}

fn stored(event: Event) -> Sse {
    let sse = Sse::default().id(event.seq.to_string()).event(event.kind.as_str());
    sse.data(serde_json::json!(EventView::from(event)).to_string())
}
