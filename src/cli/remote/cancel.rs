//! `engraft cancel`: ends what still runs.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use super::{ServerOptions, text};

/// End jobs or comparisons that wait or run on a server.
///
/// They stay, with their logs: `engraft rm` deletes them. What has ended already stays as it is.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Cancel {
    #[command(flatten)]
    server: ServerOptions,
    /// Ids of jobs (`job_…`) or comparisons (`cmp_…`).
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl Cancel {
    /// Ends one after another.
    pub(in crate::cli) fn run(self) -> Result<ExitCode> {
        let paths = self.ids.iter().map(|id| path(id)).collect::<Result<Vec<_>>>()?;
        self.server.run(async |server| {
            for (id, path) in self.ids.iter().zip(&paths) {
                let ended = server.post(path, &serde_json::json!({})).await.with_context(|| id.clone())?;
                println!("{id}  {}", text(&ended, "/state"));
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Where it is ended, below `/v1`.
fn path(id: &str) -> Result<String> {
    let place = if id.starts_with("cmp_") { "comparisons" } else { "jobs" };
    let known = id.starts_with("cmp_") || id.starts_with("job_");
    ensure!(known, "`{id}` is the id of no job (job_…) and of no comparison (cmp_…): `engraft ls` lists them");
    Ok(format!("{place}/{id}/cancel"))
}
