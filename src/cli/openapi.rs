//! `engraft openapi`: prints the API's description.

use std::process::ExitCode;

/// Print the OpenAPI 3.1 description of the HTTP API, as YAML.
#[derive(Debug, clap::Args)]
pub(super) struct OpenApi {}

impl OpenApi {
    /// Prints it.
    #[expect(clippy::unused_self, reason = "every command runs the same way")]
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        print!("{}", crate::http::document().to_yaml()?);
        Ok(ExitCode::SUCCESS)
    }
}
