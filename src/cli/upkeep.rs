//! `engraft verify`, `backup`, `restore` and `gc`: looking after a data directory, also while a server runs on it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::data_dir::DataDir;
use crate::config::RetentionOptions;
use crate::domain::clock::SystemClock;
use crate::runtime::privacy::keep_files_private;
use crate::store::Database;
use crate::store::upkeep::{self, Copied, Retention, Verifier};

/// How often a command that goes on says how far it is.
const INTERVAL: Duration = Duration::from_secs(10);

/// Compare every file of a data directory with what the database says of it.
///
/// Prints a line for each file that is missing, damaged, or named by no row, and ends with 1 where anything is missing or damaged. A
/// server may run on the data directory. docs/storage.md says what to do about each finding.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyCommand {
    #[command(flatten)]
    data_dir: DataDir,
    /// Compare lengths only, without reading the files.
    #[arg(long)]
    quick: bool,
}

impl VerifyCommand {
    /// Prints what it finds to stdout, progress to stderr.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        keep_files_private();
        super::runtime()?.block_on(async {
            let database = open(&self.data_dir).await?;
            let blobs = self.data_dir.blobs()?;
            let verifier = Verifier { database: &database, blobs: &blobs, digests: !self.quick };
            let mut shown = steps_shown();
            let findings = verifier.run(&mut |done, all| shown("compared", done, all)).await?;
            database.close().await;
            for finding in &findings.list {
                println!("{finding}");
            }
            let sound = findings.is_sound();
            let verdict = if sound { "everything is there and whole" } else { "something is missing or damaged" };
            println!("{} files looked at, {} bytes read: {verdict}", findings.files, findings.bytes);
            Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}

/// Copy a data directory as it is at one moment, while a server may run on it.
///
/// Files are linked where the copy lies on the same file system, which takes no room and no time; they never change. The copy holds
/// everything but unfinished uploads, is a data directory itself, and appears under its name once it is whole.
#[derive(Debug, clap::Args)]
pub(super) struct BackupCommand {
    /// Folder to make; it must not exist.
    to: PathBuf,
    #[command(flatten)]
    data_dir: DataDir,
    /// Copy files also where they could be linked: damage to the one then leaves the other whole.
    #[arg(long)]
    copies: bool,
}

impl BackupCommand {
    /// Makes the backup.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        keep_files_private();
        super::runtime()?.block_on(async {
            let (database, blobs) = (self.data_dir.database_file()?, self.data_dir.blob_folder()?);
            let copied = upkeep::backup(&database, &blobs, &self.to, self.copies).await?;
            println!("{}: {}", self.to.display(), summary(copied));
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Make a data directory of a backup.
#[derive(Debug, clap::Args)]
pub(super) struct RestoreCommand {
    /// The backup.
    from: PathBuf,
    /// Data directory to make; it must be absent or empty.
    #[arg(long, env = "ENGRAFT_DATA_DIR", hide_env = true, default_value = "engraft-data")]
    data_dir: PathBuf,
}

impl RestoreCommand {
    /// Makes the data directory.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        keep_files_private();
        super::runtime()?.block_on(async {
            check(&self.from)?;
            let copied = upkeep::restore(&self.from, &self.data_dir).await?;
            println!("{}: {}", self.data_dir.display(), summary(copied));
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Delete what is no longer kept: ended jobs, and files that no job reads.
///
/// The server does the same every hour by its own settings of these names. Pinned jobs and files stay (`PUT /v1/pins/ID`).
#[derive(Debug, clap::Args)]
pub(super) struct GcCommand {
    #[command(flatten)]
    data_dir: DataDir,
    /// List what would go, and delete nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    retention: RetentionOptions,
}

impl GcCommand {
    /// Lists what goes, and deletes it.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        keep_files_private();
        let rules = self.retention.resolve().rules();
        anyhow::ensure!(
            rules.any(),
            "there is no rule: give at least one of --retain-jobs-for, --retain-jobs, --retain-files-for and --retain-bytes"
        );
        super::runtime()?.block_on(async {
            let database = open(&self.data_dir).await?;
            let blobs = self.data_dir.blobs()?;
            let retention = Retention::new(database.clone(), blobs, database.clock(Arc::new(SystemClock)));
            let doomed = retention.plan(&rules).await?;
            for one in &doomed {
                let name = if one.name.is_empty() { String::new() } else { format!(" {}", one.name) };
                println!(
                    "{:<10} {} {:>14} bytes  tenant {}{name}: {}",
                    one.kind,
                    one.id,
                    one.bytes,
                    one.tenant.as_str(),
                    one.why
                );
            }
            let bytes: u64 = doomed.iter().map(|one| one.bytes).sum();
            if self.dry_run {
                println!("{} would go, {bytes} bytes", doomed.len());
            } else {
                println!("{} deleted of {}, {bytes} bytes", retention.apply(&rules).await?, doomed.len());
            }
            database.close().await;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Says to stderr, every so often, what is done with how many of all files.
pub(super) fn steps_shown() -> impl FnMut(&str, usize, usize) {
    let mut shown = Instant::now();
    move |what, done, all| {
        if shown.elapsed() >= INTERVAL {
            shown = Instant::now();
            eprintln!("{done} of {all} files {what}");
        }
    }
}

/// Checks that a folder holds a database.
fn check(folder: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        folder.join("engraft.db").metadata().is_ok_and(|file| file.len() > 0),
        "{} is no data directory: it has no engraft.db",
        folder.display()
    );
    Ok(())
}

async fn open(data_dir: &DataDir) -> anyhow::Result<Database> {
    data_dir.check()?;
    data_dir.database().await.with_context(|| format!("data directory {}", data_dir.path().display()))
}

fn summary(copied: Copied) -> String {
    let Copied { files, bytes, linked } = copied;
    format!("the database and {files} files, {bytes} bytes, {linked} of them linked")
}
