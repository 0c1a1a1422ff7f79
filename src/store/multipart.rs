//! Unfinished uploads to a bucket: whole parts go to a multipart upload of the bucket's, what is left behind them to an object of its
//! own, and both are in the database before they are acknowledged. So every server goes on with an upload, whoever has begun it.
//!
//! Nobody can read the parts of an object that is not complete. A server that goes on with another one's upload, or with one of an
//! earlier request, has only the bytes behind the parts; it gets those before from the complete object, and checks the whole file then.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{StreamExt, TryStreamExt};
use sqlx::FromRow;
use uuid::Uuid;

use super::blobs::{Bucket, blocking, part_bytes, read_range};
use super::files::Kind;
use super::sql;
use super::uploads::{Upload, Uploads};
use super::{Database, StoreError};
use crate::domain::id::{CheckpointId, DatasetId, UploadId};

/// The folder of what is acknowledged behind the parts.
pub(super) const FOLDER: &str = "uploads";
/// Pieces of an answer that are written to a file at once.
const PIECES: usize = 64;
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

/// An unfinished upload, as one request goes on with it.
#[derive(Debug)]
pub struct MultipartUpload {
    all: MultipartUploads,
    id: UploadId,
    blob_key: String,
    multipart_id: Option<String>,
    etags: Vec<String>,
    tail_key: Option<String>,
    completed: bool,
    /// Bytes in parts.
    sent: u64,
    /// Bytes that were in parts when this request began: the local file lacks them.
    front: u64,
    acknowledged: u64,
    part: u64,
    file: Arc<File>,
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
        let completed = row.completed;
        let sent = if completed { upload.acknowledged } else { parts.iter().map(|part| part.bytes as u64).sum() };
        let opened = MultipartUpload {
            all: self.clone(),
            id: upload.id,
            blob_key: row.blob_key,
            multipart_id: row.multipart_id,
            etags: parts.into_iter().map(|part| part.etag).collect(),
            tail_key: row.tail_key,
            completed,
            sent,
            front: sent,
            acknowledged: upload.acknowledged,
            part: part_bytes(largest),
            file: Arc::new(file),
        };
        opened.write_tail().await?;
        Ok(opened)
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
    /// acknowledged then, and to be checked. False where they are not of this upload, or not as many.
    ///
    /// # Errors
    /// When the database or the bucket fails; also where the bucket does not have these parts.
    pub async fn complete_presigned(&self, id: UploadId, etags: Vec<String>, total: u64) -> Result<bool, StoreError> {
        let Some(MultipartRow { blob_key, multipart_id: Some(multipart_id), completed: false, .. }) =
            self.row(id).await?
        else {
            return Ok(false);
        };
        self.bucket.complete(&blob_key, &multipart_id, etags, total).await?;
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

impl MultipartUpload {
    /// The key of the object that the upload becomes.
    #[must_use]
    pub fn blob_key(&self) -> &str {
        &self.blob_key
    }

    /// Bytes that the local file lacks, which are those before all others.
    #[must_use]
    pub fn front(&self) -> u64 {
        self.front
    }

    /// Bytes of a part.
    #[must_use]
    pub fn part(&self) -> u64 {
        self.part
    }

    /// Sends what fills parts of the first `until` bytes, and acknowledges it; false where another request goes on with the upload.
    ///
    /// # Errors
    /// When the database, the bucket or the file system fails; what was acknowledged before stays so.
    pub async fn send(&mut self, until: u64) -> Result<bool, StoreError> {
        while until.saturating_sub(self.sent) >= self.part {
            let Some(multipart_id) = self.multipart_id().await? else { return Ok(false) };
            let bytes = self.read(self.sent + self.part).await?;
            let number = self.etags.len() as u64;
            let etag = self.all.bucket.put_part(&self.blob_key, &multipart_id, number, bytes).await?;
            if !self.record(self.sent + self.part, Some(&etag), None, false).await? {
                return Ok(false);
            }
            self.etags.push(etag);
            self.sent += self.part;
        }
        Ok(true)
    }

    /// Sends all of the first `until` bytes, and acknowledges them; false where another request goes on with the upload.
    ///
    /// # Errors
    /// When the database, the bucket or the file system fails; what was acknowledged before stays so.
    pub async fn keep(&mut self, until: u64) -> Result<bool, StoreError> {
        if !self.send(until).await? {
            return Ok(false);
        }
        if until <= self.acknowledged {
            return Ok(true);
        }
        let key = format!("{FOLDER}/{}/{}", self.id, Uuid::new_v4());
        self.all.bucket.put(&key, self.read(until).await?).await?;
        self.record(until, None, Some(&key), false).await
    }

    /// Makes the first `length` bytes the object; false where another request goes on with the upload.
    ///
    /// # Errors
    /// When the database, the bucket or the file system fails; what was acknowledged before stays so.
    pub async fn complete(&mut self, length: u64) -> Result<bool, StoreError> {
        if self.completed {
            return Ok(true);
        }
        // A server may have been stopped between the two, having noted nothing.
        if self.multipart_id.is_some() && self.all.bucket.length(&self.blob_key).await? == Some(length) {
            self.completed = true;
            return self.record(length, None, None, true).await;
        }
        if !self.send(length).await? {
            return Ok(false);
        }
        let rest = self.read(length).await?;
        let bucket = &self.all.bucket;
        match &self.multipart_id {
            None => bucket.put(&self.blob_key, rest).await?,
            Some(multipart_id) => {
                let mut etags = self.etags.clone();
                if !rest.is_empty() {
                    let number = etags.len() as u64;
                    etags.push(bucket.put_part(&self.blob_key, multipart_id, number, rest).await?);
                }
                bucket.complete(&self.blob_key, multipart_id, etags, length).await?;
            }
        }
        self.completed = true;
        self.record(length, None, None, true).await
    }

    /// Brings the bytes that the local file lacks back from the complete object.
    ///
    /// # Errors
    /// When the bucket or the file system fails.
    pub async fn fetch_front(&self) -> Result<(), StoreError> {
        if self.front == 0 {
            return Ok(());
        }
        let stream = self.all.bucket.read(&self.blob_key, 0..self.front).await?;
        let mut pieces = stream.try_ready_chunks(PIECES).boxed();
        let mut offset = 0;
        loop {
            let chunks = match pieces.next().await {
                None => return Ok(()),
                Some(read) => read.map_err(|error| StoreError::file(&self.blob_key)(error.1))?,
            };
            let length: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
            let file = Arc::clone(&self.file);
            blocking(move || file.write_all_at(&chunks.concat(), offset).map_err(StoreError::file("staging file")))
                .await?;
            offset += length;
        }
    }

    /// Has the local file hold what is acknowledged behind the parts, at its place.
    async fn write_tail(&self) -> Result<(), StoreError> {
        let tail = match &self.tail_key {
            None => Bytes::new(),
            Some(key) => {
                let (_, stream) = self.all.bucket.get(key).await?;
                stream.try_collect::<Vec<Bytes>>().await?.concat().into()
            }
        };
        if self.sent + tail.len() as u64 != self.acknowledged {
            let detail = format!(
                "{} bytes are acknowledged, {} in parts and {} behind them",
                self.acknowledged,
                self.sent,
                tail.len()
            );
            return Err(StoreError::inconsistent("multipart_uploads", self.id.to_string(), detail));
        }
        let (file, front) = (Arc::clone(&self.file), self.front);
        blocking(move || {
            let written = file.set_len(0).and_then(|()| file.set_len(front));
            written.and_then(|()| file.write_all_at(&tail, front)).map_err(StoreError::file("staging file"))
        })
        .await
    }

    /// The bytes behind the parts, up to `until`.
    async fn read(&self, until: u64) -> Result<Bytes, StoreError> {
        read_range(&self.file, self.sent..until).await.map_err(StoreError::file("staging file"))
    }

    /// The bucket's name for the upload, which is begun there as needed; none where another request goes on with it.
    async fn multipart_id(&mut self) -> Result<Option<String>, StoreError> {
        if self.multipart_id.is_none() {
            self.multipart_id = self.all.begin_in_bucket(self.id, &self.blob_key).await?;
        }
        Ok(self.multipart_id.clone())
    }

    /// Acknowledges `acknowledged` bytes, which a new part or a new tail holds. False where another request has gone on with the upload
    /// since this one has begun.
    async fn record(
        &mut self,
        acknowledged: u64,
        etag: Option<&str>,
        tail_key: Option<&str>,
        completed: bool,
    ) -> Result<bool, StoreError> {
        let id = self.id.to_string();
        let mut transaction = self.all.database.write().await?;
        let advanced =
            sql::query("UPDATE uploads SET acknowledged = $1, expires_at = $2 WHERE id = $3 AND acknowledged = $4")
                .bind(acknowledged as i64)
                .bind(self.all.uploads.expires_at())
                .bind(&id)
                .bind(self.acknowledged as i64)
                .execute(&mut *transaction)
                .await?;
        let noted = sql::query(
            "UPDATE multipart_uploads SET tail_key = $1, completed = $2 WHERE upload_id = $3 AND blob_key = $4",
        )
        .bind(tail_key)
        .bind(completed)
        .bind(&id)
        .bind(&self.blob_key)
        .execute(&mut *transaction)
        .await?;
        if advanced.rows_affected() == 0 || noted.rows_affected() == 0 {
            return Ok(false);
        }
        if let Some(etag) = etag {
            sql::query("INSERT INTO upload_parts (upload_id, number, etag, bytes) VALUES ($1, $2, $3, $4)")
                .bind(&id)
                .bind(self.etags.len() as i64)
                .bind(etag)
                .bind(self.part as i64)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        self.acknowledged = acknowledged;
        let old = std::mem::replace(&mut self.tail_key, tail_key.map(str::to_owned));
        if let Some(old) = old {
            // No row names it any more; where that fails it is swept.
            if let Err(error) = self.all.bucket.delete(&old).await {
                tracing::warn!(key = old, %error, "an object that nobody needs could not be removed; it will be swept");
            }
        }
        Ok(true)
    }
}
