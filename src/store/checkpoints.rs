//! Uploaded checkpoints.

use super::files::{Deletion, FileRow, FileTable, Kind, StoredFile};
use super::listing::Listing;
use super::sql;
use super::{Blobs, Database, StoreError};
use crate::domain::access::Tenant;
use crate::domain::id::CheckpointId;
use crate::model::header::CheckpointHeader;
use crate::store::sql::FromRow;

/// A checkpoint: its file and what that says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// Its id.
    pub id: CheckpointId,
    /// Its file.
    pub file: StoredFile,
    /// Its tensors.
    pub header: CheckpointHeader,
}

#[derive(FromRow)]
struct CheckpointRow {
    #[sqlx(flatten)]
    file: FileRow,
    header: String,
}

impl TryFrom<CheckpointRow> for StoredCheckpoint {
    type Error = StoreError;

    fn try_from(row: CheckpointRow) -> Result<Self, StoreError> {
        let file = row.file.parse(Kind::Checkpoint)?;
        let wrong = |detail: String| StoreError::inconsistent("checkpoints", file.id.clone(), detail);
        Ok(Self {
            id: file.id.parse().map_err(|error| wrong(format!("{error}")))?,
            header: serde_json::from_str(&row.header).map_err(|error| wrong(error.to_string()))?,
            file,
        })
    }
}

/// The table of checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    table: FileTable,
}

impl Checkpoints {
    /// The checkpoints in `database`, whose bytes are in `blobs`.
    #[must_use]
    pub fn new(database: Database, blobs: Blobs) -> Self {
        let table = FileTable {
            database,
            blobs,
            find: "SELECT * FROM checkpoints WHERE tenant = $1 AND (id = $2 OR name = $2)",
            delete: "DELETE FROM checkpoints WHERE tenant = $1 AND (id = $2 OR name = $2) RETURNING blob_key",
        };
        Self { table }
    }

    /// The tenant's checkpoint with this id or name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, tenant: &Tenant, id_or_name: &str) -> Result<Option<StoredCheckpoint>, StoreError> {
        self.table.find::<CheckpointRow, _>(tenant, id_or_name).await
    }

    /// One page of the tenant's checkpoints, and one row more if there are more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, tenant: &Tenant, listing: &Listing) -> Result<Vec<StoredCheckpoint>, StoreError> {
        let rows: Vec<CheckpointRow> = sql::query_as(sql::each(
            "SELECT * FROM checkpoints AS entry
             WHERE tenant = $1 AND ($2 IS NULL OR id < $2) AND NOT EXISTS (
                 SELECT 1 FROM json_each($3) AS wanted WHERE NOT EXISTS (
                     SELECT 1 FROM json_each(entry.labels) AS label
                     WHERE label.key = wanted.key AND label.value = wanted.value))
             ORDER BY id DESC LIMIT $4",
            "SELECT * FROM checkpoints WHERE tenant = $1 AND ($2 IS NULL OR id < $2) AND labels::jsonb @> $3::jsonb
             ORDER BY id DESC LIMIT $4",
        ))
        .bind(tenant.as_str())
        .bind(&listing.after)
        .bind(listing.labels_json())
        .bind(listing.fetch())
        .fetch_all(self.table.database.reader())
        .await?;
        rows.into_iter().map(StoredCheckpoint::try_from).collect()
    }

    /// Removes a checkpoint, unless an unfinished job reads it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete(&self, tenant: &Tenant, id_or_name: &str) -> Result<Deletion, StoreError> {
        self.table.delete(tenant, id_or_name).await
    }
}
