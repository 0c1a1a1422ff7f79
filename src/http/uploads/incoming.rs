//! A request's body as it arrives.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::domain::problem::{Code, Problem};

/// Most that is read of a body that was refused, so that its sender gets to see the answer.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// A body that must not pause for too long, nor come too slowly.
#[derive(Debug)]
pub(super) struct Incoming {
    body: Body,
    idle: Duration,
    pace: Pace,
    /// The sender waits for `100 Continue`, which goes out when the body is first read.
    waits: bool,
}

/// Counts what comes in each window of waiting; time in which nobody waits, since the disk is behind, is not the sender's.
#[derive(Debug)]
struct Pace {
    window: Duration,
    /// Bytes that each window must bring.
    least: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn new(window: Duration, rate: u64) -> Self {
        let least = (window.as_secs_f64() * rate as f64) as u64;
        Self { window, least, waited: Duration::ZERO, bytes: 0 }
    }

    /// Takes in `bytes` that were waited for; false if the window has ended with too few.
    fn keeps(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited < self.window {
            return true;
        }
        let enough = self.bytes >= self.least;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        enough
    }
}

impl Incoming {
    /// The body of a request with these headers. `idle` is the longest pause, and the time over which at least `rate` bytes per
    /// second must come.
    pub(super) fn new(body: Body, headers: &HeaderMap, idle: Duration, rate: u64) -> Self {
        let expect = headers.get(header::EXPECT).and_then(|value| value.to_str().ok());
        let waits = expect.is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        Self { body, idle, pace: Pace::new(idle, rate), waits }
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When the sender pauses for too long, is too slow, or goes away.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Problem>> {
        self.waits = false;
        let since = Instant::now();
        loop {
            let frame = match tokio::time::timeout(self.idle, self.body.frame()).await {
                Ok(frame) => frame?,
                Err(_) => return Some(Err(self.silent())),
            };
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(bytes)) if self.pace.keeps(since.elapsed(), bytes.len()) => return Some(Ok(bytes)),
                Ok(Ok(_)) => return Some(Err(self.too_slow())),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(ended_early(&error))),
            }
        }
    }

    fn silent(&self) -> Problem {
        let idle = self.idle.as_secs_f64();
        Problem::new(
            Code::RequestTimeout,
            format!("No byte came for {idle} s. What arrived is kept: resume the upload."),
        )
    }

    fn too_slow(&self) -> Problem {
        let (least, window) = (self.pace.least, self.pace.window.as_secs_f64());
        let detail = format!("Fewer than {least} bytes came in {window} s. What arrived is kept: resume the upload.");
        Problem::new(Code::RequestTimeout, detail)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_must_bring_its_bytes_whatever_came_before() {
        let mut pace = Pace::new(Duration::from_secs(30), 1024);
        let second = Duration::from_secs(1);
        assert!(pace.keeps(second, 1 << 30));
        assert!((0..29).all(|_| pace.keeps(second, 0)), "the first window has brought enough");
        assert!((0..29).all(|_| pace.keeps(second, 1024)), "29 of the 30 s of the second");
        assert!(!pace.keeps(second, 1023), "one byte too few");
        assert!((0..30).all(|_| pace.keeps(second, 1024)), "a window counts for itself");
    }
}
