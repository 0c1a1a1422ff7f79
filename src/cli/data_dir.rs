//! A server's data directory and what it keeps elsewhere, as the commands that work beside the server take it.

use std::path::{Path, PathBuf};

use crate::config;
use crate::domain::blob_location::BlobLocation;
use crate::domain::database::DatabasePlace;
use crate::store::blobs::environment;
use crate::store::{Backend, Blobs, Database, StoreError};

/// Where a server keeps everything.
#[derive(Debug, clap::Args)]
pub(super) struct DataDir {
    /// Data directory of the server.
    #[arg(
        id = "data_dir",
        long = "data-dir",
        value_name = "DATA_DIR",
        env = "ENGRAFT_DATA_DIR",
        hide_env = true,
        default_value = "engraft-data",
        global = true
    )]
    path: PathBuf,
    /// Its database, as for `serve`: `sqlite:PATH` or `postgres://user@host/database`, if not in the data directory.
    #[arg(
        long,
        env = "ENGRAFT_DATABASE",
        hide_env = true,
        default_value = "",
        hide_default_value = true,
        global = true
    )]
    database: DatabasePlace,
    /// Where its blobs are, as for `serve`: `file:DIR` or `s3://BUCKET/PREFIX`, if not below the data directory.
    #[arg(long, env = "ENGRAFT_BLOBS", hide_env = true, default_value = "", hide_default_value = true, global = true)]
    blobs: BlobLocation,
}

impl DataDir {
    /// Its folder.
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
            "{} is no data directory: it has no {}",
            self.path.display(),
            file.strip_prefix(&self.path).unwrap_or(&file).display()
        );
        Ok(())
    }

    /// The SQLite file of its database.
    ///
    /// # Errors
    /// When the database is a server's, or there is none.
    pub(super) fn database_file(&self) -> anyhow::Result<PathBuf> {
        self.check()?;
        match &self.database {
            DatabasePlace::DataDir => Ok(self.path.join("engraft.db")),
            DatabasePlace::File(path) => Ok(path.clone()),
            DatabasePlace::Server(url) => anyhow::bail!(
                "the database is a server's, {url}, which pg_dump copies: copy it first, then the files (docs/postgresql.md)"
            ),
        }
    }

    /// The folder of its blobs.
    ///
    /// # Errors
    /// Where they are in a bucket.
    pub(super) fn blob_folder(&self) -> anyhow::Result<PathBuf> {
        match &self.blobs {
            BlobLocation::DataDir => Ok(self.path.join("blobs")),
            BlobLocation::Folder(folder) => Ok(folder.clone()),
            bucket @ BlobLocation::Bucket { .. } => anyhow::bail!(
                "the blobs are in the bucket {bucket}, which its own tools copy: copy the database first (`sqlite3 engraft.db \".backup \
                 COPY\"`), then the bucket (docs/object_storage.md)"
            ),
        }
    }

    /// Its database.
    ///
    /// # Errors
    /// Those of [`Database::open_at`].
    pub(super) async fn database(&self) -> Result<Database, StoreError> {
        Database::open_at(&self.database, &self.path, &self.backend()?).await
    }

    /// Its blobs.
    ///
    /// # Errors
    /// Those of [`Blobs::of`].
    pub(super) fn blobs(&self) -> Result<Blobs, StoreError> {
        Blobs::of(&self.backend()?, &self.path, config::Storage::default().cache_size.0)
    }

    fn backend(&self) -> Result<Backend, StoreError> {
        Backend::of(&self.blobs, &self.path, &environment())
    }
}
