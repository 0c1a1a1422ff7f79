//! `engraft serve`: the HTTP API with its workers.

use std::process::ExitCode;
use std::sync::Arc;

use super::run_service;
use crate::app::Application;
use crate::config::Options;
use crate::domain::clock::SystemClock;

const EXAMPLE: &str = "\
Upload members and a dataset, queue a fusion, download the fused model:

  engraft serve --data-dir /srv/engraft
  curl -T m0.safetensors http://127.0.0.1:8080/v1/checkpoints/
  curl http://127.0.0.1:8080/openapi.json

Without any API key the server listens on loopback only. Make keys with `engraft keys create`, or give one in
ENGRAFT_API_KEY. Every flag can also be set as ENGRAFT_* (--data-dir as ENGRAFT_DATA_DIR) or in the file of --config.";

/// Serve the HTTP API and work off its jobs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Serve {
    #[command(flatten)]
    options: Options,
}

impl Serve {
    /// Runs until a signal ends it.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        run_service(self.options.resolve()?, async |settings, shutdown| {
            let application = Application::build(settings, Arc::new(SystemClock), shutdown).await?;
            println!("listening on {}://{}", application.scheme(), application.address());
            application.run_until_stopped().await
        })
    }
}
