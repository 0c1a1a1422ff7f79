//! `engraft rm`: deletes what a server has.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::{ServerOptions, advised};

/// Delete jobs, checkpoints, datasets, comparisons or unfinished uploads on a server.
///
/// Jobs have to have ended: `engraft cancel` ends them. Files that an unfinished job reads stay.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Rm {
    #[command(flatten)]
    server: ServerOptions,
    /// Ids, or names as in `checkpoints/m0.safetensors` and `datasets/mnist.tar`.
    #[arg(required = true)]
    what: Vec<String>,
}

impl Rm {
    /// Deletes one after another.
    pub(in crate::cli) fn run(self) -> Result<ExitCode> {
        let paths = self.what.iter().map(|what| path(what)).collect::<Result<Vec<_>>>()?;
        self.server.run(async |server| {
            for path in &paths {
                let id = path.rsplit('/').next().unwrap_or_default();
                server.delete(path).await.map_err(|error| advised(error, id)).with_context(|| path.clone())?;
                println!("{path}");
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Where it is below `/v1`.
fn path(what: &str) -> Result<String> {
    let kinds = [
        ("job_", "jobs"),
        ("ckpt_", "checkpoints"),
        ("data_", "datasets"),
        ("cmp_", "comparisons"),
        ("up_", "uploads"),
    ];
    if let Some((_, place)) = kinds.iter().find(|(prefix, _)| what.starts_with(prefix)) {
        return Ok(format!("{place}/{what}"));
    }
    match what.split_once('/') {
        Some((place @ ("checkpoints" | "datasets"), name)) if !name.is_empty() => Ok(format!("{place}/{name}")),
        _ => bail!("`{what}` is no id; names are given as checkpoints/{what} or datasets/{what}"),
    }
}
