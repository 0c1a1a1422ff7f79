//! `engraft completions` and `engraft man`: what shells and readers of manuals need.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// Print what a shell completes commands by.
///
/// For bash: `engraft completions bash > ~/.local/share/bash-completion/completions/engraft`.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// Which shell.
    shell: Shell,
}

impl Completions {
    /// Prints it.
    pub(super) fn run(self) -> ExitCode {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "engraft", &mut text);
        print!("{}", String::from_utf8_lossy(&text));
        ExitCode::SUCCESS
    }
}

/// Write the manual pages, one for each command.
#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// A folder for them.
    folder: PathBuf,
}

impl Man {
    /// Writes them.
    pub(super) fn run(self) -> Result<ExitCode> {
        let shown = self.folder.display();
        std::fs::create_dir_all(&self.folder).with_context(|| shown.to_string())?;
        clap_mangen::generate_to(Cli::command(), &self.folder).with_context(|| shown.to_string())?;
        println!("man -l {shown}/engraft.1");
        Ok(ExitCode::SUCCESS)
    }
}
