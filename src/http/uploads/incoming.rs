//! A request's body as it arrives.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::domain::problem::{Code, Problem};

/// Most that is read of a body that was refused, so that its sender gets to see the answer.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// A body that must not pause for too long.
#[derive(Debug)]
pub(super) struct Incoming {
    body: Body,
    idle: Duration,
    /// The sender waits for `100 Continue`, which goes out when the body is first read.
    waits: bool,
}

impl Incoming {
    /// The body of a request with these headers.
    pub(super) fn new(body: Body, headers: &HeaderMap, idle: Duration) -> Self {
        let expect = headers.get(header::EXPECT).and_then(|value| value.to_str().ok());
        let waits = expect.is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        Self { body, idle, waits }
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When the sender pauses for too long or goes away.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Problem>> {
        self.waits = false;
        loop {
            let frame = match tokio::time::timeout(self.idle, self.body.frame()).await {
                Ok(frame) => frame?,
                Err(_) => return Some(Err(self.too_slow())),
            };
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(bytes)) => return Some(Ok(bytes)),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(ended_early(&error))),
            }
        }
    }

    fn too_slow(&self) -> Problem {
        let idle = self.idle.as_secs_f64();
        Problem::new(
            Code::RequestTimeout,
            format!("No byte came for {idle} s. What arrived is kept: resume the upload."),
        )
    }

    /// Goes on reading for a while after the answer is decided: a connection that is closed on unread bytes would take
    /// the answer with it. A sender that waits for permission to send needs none of this.
    pub(super) fn drain(mut self) {
        if self.waits {
            return;
        }
        tokio::spawn(async move {
            let drained = async {
                let mut left = DRAIN_BYTES;
                while let Some(Ok(bytes)) = self.next().await {
                    left = left.saturating_sub(bytes.len());
                    if left == 0 {
                        return;
                    }
                }
            };
            // Whether the body ended or the time did, the connection is done with.
            let _ = tokio::time::timeout(DRAIN_TIME, drained).await;
        });
    }
}

fn ended_early(error: &axum::Error) -> Problem {
    let detail = format!("The body ended early ({error}). What arrived is kept: resume the upload.");
    Problem::new(Code::BadRequest, detail)
}
