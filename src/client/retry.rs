//! How often a request is repeated, and when.

use std::time::Duration;

use reqwest::{Response, header};

/// Tries in a row that bring nothing.
const MOST_TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The server may ask for more than that, but not for ever.
const LONGEST_ASKED: Duration = Duration::from_mins(1);

/// The pauses between tries: each twice as long as the one before.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    tries: u32,
}

impl Pauses {
    /// Whether it has been tried again in vain: a cut that the next try makes good is nobody's business.
    pub(super) fn are_in_vain(&self) -> bool {
        self.tries == 1
    }

    /// How long they are together, where nothing asks for more.
    pub(super) fn all() -> Duration {
        (1..MOST_TRIES).map(pause).sum()
    }

    /// Waits before the next try, at least as long as the server asks; `error` where there were enough of them.
    pub(crate) async fn wait<E>(&mut self, error: E, asked: Option<Duration>) -> Result<(), E> {
        self.tries += 1;
        if self.tries >= MOST_TRIES {
            return Err(error);
        }
        tokio::time::sleep(pause(self.tries).max(asked.unwrap_or_default().min(LONGEST_ASKED))).await;
        Ok(())
    }

    /// Something has come through: the count begins again.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// The pause behind this many tries.
fn pause(tries: u32) -> Duration {
    (FIRST_PAUSE * 2_u32.pow(tries - 1)).min(LONGEST_PAUSE)
}

/// What an answer says of the next try.
pub(crate) fn after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}
