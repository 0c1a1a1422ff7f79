//! Rows of unfinished uploads.

use std::time::Duration;

use super::files::Kind;
use super::sql;
use super::{Database, StoreError};
use crate::domain::access::Tenant;
use crate::domain::clock::SharedClock;
use crate::domain::id::UploadId;
use crate::domain::name::FileName;
use crate::store::sql::FromRow;

/// An unfinished upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Names its staging file.
    pub id: UploadId,
    /// Bytes that are on disk for certain.
    pub acknowledged: u64,
    /// Length of the whole file, where the client has said it.
    pub total: Option<u64>,
}

/// An unfinished upload as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The upload.
    pub upload: Upload,
    /// What it becomes.
    pub kind: Kind,
    /// The name that it is uploaded to.
    pub name: String,
    /// What the client has said about it, in the form of the tus protocol; none where it uses another one.
    pub metadata: Option<String>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub expires_at: i64,
}

#[derive(FromRow)]
struct UnfinishedRow {
    #[sqlx(flatten)]
    upload: UploadRow,
    kind: String,
    name: String,
    metadata: Option<String>,
    created_at: i64,
    expires_at: i64,
}

impl TryFrom<UnfinishedRow> for Unfinished {
    type Error = StoreError;

    fn try_from(row: UnfinishedRow) -> Result<Self, StoreError> {
        let UnfinishedRow { upload, kind, name, metadata, created_at, expires_at } = row;
        let kind = if kind == Kind::Checkpoint.as_str() { Kind::Checkpoint } else { Kind::Dataset };
        Ok(Self { upload: upload.try_into()?, kind, name, metadata, created_at, expires_at })
    }
}

#[derive(FromRow)]
struct UploadRow {
    id: String,
    acknowledged: i64,
    total: Option<i64>,
}

impl TryFrom<UploadRow> for Upload {
    type Error = StoreError;

    fn try_from(row: UploadRow) -> Result<Self, StoreError> {
        let wrong = |detail: String| StoreError::inconsistent("uploads", row.id.clone(), detail);
        let size = |value: i64| u64::try_from(value).map_err(|error| wrong(error.to_string()));
        Ok(Self {
            id: row.id.parse().map_err(|error| wrong(format!("{error}")))?,
            acknowledged: size(row.acknowledged)?,
            total: row.total.map(size).transpose()?,
        })
    }
}

/// The table of unfinished uploads.
#[derive(Debug, Clone)]
pub struct Uploads {
    database: Database,
    clock: SharedClock,
    expiry: Duration,
}

