//! `engraft migrate`: from one machine's file and folder to a database server and a bucket that many share.

use std::process::ExitCode;

use anyhow::Context;

use super::data_dir::DataDir;
use super::upkeep::steps_shown;
use crate::config;
use crate::domain::blob_location::BlobLocation;
use crate::domain::database::{DatabasePlace, ServerUrl};
use crate::runtime::privacy::keep_files_private;
use crate::store::blobs::environment;
use crate::store::database::transfer;
use crate::store::upkeep::Moving;
use crate::store::{Backend, Database};

const EXAMPLE: &str = "\
Stop the server and its workers, copy, and start them on the new places:

  engraft migrate --data-dir /srv/engraft --to postgres://engraft@db.example/engraft --blobs-to s3://my-bucket/engraft
  engraft serve   --data-dir /srv/engraft --database postgres://engraft@db.example/engraft --blobs s3://my-bucket/engraft

Without --blobs-to files stay where they are, without --to the database does. One that was cut goes on when it is run again. What was copied
is left as it was.";

/// Copy the database of a data directory to a PostgreSQL server, its files to a bucket or another folder, or both.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct MigrateCommand {
    #[command(flatten)]
    data_dir: DataDir,
    /// The server: `postgres://user@host/database`, whose schema is empty.
    #[arg(long, required_unless_present = "blobs_to")]
    to: Option<DatabasePlace>,
    /// A place for the files, in which nothing is: `s3://BUCKET/PREFIX` or `file:DIR`. Each is read there and compared with its digest.
    #[arg(long)]
    blobs_to: Option<BlobLocation>,
}

impl MigrateCommand {
    /// Copies the files and then every row, compares all of them, and ends with 1 where a file is missing or damaged: no row is copied then.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        keep_files_private();
        let to = match &self.to {
            None => None,
            Some(DatabasePlace::Server(url)) => Some(url),
            Some(other) => anyhow::bail!("--to must name a server, as in `postgres://user@host/database`, got {other}"),
        };
        match to {
            Some(_) => self.data_dir.database_file().map(drop)?,
            None => self.data_dir.check()?,
        }
        super::runtime()?.block_on(async {
            let from = self.data_dir.database().await.context("the database that is copied")?;
            let mut whole = true;
            if let Some(location) = &self.blobs_to {
                whole = self.move_blobs(&from, location).await?;
            }
            if let Some(url) = to.filter(|_| whole) {
                move_rows(&from, url).await?;
            }
            from.close().await;
            Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }

    /// Says whether all are there and whole.
    async fn move_blobs(&self, database: &Database, location: &BlobLocation) -> anyhow::Result<bool> {
        let data_dir = self.data_dir.path();
        let moving = Moving {
            database,
            from: &self.data_dir.blobs()?,
            to: &Backend::of(location, data_dir, &environment())?,
            data_dir,
            cache_bytes: config::Storage::default().cache_size.0,
        };
        let findings = moving.run(&mut steps_shown()).await.with_context(|| location.to_string())?;
        for finding in &findings.list {
            println!("{finding}");
        }
        if !findings.is_sound() {
            println!("nothing else was done: delete what is lost, or bring it back from a backup, and run this again");
            return Ok(false);
        }
        println!(
            "{} files, {} bytes, are at {location}, each compared with its digest; start servers and workers with --blobs",
            findings.files, findings.bytes
        );
        Ok(true)
    }
}

async fn move_rows(from: &Database, url: &ServerUrl) -> anyhow::Result<()> {
    let to = Database::open_target(url).await.with_context(|| url.to_string())?;
    let done = transfer(from, &to, &mut |copied| eprintln!("{:<20} {} rows", copied.table, copied.rows)).await;
    to.close().await;
    let rows: u64 = done?.iter().map(|table| table.rows).sum();
    println!("{rows} rows are at {url}, each the same as before; start servers and workers with --database");
    Ok(())
}
