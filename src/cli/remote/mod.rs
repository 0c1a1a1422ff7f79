//! The commands that use a server over HTTP: `push`, `import`, `submit`, `wait`, `logs`, `pull`, `ls`, `cancel`, `rm`.

mod bars;
mod cancel;
mod follow;
mod import;
mod ls;
mod publish;
mod pull;
mod push;
mod rm;
mod submit;

use std::process::ExitCode;

use anyhow::{Result, anyhow};

use crate::cli::interrupt::say;
use crate::client::{ClientError, Server};
use crate::domain::problem::Code;

pub(super) use cancel::Cancel;
pub(super) use follow::{Logs, Wait};
pub(super) use import::Import;
pub(super) use ls::Ls;
pub(super) use pull::Pull;
pub(super) use push::Push;
pub(super) use rm::Rm;
pub(super) use submit::Submit;

/// Which server.
#[derive(Debug, clap::Args)]
struct ServerOptions {
    /// Address of the server.
    #[arg(long, env = "ENGRAFT_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// The API key, where the server asks for one.
    #[arg(long, env = "ENGRAFT_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
}

impl ServerOptions {
    /// Runs a command against it.
    fn run(self, command: impl AsyncFnOnce(&Server) -> Result<ExitCode>) -> Result<ExitCode> {
        super::runtime()?.block_on(async {
            let server = Server::new(&self.url, self.api_key)?.with_notices(say);
            command(&server).await
        })
    }
}

/// Why a server did not do what was asked about `id`, with the command that helps where the server names a request.
fn advised(error: ClientError, id: &str) -> anyhow::Error {
    let ClientError::Refused { problem, .. } = &error else { return error.into() };
    let (title, code) = (problem.code.title(), problem.code);
    match code {
        Code::JobNotFinished => anyhow!("{title}: `engraft wait {id}` waits for it"),
        Code::JobActive => anyhow!("{title}: `engraft cancel {id}` ends it, `engraft wait {id}` waits for its end"),
        _ => error.into(),
    }
}

/// A text of an answer.
fn text<'a>(value: &'a serde_json::Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default()
}
