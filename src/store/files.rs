//! What checkpoints and datasets have in common: a name, bytes, their digest.

use std::collections::BTreeMap;

use super::sql;
use super::{Blobs, Database, StoreError};
use crate::domain::access::Tenant;
use crate::store::sql::FromRow;

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
    /// The user's own labels.
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

/// A table of uploaded files, and the statements that are its own; clones share the database.
#[derive(Debug, Clone)]
pub(super) struct FileTable {
    pub(super) database: Database,
    pub(super) blobs: Blobs,
    /// Selects the row of the tenant ?1 whose id or name is ?2.
    pub(super) find: &'static str,
    /// Deletes that row and returns its `blob_key`.
    pub(super) delete: &'static str,
}

impl FileTable {
    /// The tenant's file with this id or name.
    pub(super) async fn find<R, T>(&self, tenant: &Tenant, id_or_name: &str) -> Result<Option<T>, StoreError>
    where
        R: sql::Row + 'static,
        T: TryFrom<R, Error = StoreError>,
    {
        let query = sql::query_as(self.find).bind(tenant.as_str()).bind(id_or_name);
        let row: Option<R> = query.fetch_optional(self.database.reader()).await?;
        row.map(T::try_from).transpose()
    }

    /// Removes a file, unless an unfinished job reads it.
    pub(super) async fn delete(&self, tenant: &Tenant, id_or_name: &str) -> Result<Deletion, StoreError> {
        let mut transaction = self.database.write().await?;
        let query = sql::query_scalar(self.delete).bind(tenant.as_str()).bind(id_or_name);
        let deleted: Result<Option<String>, sqlx::Error> = query.fetch_optional(&mut *transaction).await;
        match deleted.map_err(StoreError::from) {
            Ok(Some(blob_key)) => {
                transaction.commit().await?;
                self.blobs.delete_or_leave(&blob_key).await;
                Ok(Deletion::Done)
            }
            Ok(None) => Ok(Deletion::Absent),
            Err(error) if error.is_refused_by_trigger() => Ok(Deletion::InUse),
            Err(error) => Err(error),
        }
    }
}
