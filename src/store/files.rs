//! What checkpoints and datasets have in common: a name, bytes, their digest.

use std::collections::BTreeMap;

use sqlx::FromRow;

use super::StoreError;

/// The two kinds of files that users upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Weights of a network.
    Checkpoint,
    /// Data to train and to measure with.
    Dataset,
}

impl Kind {
    /// As in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Dataset => "dataset",
        }
    }

    /// As in paths and blob keys.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoints",
            Self::Dataset => "datasets",
        }
    }
}

/// A complete, immutable file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its id, of the form that its kind has.
    pub id: String,
    /// Its name, unique among the tenant's files of its kind.
    pub name: String,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// Its key in the blob store.
    pub blob_key: String,
    /// The user's own marks.
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
}

/// The columns of a [`StoredFile`].
#[derive(Debug, FromRow)]
pub(super) struct FileRow {
    id: String,
    name: String,
    sha256: String,
    bytes: i64,
    blob_key: String,
    labels: String,
    created_at: i64,
}

impl FileRow {
    /// Reads the row of a table of files of this kind.
    pub(super) fn parse(self, kind: Kind) -> Result<StoredFile, StoreError> {
        let wrong = |detail: String| StoreError::inconsistent(kind.plural(), self.id.clone(), detail);
        Ok(StoredFile {
            bytes: u64::try_from(self.bytes).map_err(|error| wrong(error.to_string()))?,
            labels: serde_json::from_str(&self.labels).map_err(|error| wrong(error.to_string()))?,
            id: self.id,
            name: self.name,
            sha256: self.sha256,
            blob_key: self.blob_key,
            created_at: self.created_at,
        })
    }
}

/// What came of an attempt to delete a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Done,
    /// An unfinished job reads it.
    InUse,
    /// There is none.
    Absent,
}
