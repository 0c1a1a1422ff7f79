//! `engraft inspect-dataset`: what the server runs on every uploaded dataset. Hidden: `engraft` users have the API for it.

use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::data::{Limits, inspect};
use crate::domain::problem::Problem;

/// Read a dataset through and print what is in it, as JSON: `{"Ok": facts}` or `{"Err": problem}`.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct InspectDataset {
    /// Bytes of memory after which the process is to end; file mappings do not count.
    #[arg(long)]
    memory: u64,
    /// Largest file that it may write, in bytes.
    #[arg(long)]
    disk: u64,
    /// The file.
    file: PathBuf,
}

impl InspectDataset {
    /// Prints what it found; fails only where the dataset is not to blame.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        for (resource, most) in [(Resource::Data, self.memory), (Resource::Fsize, self.disk)] {
            setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
        }
        let outcome = inspect(&self.file, &Limits::default()).map_err(Problem::from);
        println!("{}", serde_json::to_string(&outcome)?);
        Ok(ExitCode::SUCCESS)
    }
}
