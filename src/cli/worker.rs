//! `engraft worker`: the job workers without the HTTP API.

use std::process::ExitCode;
use std::sync::Arc;

use super::run_service;
use crate::app;
use crate::config::{Age, WorkerOptions};
use crate::domain::clock::SystemClock;

const EXAMPLE: &str = "\
Let one process serve and others compute, on the same data directory and machine:

  engraft serve  --data-dir /srv/engraft --workers 0
  engraft worker --data-dir /srv/engraft --workers 2 --device cpu

A worker that receives SIGTERM stops its jobs at their last checkpoint and gives them back; one that vanishes
loses them to another worker after the time of --lease. `curl .../v1/workers` lists the workers.";

/// Work off the jobs of a server's data directory.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct WorkerCommand {
    #[command(flatten)]
    options: WorkerOptions,
    /// End after one job: what an autoscaler starts.
    #[arg(long)]
    once: bool,
    /// End when no job was there for so long, as in `5m`; a job that runs is finished first.
    #[arg(long, env = "ENGRAFT_IDLE_EXIT", hide_env = true, default_value = "ever")]
    idle_exit: Age,
}

impl WorkerCommand {
    /// Runs until a signal ends it, or its stint is over.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let stint = app::Stint { once: self.once, idle: self.idle_exit.0 };
        run_service(self.options.resolve()?, async |settings, shutdown| {
            app::work(settings, stint, Arc::new(SystemClock), shutdown).await
        })
    }
}
