//! A server's data directory, as the commands that work beside the server take it.

use std::path::{Path, PathBuf};

use crate::config;
use crate::domain::blob_location::BlobLocation;
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
    /// Where its blobs are, as for `serve`: `file:DIR` or `s3://BUCKET/PREFIX`, if not below the data directory.
    #[arg(long, env = "ENGRAFT_BLOBS", hide_env = true, default_value = "", hide_default_value = true, global = true)]
    blobs: config::Blobs,
}

impl DataDir {
    /// Its folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of its blobs.
    ///
    /// # Errors
    /// Where they are in a bucket.
    pub(super) fn blob_folder(&self) -> anyhow::Result<PathBuf> {
        match &self.blobs.0 {
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
    /// Those of [`Database::open_beside`].
    pub(super) async fn database(&self) -> Result<Database, StoreError> {
        Database::open_beside(&self.path, &self.backend()?).await
    }

    /// Its blobs.
    ///
    /// # Errors
    /// Those of [`Blobs::of`].
    pub(super) fn blobs(&self) -> Result<Blobs, StoreError> {
        Blobs::of(&self.backend()?, &self.path, config::Storage::default().cache_size.0)
    }

    fn backend(&self) -> Result<Backend, StoreError> {
        Backend::of(&self.blobs.0, &self.path, &environment())
    }
}
