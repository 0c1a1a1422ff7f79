//! Blobs as objects of a bucket.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use object_store::signer::{Method, SignedUrlOptions, Signer};
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use super::aws::{self, AwsVariables};
use super::blocking;
use crate::store::error::{BucketError, StoreError};

/// Bytes of a part of an upload, unless a file is so large that there would be too many.
pub(in crate::store) const PART: u64 = 8 << 20;
/// Parts that an object may have.
const MOST_PARTS: u64 = 10_000;
/// Parts that are sent at the same time.
const AT_ONCE: usize = 4;
/// Largest object that a service copies by itself.
const COPIED_WITHIN: u64 = 5 << 30;

/// A bucket; clones share connections.
#[derive(Debug, Clone)]
pub struct Bucket {
    name: String,
    prefix: String,
    store: Arc<AmazonS3>,
}

/// Bytes of a part where the file has at most `bytes`.
pub(in crate::store) fn part_bytes(bytes: u64) -> u64 {
    PART.max(bytes.div_ceil(MOST_PARTS))
}

impl Bucket {
    /// The bucket `name`, all of whose keys begin with `prefix`. Nothing is asked of it yet.
    ///
    /// # Errors
    /// Where `variables` do not describe a client.
    pub(super) fn open(name: &str, prefix: &str, variables: &AwsVariables) -> Result<Self, StoreError> {
        // The program has one provider of cryptography; whoever comes second finds it there.
        let _already = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let store = aws::builder(variables)?.with_bucket_name(name).build()?;
        Ok(Self { name: name.to_owned(), prefix: prefix.to_owned(), store: Arc::new(store) })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        if self.prefix.is_empty() {
            format!("s3://{}", self.name)
        } else {
            format!("s3://{}/{}", self.name, self.prefix)
        }
    }

    fn key(&self, key: &str) -> Result<Key, StoreError> {
        let whole = if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        Ok(Key::parse(whole).map_err(Error::from)?)
    }