impl Uploads {
    /// The uploads in `database`, which can be resumed for `expiry` after their last byte.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock, expiry: Duration) -> Self {
        Self { database, clock, expiry }
    }

    /// When an upload expires that has just got bytes, in milliseconds since the epoch.
    pub(super) fn expires_at(&self) -> i64 {
        let expiry = i64::try_from(self.expiry.as_millis()).unwrap_or(i64::MAX);
        self.clock.now().as_millisecond().saturating_add(expiry)
    }

    /// The unfinished upload to this name, unless it has expired.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, kind: Kind, tenant: &Tenant, name: &FileName) -> Result<Option<Upload>, StoreError> {
        let row: Option<UploadRow> =
            sql::query_as("SELECT * FROM uploads WHERE kind = $1 AND tenant = $2 AND name = $3 AND expires_at > $4")
                .bind(kind.as_str())
                .bind(tenant.as_str())
                .bind(name.as_str())
                .bind(self.clock.now().as_millisecond())
                .fetch_optional(self.database.reader())
                .await?;
        row.map(Upload::try_from).transpose()
    }

    /// The unfinished upload to this name, made if there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_or_begin(&self, kind: Kind, tenant: &Tenant, name: &FileName) -> Result<Upload, StoreError> {
        let mut transaction = self.database.write().await?;
        let row: UploadRow = sql::query_as(
            "INSERT INTO uploads (id, kind, tenant, name, acknowledged, created_at, expires_at)
             VALUES ($1, $2, $3, $4, 0, $5, $6)
             ON CONFLICT (kind, tenant, name) DO UPDATE SET expires_at = excluded.expires_at
             RETURNING *",
        )
        .bind(UploadId::new().to_string())
        .bind(kind.as_str())
        .bind(tenant.as_str())
        .bind(name.as_str())
        .bind(self.clock.now().as_millisecond())
        .bind(self.expires_at())
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        row.try_into()
    }

    /// Begins an upload of `total` bytes to this name; none where there is one already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin(
        &self,
        kind: Kind,
        tenant: &Tenant,
        name: &FileName,
        total: u64,
        metadata: &str,
    ) -> Result<Option<Unfinished>, StoreError> {
        let mut transaction = self.database.write().await?;
        let row: Option<UnfinishedRow> = sql::query_as(
            "INSERT INTO uploads (id, kind, tenant, name, acknowledged, total, metadata, created_at, expires_at)
             VALUES ($1, $2, $3, $4, 0, $5, $6, $7, $8) ON CONFLICT (kind, tenant, name) DO NOTHING RETURNING *",
        )
        .bind(UploadId::new().to_string())
        .bind(kind.as_str())
        .bind(tenant.as_str())
        .bind(name.as_str())
        .bind(total as i64)
        .bind(metadata)
        .bind(self.clock.now().as_millisecond())
        .bind(self.expires_at())
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        row.map(Unfinished::try_from).transpose()
    }

    /// The tenant's unfinished upload `id`, unless it has expired.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn owned(&self, tenant: &Tenant, id: UploadId) -> Result<Option<Unfinished>, StoreError> {
        let row: Option<UnfinishedRow> =
            sql::query_as("SELECT * FROM uploads WHERE id = $1 AND tenant = $2 AND expires_at > $3")
                .bind(id.to_string())
                .bind(tenant.as_str())
                .bind(self.clock.now().as_millisecond())
                .fetch_optional(self.database.reader())
                .await?;
        row.map(Unfinished::try_from).transpose()
    }

    /// The unfinished upload `id`, if it is still there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, id: UploadId) -> Result<Option<Upload>, StoreError> {
        let row: Option<UploadRow> = sql::query_as("SELECT * FROM uploads WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(self.database.reader())
            .await?;
        row.map(Upload::try_from).transpose()
    }

    /// Notes that `acknowledged` bytes are on disk, and the total length.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn acknowledge(&self, id: UploadId, acknowledged: u64, total: Option<u64>) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        sql::query("UPDATE uploads SET acknowledged = $1, total = $2, expires_at = $3 WHERE id = $4")
            .bind(acknowledged as i64)
            .bind(total.map(|total| total as i64))
            .bind(self.expires_at())
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    /// Forgets what an upload has in a bucket, and with it what was acknowledged; false where it has nothing there. A server without a
    /// bucket has begun to serve its database.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn forget_parts(&self, id: UploadId) -> Result<bool, StoreError> {
        let is_there = sql::query_scalar("SELECT EXISTS (SELECT 1 FROM multipart_uploads WHERE upload_id = $1)")
            .bind(id.to_string())
            .fetch_one(self.database.reader());
        if !is_there.await? {
            return Ok(false);
        }
        let mut transaction = self.database.write().await?;
        for statement in [
            "DELETE FROM upload_parts WHERE upload_id = $1",
            "DELETE FROM multipart_uploads WHERE upload_id = $1",
            "UPDATE uploads SET acknowledged = 0 WHERE id = $1",
        ] {
            sql::query(statement).bind(id.to_string()).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Forgets an upload.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove(&self, id: UploadId) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        sql::query("DELETE FROM uploads WHERE id = $1").bind(id.to_string()).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// The tenant's unfinished uploads, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, tenant: &Tenant) -> Result<Vec<Unfinished>, StoreError> {
        let rows: Vec<UnfinishedRow> = sql::query_as("SELECT * FROM uploads WHERE tenant = $1 ORDER BY id")
            .bind(tenant.as_str())
            .fetch_all(self.database.reader())
            .await?;
        rows.into_iter().map(Unfinished::try_from).collect()
    }

    /// Uploads that can no longer be resumed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expired(&self) -> Result<Vec<UploadId>, StoreError> {
        let ids: Vec<String> = sql::query_scalar("SELECT id FROM uploads WHERE expires_at <= $1")
            .bind(self.clock.now().as_millisecond())
            .fetch_all(self.database.reader())
            .await?;
        let parse = |id: String| id.parse().map_err(|error| StoreError::inconsistent("uploads", id.clone(), error));
        ids.into_iter().map(parse).collect()
    }
}
