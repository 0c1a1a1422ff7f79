//! `engraft run-job`: the child process that a worker starts for each attempt.

use std::process::ExitCode;

use crate::pipeline::child;

/// Compute one job that a worker hands over on stdin; not for people.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct RunJobCommand {}

impl RunJobCommand {
    /// Computes until a last message is written.
    #[expect(clippy::unused_self, reason = "commands are run alike")]
    pub(super) fn run(self) -> ExitCode {
        child::serve()
    }
}
