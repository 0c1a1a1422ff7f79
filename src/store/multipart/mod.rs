//! Unfinished uploads to a bucket: whole parts go to a multipart upload of the bucket's, what is left behind them to an object of its
//! own, and both are in the database before they are acknowledged. So every server goes on with an upload, whoever has begun it.
//!
//! Nobody can read the parts of an object that is not complete. A server that goes on with another one's upload, or with one of an
//! earlier request, has only the bytes behind the parts; it gets those before from the complete object, and checks the whole file then.

mod upload;

use std::fs::File;
use std::time::Duration;

use super::blobs::{Bucket, part_bytes};
use super::error::BucketError;
use super::files::Kind;
use super::sql;
use super::uploads::{Upload, Uploads};
use super::{Database, StoreError};
use crate::domain::id::{CheckpointId, DatasetId, UploadId};
use crate::store::sql::FromRow;

pub use upload::MultipartUpload;

/// The folder of what is acknowledged behind the parts.
pub(super) const FOLDER: &str = "uploads";
/// Parts that a client sends to the bucket itself: their smallest size, and how many there are at most.
const SMALLEST_PRESIGNED: u64 = 16 << 20;
const MOST_PRESIGNED: u64 = 1000;

#[derive(FromRow)]
struct MultipartRow {
    blob_key: String,
    multipart_id: Option<String>,
    tail_key: Option<String>,
    completed: bool,
}

#[derive(FromRow)]
struct PartRow {
    etag: String,
    bytes: i64,
}

/// All unfinished uploads to a bucket.
#[derive(Debug, Clone)]
pub struct MultipartUploads {
    database: Database,
    uploads: Uploads,
    bucket: Bucket,
}

/// Where a client sends the parts of a file.
#[derive(Debug)]
pub struct PresignedParts {
    /// Bytes of each part but the last.
    pub part_bytes: u64,
    /// The address of each, in order.
    pub urls: Vec<String>,
}

impl MultipartUploads {
    /// The uploads in `uploads`, whose bytes go to `bucket`.
    #[must_use]
    pub fn new(database: Database, uploads: Uploads, bucket: Bucket) -> Self {
        Self { database, uploads, bucket }
    }

    /// Goes on with `upload`, which becomes a file of `kind` with `largest` bytes at most. The local `file` is made to have what is
    /// acknowledged and can be read; there is a hole where the parts were.
    ///
    /// # Errors
    /// When the database, the bucket or the file system fails.
    pub async fn open(
        &self,
        upload: &Upload,
        kind: Kind,
        file: File,
        largest: u64,
    ) -> Result<MultipartUpload, StoreError> {
        let row = match self.row(upload.id).await? {
            Some(row) if upload.acknowledged > 0 => row,
            Some(row) => {
                self.give_up(&row).await?;
                self.begin(upload.id, kind).await?
            }
            None => self.begin(upload.id, kind).await?,
        };
        let parts = self.parts(upload.id).await?;
        MultipartUpload::open(self.clone(), upload, row, parts, file, part_bytes(largest)).await
    }

    /// Begins `upload`, of `total` bytes, for a client that sends its parts to the bucket itself, at addresses that are good for `lifetime`.
    ///
    /// # Errors
    /// When the database or the bucket fails.
    pub async fn presign(
        &self,
        upload: &Upload,
        kind: Kind,
        total: u64,
        lifetime: Duration,
    ) -> Result<PresignedParts, StoreError> {
        self.discard(upload.id).await?;
        let MultipartRow { blob_key, .. } = self.begin(upload.id, kind).await?;
        let Some(id) = self.begin_in_bucket(upload.id, &blob_key).await? else {
            let detail = "another request has begun it meanwhile";
            return Err(StoreError::inconsistent("multipart_uploads", upload.id.to_string(), detail));
        };
        let part_bytes = SMALLEST_PRESIGNED.max(total.div_ceil(MOST_PRESIGNED));
        let mut urls = Vec::new();
        for number in 0..total.div_ceil(part_bytes) {
            urls.push(self.bucket.presigned_part(&blob_key, &id, number, lifetime).await?);
        }
        Ok(PresignedParts { part_bytes, urls })
    }

