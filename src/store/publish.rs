//! Turns a complete upload into a checkpoint or a dataset: first the bytes, then one transaction for the rows. Until that is
//! written the bytes are the upload's as well, so that whatever fails it can go on from its last byte. A crash between the
//! two leaves a blob that no row names, which [`super::sweep`] finds; never a row without its blob.

use std::collections::BTreeMap;

use super::files::{FileRow, Kind, StoredFile};
use super::idempotency::{self, Earlier, RequestKey};
use super::intake::Complete;
use super::sql;
use super::staging::Staging;
use super::{Blobs, Database, StoreError, tenants};
use crate::domain::access::Tenant;
use crate::domain::clock::SharedClock;
use crate::domain::id::{CheckpointId, DatasetId, UploadId};
use crate::domain::name::FileName;
use crate::domain::problem::{Code, Problem};
use crate::domain::quota::{Quota, TenantResource};

/// What came of publishing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// A new file.
    New(StoredFile),
    /// The name is taken; by the same bytes if the digests are equal.
    Taken(StoredFile),
    /// The tenant has as much as it may have; the upload is still there.
    Refused(Problem),
}

/// Whose file it becomes, and what it is called.
#[derive(Debug, Clone)]
pub struct Destination<'a> {
    /// Checkpoint or dataset.
    pub kind: Kind,
    /// The owner.
    pub tenant: &'a Tenant,
    /// The name.
    pub name: &'a FileName,
    /// The owner's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The key of the request that makes it, if it has one.
    pub key: Option<&'a RequestKey>,
    /// The key of the object that has its bytes, `KIND/ID`; none where they are in the staging file.
    pub object: Option<&'a str>,
}

/// Publishes uploads.
#[derive(Debug, Clone)]
pub struct Publisher {
    database: Database,
    blobs: Blobs,
    staging: Staging,
    clock: SharedClock,
    quota: Quota,
}

impl Publisher {
    /// Moves from `staging` to `blobs` and `database`; `quota` holds for tenants without limits of their own.
    #[must_use]
    pub fn new(database: Database, blobs: Blobs, staging: Staging, clock: SharedClock, quota: Quota) -> Self {
        Self { database, blobs, staging, clock, quota }
    }

