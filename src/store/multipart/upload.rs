//! One upload to a bucket, as one request goes on with it: parts and what is left behind them are sent, then acknowledged.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{StreamExt, TryStreamExt};
use uuid::Uuid;

use super::{FOLDER, MultipartRow, MultipartUploads, PartRow};
use crate::domain::id::UploadId;
use crate::store::blobs::{blocking, read_range};
use crate::store::uploads::Upload;
use crate::store::{StoreError, sql};

/// Pieces of an answer that are written to a file at once.
const PIECES: usize = 64;

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

impl MultipartUpload {
    /// Goes on with `upload` in parts of `part` bytes. The local `file` is made to have what is acknowledged and can be read.
    ///
    /// # Errors
    /// When the bucket or the file system fails.
    pub(super) async fn open(
        all: MultipartUploads,
        upload: &Upload,
        row: MultipartRow,
        parts: Vec<PartRow>,
        file: File,
        part: u64,
    ) -> Result<Self, StoreError> {
        let MultipartRow { blob_key, multipart_id, tail_key, completed } = row;
        let sent = if completed { upload.acknowledged } else { parts.iter().map(|part| part.bytes as u64).sum() };
        let opened = Self {
            all,
            id: upload.id,
            blob_key,
            multipart_id,
            etags: parts.into_iter().map(|part| part.etag).collect(),
            tail_key,
            completed,
            sent,
            front: sent,
            acknowledged: upload.acknowledged,
            part,
            file: Arc::new(file),
        };
        opened.write_tail().await?;
        Ok(opened)
    }

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
