//! Where a server's state is, for commands that look after it.

use std::path::{Path, PathBuf};

use crate::domain::database::DatabasePlace;
use crate::store::{Blobs, Database, StoreError};

/// The server's data directory, and what it keeps elsewhere.
#[derive(Debug, clap::Args)]
pub(super) struct DataDir {
    /// Data directory of the server.
    #[arg(long = "data-dir", env = "ENGRAFT_DATA_DIR", hide_env = true, default_value = "engraft-data", global = true)]
    path: PathBuf,
    /// Database of the server, where that is not in its data directory: `sqlite:PATH` or `postgres://user@host/database`.
    #[arg(
        long,
        env = "ENGRAFT_DATABASE",
        hide_env = true,
        default_value = "",
        hide_default_value = true,
        global = true
    )]
    database: DatabasePlace,
}

impl DataDir {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that a server has used it: a command that made one of its own would find nothing there.
    ///
    /// # Errors
    /// When there is no database.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let file = match &self.database {
            DatabasePlace::DataDir => self.path.join("engraft.db"),
            DatabasePlace::File(path) => path.clone(),
            DatabasePlace::Server(_) => return Ok(()),
        };
        anyhow::ensure!(
            file.metadata().is_ok_and(|file| file.len() > 0),
            "{} is no data directory: {} is missing",
            self.path.display(),
            file.display()
        );
        Ok(())
    }

    /// Checks that the database is a file.
    ///
    /// # Errors
    /// When it is a server's.
    pub(super) fn check_is_file(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !matches!(self.database, DatabasePlace::Server(_)),
            "the database is a server's ({}): copy it with pg_dump, and the files with your tools for them (docs/postgresql.md)",
            self.database
        );
        self.check()
    }

    /// The database.
    ///
    /// # Errors
    /// As [`Database::open_at`].
    pub(super) async fn database(&self) -> Result<Database, StoreError> {
        Database::open_at(&self.database, &self.path).await
    }

    /// The files.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub(super) fn blobs(&self) -> Result<Blobs, StoreError> {
        Blobs::open(&self.path)
    }
}