    /// Makes an object of `total` bytes of the parts that a client has sent to the bucket, which have these entity tags. Its bytes are
    /// acknowledged then, and to be checked. False where they are not of this upload, or not as many, or the bucket does not have them.
    ///
    /// # Errors
    /// When the database or the bucket fails.
    pub async fn complete_presigned(&self, id: UploadId, etags: Vec<String>, total: u64) -> Result<bool, StoreError> {
        let Some(MultipartRow { blob_key, multipart_id: Some(multipart_id), completed: false, .. }) =
            self.row(id).await?
        else {
            return Ok(false);
        };
        match self.bucket.complete(&blob_key, &multipart_id, etags, total).await {
            Err(StoreError::Bucket(BucketError::OtherParts)) => return Ok(false),
            done => done?,
        }
        if self.bucket.length(&blob_key).await? != Some(total) {
            return Ok(false);
        }
        let mut transaction = self.database.write().await?;
        sql::query("UPDATE multipart_uploads SET completed = TRUE WHERE upload_id = $1 AND blob_key = $2")
            .bind(id.to_string())
            .bind(&blob_key)
            .execute(&mut *transaction)
            .await?;
        sql::query("UPDATE uploads SET acknowledged = $1, expires_at = $2 WHERE id = $3")
            .bind(total as i64)
            .bind(self.uploads.expires_at())
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Whether anything is known of an upload's bytes.
    pub(super) async fn knows(&self, id: UploadId) -> Result<bool, StoreError> {
        Ok(self.row(id).await?.is_some())
    }

    /// Gives up what there is of an upload in the bucket. A complete object stays; where no row names it, it is swept.
    ///
    /// # Errors
    /// When the database or the bucket fails.
    pub(super) async fn discard(&self, id: UploadId) -> Result<(), StoreError> {
        if let Some(row) = self.row(id).await? {
            self.give_up(&row).await?;
            self.forget(id).await?;
        }
        Ok(())
    }

    /// Forgets an upload that has become a file.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn forget(&self, id: UploadId) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        sql::query("DELETE FROM multipart_uploads WHERE upload_id = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    /// Gives up what is left in the bucket of uploads that are no more: whoever ended them was stopped, or the bucket did not answer.
    /// Says how many.
    ///
    /// # Errors
    /// When the database or the bucket fails.
    pub(super) async fn sweep(&self) -> Result<usize, StoreError> {
        let left: Vec<String> = sql::query_scalar(
            "SELECT upload_id FROM multipart_uploads WHERE upload_id NOT IN (SELECT id FROM uploads)",
        )
        .fetch_all(self.database.reader())
        .await?;
        for id in &left {
            let id = id.parse().map_err(|error| StoreError::inconsistent("multipart_uploads", id, error))?;
            self.discard(id).await?;
        }
        Ok(left.len())
    }

    async fn row(&self, id: UploadId) -> Result<Option<MultipartRow>, StoreError> {
        let query = sql::query_as(
            "SELECT blob_key, multipart_id, tail_key, completed FROM multipart_uploads WHERE upload_id = $1",
        );
        Ok(query.bind(id.to_string()).fetch_optional(self.database.reader()).await?)
    }

    async fn parts(&self, id: UploadId) -> Result<Vec<PartRow>, StoreError> {
        let query = sql::query_as("SELECT etag, bytes FROM upload_parts WHERE upload_id = $1 ORDER BY number");
        Ok(query.bind(id.to_string()).fetch_all(self.database.reader()).await?)
    }

    /// Begins an upload, and forgets an earlier beginning.
    async fn begin(&self, id: UploadId, kind: Kind) -> Result<MultipartRow, StoreError> {
        let file = match kind {
            Kind::Checkpoint => CheckpointId::new().to_string(),
            Kind::Dataset => DatasetId::new().to_string(),
        };
        let blob_key = format!("{}/{file}", kind.plural());
        let mut transaction = self.database.write().await?;
        sql::query("DELETE FROM multipart_uploads WHERE upload_id = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        sql::query("INSERT INTO multipart_uploads (upload_id, blob_key) VALUES ($1, $2)")
            .bind(id.to_string())
            .bind(&blob_key)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(MultipartRow { blob_key, multipart_id: None, tail_key: None, completed: false })
    }

    /// Begins an upload in the bucket, and notes the bucket's name for it; none where another request has done so.
    async fn begin_in_bucket(&self, id: UploadId, blob_key: &str) -> Result<Option<String>, StoreError> {
        let begun = self.bucket.begin(blob_key).await?;
        let mut transaction = self.database.write().await?;
        let noted = sql::query(
            "UPDATE multipart_uploads SET multipart_id = $1
             WHERE upload_id = $2 AND blob_key = $3 AND multipart_id IS NULL",
        )
        .bind(&begun)
        .bind(id.to_string())
        .bind(blob_key)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        if noted.rows_affected() == 0 {
            self.bucket.abort_or_leave(blob_key, &begun).await;
            return Ok(None);
        }
        Ok(Some(begun))
    }

    async fn give_up(&self, row: &MultipartRow) -> Result<(), StoreError> {
        if let Some(multipart_id) = row.multipart_id.as_ref().filter(|_| !row.completed) {
            self.bucket.abort(&row.blob_key, multipart_id).await?;
        }
        match &row.tail_key {
            Some(tail) => self.bucket.delete(tail).await,
            None => Ok(()),
        }
    }
}