    /// Stores a file as the new object `key`.
    pub(super) async fn put_file(&self, from: &Path, key: &str) -> Result<(), StoreError> {
        let path = from.to_owned();
        let opened = blocking(move || {
            let file = File::open(&path).map_err(StoreError::file(&path))?;
            let length = file.metadata().map_err(StoreError::file(&path))?.len();
            Ok((Arc::new(file), length))
        });
        let (file, length) = match opened.await {
            Err(StoreError::File { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && self.length(key).await?.is_some() =>
            {
                return Ok(());
            }
            opened => opened?,
        };
        if length <= PART {
            let bytes = read_range(&file, 0..length).await.map_err(StoreError::file(from))?;
            return self.put(key, bytes).await;
        }
        let id = self.begin(key).await?;
        let sent = self.send_parts(key, &id, &file, length).await;
        let ended = match sent {
            Ok(etags) => self.complete(key, &id, etags, length).await,
            Err(error) => Err(error),
        };
        if ended.is_err() {
            self.abort_or_leave(key, &id).await;
        }
        ended
    }

    async fn send_parts(&self, key: &str, id: &str, file: &Arc<File>, length: u64) -> Result<Vec<String>, StoreError> {
        let size = part_bytes(length);
        let parts = (0..length.div_ceil(size)).map(|number| async move {
            let range = number * size..length.min((number + 1) * size);
            let bytes = read_range(file, range).await.map_err(StoreError::file(key))?;
            self.put_part(key, id, number, bytes).await
        });
        stream::iter(parts).buffered(AT_ONCE).try_collect().await
    }

    /// Stores `bytes` as the new object `key`. One that has the name already, of the same length, is what an earlier try has stored.
    pub(in crate::store) async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let length = bytes.len() as u64;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.key(key)?, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(()),
            Err(Error::AlreadyExists { .. }) if self.length(key).await? == Some(length) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Begins the object `key` in parts; returns what names this upload.
    pub(in crate::store) async fn begin(&self, key: &str) -> Result<String, StoreError> {
        Ok(self.store.create_multipart(&self.key(key)?).await?)
    }

    /// Stores the part `number`, counted from 0, of an upload that was begun; returns its entity tag.
    pub(in crate::store) async fn put_part(
        &self,
        key: &str,
        id: &str,
        number: u64,
        bytes: Bytes,
    ) -> Result<String, StoreError> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let part = self.store.put_part(&self.key(key)?, &id.to_owned(), number, PutPayload::from(bytes)).await?;
        Ok(part.content_id)
    }

    /// Makes parts the object `key`, which has `length` bytes then. A repetition whose first answer was lost finds its work done.
    pub(in crate::store) async fn complete(
        &self,
        key: &str,
        id: &str,
        etags: Vec<String>,
        length: u64,
    ) -> Result<(), StoreError> {
        let parts = etags.into_iter().map(|content_id| PartId { content_id }).collect();
        match self.store.complete_multipart(&self.key(key)?, &id.to_owned(), parts).await {
            Ok(_) => Ok(()),
            Err(error) => match self.length(key).await {
                Ok(Some(found)) if found == length => Ok(()),
                _ if refuses_parts(&error) => Err(BucketError::OtherParts.into()),
                _ => Err(error.into()),
            },
        }
    }

    /// Gives up an upload that was begun; one that is complete, or given up already, is fine.
    pub(in crate::store) async fn abort(&self, key: &str, id: &str) -> Result<(), StoreError> {
        match self.store.abort_multipart(&self.key(key)?, &id.to_owned()).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The same where nobody needs it to be done: its parts stay then, until the bucket's own rules remove them.
    pub(in crate::store) async fn abort_or_leave(&self, key: &str, id: &str) {
        if let Err(error) = self.abort(key, id).await {
            tracing::warn!(key, %error, "an unfinished multipart upload could not be aborted");
        }
    }

    /// The length of the object `key`; none where there is none.
    pub(in crate::store) async fn length(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match self.store.head(&self.key(key)?).await {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The length of the object `key`, and all its bytes.
    pub(in crate::store) async fn get(
        &self,
        key: &str,
    ) -> Result<(u64, BoxStream<'static, Result<Bytes, Error>>), StoreError> {
        let found = self.store.get(&self.key(key)?).await?;
        Ok((found.meta.size, found.into_stream()))
    }

    /// The bytes `range` of the object `key`.
    pub(in crate::store) async fn read(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, StoreError> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = self.store.get_opts(&self.key(key)?, options).await?;
        Ok(found.into_stream().map_err(std::io::Error::other).boxed())
    }

    /// Removes the object `key`; one that is absent already is fine.
    pub(in crate::store) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.key(key)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Every key below `prefix`, with when it was written, in milliseconds since the epoch.
    pub(in crate::store) async fn list(&self, prefix: &str) -> Result<Vec<(String, i64)>, StoreError> {
        let listed = self.store.list(Some(&self.key(prefix)?));
        let entry = |meta: ObjectMeta| {
            let key = self.own(&meta.location)?;
            Some((key, meta.last_modified.timestamp_millis()))
        };
        let all: Vec<ObjectMeta> = listed.try_collect().await?;
        Ok(all.into_iter().filter_map(entry).collect())
    }

    /// A key of ours without the prefix.
    fn own(&self, whole: &Key) -> Option<String> {
        let key = whole.as_ref().strip_prefix(self.prefix.as_str())?;
        Some(key.strip_prefix('/').unwrap_or(key).to_owned())
    }

    /// Gives the object `key` the name `to`; one that is gone already is fine.
    pub(in crate::store) async fn rename(&self, key: &str, to: &str) -> Result<(), StoreError> {
        let Some(length) = self.length(key).await? else { return Ok(()) };
        if length < COPIED_WITHIN {
            self.store.copy(&self.key(key)?, &self.key(to)?).await?;
        } else {
            self.copy_through(key, to, length).await?;
        }
        self.delete(key).await
    }

    /// Copies an object that is too large for the service to copy in one request.
    async fn copy_through(&self, key: &str, to: &str, length: u64) -> Result<(), StoreError> {
        let id = self.begin(to).await?;
        let size = part_bytes(length);
        let parts = (0..length.div_ceil(size)).map(|number| {
            let id = &id;
            async move {
                let stream = self.read(key, number * size..length.min((number + 1) * size)).await?;
                let chunks: Vec<Bytes> = stream.try_collect().await.map_err(StoreError::file(key))?;
                self.put_part(to, id, number, chunks.concat().into()).await
            }
        });
        let sent: Result<Vec<String>, StoreError> = stream::iter(parts).buffered(AT_ONCE).try_collect().await;
        let ended = match sent {
            Ok(etags) => self.complete(to, &id, etags, length).await,
            Err(error) => Err(error),
        };
        if ended.is_err() {
            self.abort_or_leave(to, &id).await;
        }
        ended
    }

    /// An address at which anybody gets the object `key` for as long as `lifetime`, called `disposition` and of this media type.
    ///
    /// # Errors
    /// When there are no credentials.
    pub async fn presigned(
        &self,
        key: &str,
        disposition: &str,
        media_type: &str,
        lifetime: Duration,
    ) -> Result<String, StoreError> {
        let options = SignedUrlOptions::default()
            .with_query([("response-content-disposition", disposition), ("response-content-type", media_type)]);
        Ok(self.store.signed_url_opts(Method::GET, &self.key(key)?, lifetime, &options).await?.to_string())
    }

    /// An address at which anybody may store the part `number`, counted from 0, of an upload that was begun, for as long as `lifetime`.
    pub(in crate::store) async fn presigned_part(
        &self,
        key: &str,
        id: &str,
        number: u64,
        lifetime: Duration,
    ) -> Result<String, StoreError> {
        let query = [("partNumber", (number + 1).to_string()), ("uploadId", id.to_owned())];
        let options = SignedUrlOptions::default().with_query(query);
        Ok(self.store.signed_url_opts(Method::PUT, &self.key(key)?, lifetime, &options).await?.to_string())
    }

    /// The identity that the object `name` says, where there is one.
    pub(in crate::store) async fn read_mark(&self, name: &str) -> Result<Option<String>, StoreError> {
        let unusable = |source: Error| BucketError::Unusable { bucket: self.url(), source: Box::new(source) };
        let found = match self.store.get(&self.key(name)?).await {
            Ok(found) => found.bytes().await.map_err(unusable)?,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(unusable(error).into()),
        };
        Ok(Some(String::from_utf8_lossy(&found).trim().to_owned()))
    }

    /// Makes the object `name` say `identity`, unless there is one already, which is left as it is. Returns what it says then.
    pub(in crate::store) async fn create_mark(&self, name: &str, identity: &str) -> Result<String, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.key(name)?, PutPayload::from(format!("{identity}\n")), options).await {
            Ok(_) => Ok(identity.to_owned()),
            Err(Error::AlreadyExists { .. }) => Ok(self.read_mark(name).await?.unwrap_or_default()),
            Err(source) => Err(BucketError::Unusable { bucket: self.url(), source: Box::new(source) }.into()),
        }
    }

    /// Whether there is any object below the prefix but those of which `is_none` says that they do not count.
    pub(in crate::store) async fn has_objects(&self, is_none: impl Fn(&str) -> bool) -> Result<bool, StoreError> {
        let prefix = (!self.prefix.is_empty()).then(|| Key::parse(&self.prefix)).transpose().map_err(Error::from)?;
        let mut listed = self.store.list(prefix.as_ref());
        while let Some(meta) = listed.try_next().await? {
            if self.own(&meta.location).is_some_and(|key| !is_none(&key)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether the service has refused to put parts together: it has not got them, or not these, or they are out of order or too small. The client
/// has no kind of error for that, only what the service has said.
fn refuses_parts(error: &Error) -> bool {
    let said = error.to_string();
    ["InvalidPart<", "InvalidPartOrder<", "EntityTooSmall<"].iter().any(|code| said.contains(code))
}

/// Reads a part of a file.
pub(in crate::store) async fn read_range(file: &Arc<File>, range: Range<u64>) -> std::io::Result<Bytes> {
    let file = Arc::clone(file);
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, range.start).map(|()| Bytes::from(bytes))
    });
    read.await.map_err(std::io::Error::other)?
}
