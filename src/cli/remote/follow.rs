//! `engraft wait` and `engraft logs`: a job as it runs.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::{ServerOptions, text};
use crate::cli::progress::ProgressDisplay;
use crate::client::Server;
use crate::domain::progress::{Phase, Progress};
use crate::process::protocol::Message;

/// A job that was cancelled.
const CANCELLED: u8 = 3;

/// Wait for a job's end.
///
/// Shows its progress. Exits with 0 where it has succeeded, 1 where it has failed, 3 where it was cancelled.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Wait {
    #[command(flatten)]
    server: ServerOptions,
    /// Its id.
    job: String,
}

impl Wait {
    /// Waits.
    pub(in crate::cli) fn run(self) -> Result<ExitCode> {
        self.server.run(async |server| to_the_end(server, &self.job).await)
    }
}

/// Waits for the end of a job, showing its progress.
pub(super) async fn to_the_end(server: &Server, id: &str) -> Result<ExitCode> {
    let mut display = ProgressDisplay::default();
    let (mut phase, mut position) = (None, 0);
    loop {
        let job = server.get_later(&format!("jobs/{id}"), 1).await?;
        match text(&job, "/state") {
            "succeeded" => {
                display.finish();
                eprintln!("{id} has succeeded: engraft pull {id}");
                return Ok(ExitCode::SUCCESS);
            }
            "failed" => {
                display.finish();
                eprintln!("{id} has failed: {}: {}", text(&job, "/error/title"), text(&job, "/error/detail"));
                return Ok(ExitCode::FAILURE);
            }
            "cancelled" => {
                display.finish();
                eprintln!("{id} was cancelled");
                return Ok(CANCELLED.into());
            }
            _ => {}
        }
        if let Some(now) = job["queue_position"].as_i64().filter(|now| *now != position) {
            position = now;
            eprintln!("{id} waits in the queue, at {now}");
        }
        let Ok(progress) = serde_json::from_value::<Progress>(job["progress"].clone()) else { continue };
        let Ok(now) = serde_json::from_value::<Phase>(job["progress"]["phase"].clone()) else { continue };
        if phase != Some(now) {
            phase = Some(now);
            display.show(&Message::Phase { phase: now });
        }
        display.show(&Message::Progress(progress));
    }
}

/// Print a job's log.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Logs {
    #[command(flatten)]
    server: ServerOptions,
    /// Its id.
    job: String,
    /// Go on until the job has ended.
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    /// Prints it.
    pub(in crate::cli) fn run(self) -> Result<ExitCode> {
        self.server.run(async |server| {
            let path = format!("jobs/{}", self.job);
            let mut after = 0;
            loop {
                // Before its lines: what it says last is then among them.
                let ended = !server.get(&path).await?["finished_at"].is_null();
                after = print(server, &path, after).await?;
                if ended || !self.follow {
                    return Ok(ExitCode::SUCCESS);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }
}

/// Prints the lines after one; the last one's position.
async fn print(server: &Server, path: &str, mut after: i64) -> Result<i64> {
    loop {
        let page = server.get(&format!("{path}/logs?after={after}")).await?;
        for line in page["data"].as_array().into_iter().flatten() {
            println!("{}  {:<7}  {}", text(line, "/at"), text(line, "/level"), text(line, "/message"));
            after = line["seq"].as_i64().unwrap_or(after);
        }
        if page["has_more"] != Value::Bool(true) {
            return Ok(after);
        }
    }
}