    /// The file that has this name already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn taken(&self, kind: Kind, tenant: &Tenant, name: &FileName) -> Result<Option<StoredFile>, StoreError> {
        let query = match kind {
            Kind::Checkpoint => sql::query_as("SELECT * FROM checkpoints WHERE tenant = $1 AND name = $2"),
            Kind::Dataset => sql::query_as("SELECT * FROM datasets WHERE tenant = $1 AND name = $2"),
        };
        let row: Option<FileRow> =
            query.bind(tenant.as_str()).bind(name.as_str()).fetch_optional(self.database.reader()).await?;
        row.map(|row| row.parse(kind)).transpose()
    }

    /// The file that the tenant's upload `id` has become.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn finished(&self, tenant: &Tenant, id: UploadId) -> Result<Option<(Kind, StoredFile)>, StoreError> {
        for (kind, query) in [
            (Kind::Checkpoint, "SELECT * FROM checkpoints WHERE upload_id = $1 AND tenant = $2"),
            (Kind::Dataset, "SELECT * FROM datasets WHERE upload_id = $1 AND tenant = $2"),
        ] {
            let row: Option<FileRow> = sql::query_as(query)
                .bind(id.to_string())
                .bind(tenant.as_str())
                .fetch_optional(self.database.reader())
                .await?;
            if let Some(row) = row {
                return Ok(Some((kind, row.parse(kind)?)));
            }
        }
        Ok(None)
    }

    /// Publishes the complete upload `id`; it is gone afterwards, also when the name turns out to be taken.
    ///
    /// # Errors
    /// When the database or the file system fails.
    pub async fn publish(
        &self,
        id: UploadId,
        complete: &Complete,
        destination: &Destination<'_>,
    ) -> Result<Published, StoreError> {
        let file = self.stored_file(complete, destination);
        let staged = self.staging.path(id);
        if destination.object.is_none() {
            self.blobs.link_file(&staged, &file.blob_key).await?;
        }
        match self.insert(id, complete, destination, &file).await {
            Ok(None) => {
                self.blobs.adopt(&staged, &file.sha256).await;
                self.staging.forget(id).await;
                Ok(Published::New(file))
            }
            Ok(Some(refused)) => {
                // An object is all that there is of the upload.
                if destination.object.is_none() {
                    self.blobs.delete_or_leave(&file.blob_key).await;
                }
                Ok(Published::Refused(refused))
            }
            Err(error) if error.is_unique_violation() => {
                self.blobs.delete_or_leave(&file.blob_key).await;
                let taken = self.taken(destination.kind, destination.tenant, destination.name).await?.ok_or(error)?;
                self.staging.discard(id).await?;
                Ok(Published::Taken(taken))
            }
            // The blob stays until it is swept: should the machine stop now, a commit that failed may turn out to be written.
            Err(error) => Err(error),
        }
    }

    fn stored_file(&self, complete: &Complete, destination: &Destination<'_>) -> StoredFile {
        let id = match (destination.object.and_then(|key| key.rsplit_once('/')), destination.kind) {
            (Some((_, id)), _) => id.to_owned(),
            (None, Kind::Checkpoint) => CheckpointId::new().to_string(),
            (None, Kind::Dataset) => DatasetId::new().to_string(),
        };
        StoredFile {
            blob_key: format!("{}/{id}", destination.kind.plural()),
            id,
            name: destination.name.to_string(),
            sha256: hex::encode(complete.sha256),
            bytes: complete.bytes,
            labels: destination.labels.clone(),
            created_at: self.clock.now().as_millisecond(),
        }
    }

    /// Writes the rows, unless the tenant has as much as it may have.
    async fn insert(
        &self,
        id: UploadId,
        complete: &Complete,
        destination: &Destination<'_>,
        file: &StoredFile,
    ) -> Result<Option<Problem>, StoreError> {
        let (statement, last) = match destination.kind {
            Kind::Checkpoint => (
                "INSERT INTO checkpoints (id, tenant, name, sha256, bytes, blob_key, labels, created_at, upload_id, header)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                serde_json::json!(complete.header).to_string(),
            ),
            Kind::Dataset => (
                "INSERT INTO datasets (id, tenant, name, sha256, bytes, blob_key, labels, created_at, upload_id, state)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                "validating".to_owned(),
            ),
        };
        let mut transaction = self.database.write().await?;
        if let Some(key) = destination.key {
            let before = idempotency::find(&mut transaction, destination.tenant, key, file.created_at).await?;
            if before.is_some_and(|_: Earlier<CheckpointId>| true) {
                let detail = "Another request with this Idempotency-Key has just made something.";
                return Ok(Some(Problem::new(Code::IdempotencyKeyReused, detail)));
            }
            idempotency::take(&mut transaction, destination.tenant, key, &file.id, file.created_at).await?;
        }
        let quota = tenants::quota(&mut transaction, destination.tenant, self.quota).await?;
        let limited = quota.limited(&[TenantResource::Bytes, TenantResource::Files]);
        let usage = tenants::usage(&mut transaction, destination.tenant, &limited, Some(id)).await?;
        let checked = quota.check(TenantResource::Files, &usage, 1);
        if let Err(refused) = checked.and_then(|()| quota.check(TenantResource::Bytes, &usage, file.bytes)) {
            return Ok(Some(refused));
        }
        sql::query(statement)
            .bind(&file.id)
            .bind(destination.tenant.as_str())
            .bind(&file.name)
            .bind(&file.sha256)
            .bind(file.bytes as i64)
            .bind(&file.blob_key)
            .bind(serde_json::json!(file.labels).to_string())
            .bind(file.created_at)
            .bind(id.to_string())
            .bind(last)
            .execute(&mut *transaction)
            .await?;
        sql::query("DELETE FROM uploads WHERE id = $1").bind(id.to_string()).execute(&mut *transaction).await?;
        transaction.commit().await.map(|()| None)
    }
}
