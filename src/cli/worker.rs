//! `engraft worker`: the job workers without the HTTP API.

use std::process::ExitCode;
use std::sync::Arc;

use super::run_service;
use crate::app;
use crate::config::WorkerOptions;
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
}

impl WorkerCommand {
    /// Runs until a signal ends it.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        run_service(self.options.resolve()?, async |settings, shutdown| {
            app::work(settings, Arc::new(SystemClock), shutdown).await
        })
    }
}
