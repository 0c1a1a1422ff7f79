//! `engraft migrate`: from the file of one machine to a database server that many share.

use std::process::ExitCode;

use anyhow::Context;

use super::data_dir::DataDir;
use crate::domain::database::DatabasePlace;
use crate::runtime::privacy::keep_files_private;
use crate::store::Database;
use crate::store::database::transfer;

const EXAMPLE: &str = "\
Stop the server and its workers, copy, and start them on the new database:

  engraft migrate --data-dir /srv/engraft --to postgres://engraft@db.example/engraft
  engraft serve   --data-dir /srv/engraft --database postgres://engraft@db.example/engraft

Files stay where they are. One that was cut goes on when it is run again. The old database is left as it was.";

/// Copy the database of a data directory to a PostgreSQL server.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct MigrateCommand {
    #[command(flatten)]
    data_dir: DataDir,
    /// The server: `postgres://user@host/database`, whose schema is empty.
    #[arg(long)]
    to: DatabasePlace,
}

impl MigrateCommand {
    /// Copies every row, compares all of them in the end, and prints a line for each table.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        keep_files_private();
        let DatabasePlace::Server(url) = &self.to else {
            anyhow::bail!("--to must name a server, as in `postgres://user@host/database`, got {}", self.to)
        };
        self.data_dir.database_file()?;
        super::runtime()?.block_on(async {
            let from = self.data_dir.database().await.context("the database that is copied")?;
            let to = Database::open_target(url).await.with_context(|| url.to_string())?;
            let done = transfer(&from, &to, &mut |copied| eprintln!("{:<20} {} rows", copied.table, copied.rows)).await;
            to.close().await;
            from.close().await;
            let rows: u64 = done?.iter().map(|table| table.rows).sum();
            println!("{rows} rows are at {url}, each the same as before; start servers and workers with --database");
            Ok(ExitCode::SUCCESS)
        })
    }
}
