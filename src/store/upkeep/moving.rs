//! Brings every blob that a database names to another place.

use std::path::Path;

use super::inventory::{Named, named};
use super::verify::{Findings, Verifier};
use crate::store::identity::DataFolder;
use crate::store::{Backend, Blobs, Database, StoreError, sql};

/// The blobs of a database, on their way from one place to another. Nobody else works with the database meanwhile.
#[derive(Debug)]
pub struct Moving<'a> {
    /// The rows that name them.
    pub database: &'a Database,
    /// Where they are.
    pub from: &'a Blobs,
    /// Where they go: a place that is empty, or to which they were on their way before.
    pub to: &'a Backend,
    /// The data directory, with the copies of objects.
    pub data_dir: &'a Path,
    /// Bytes that these copies may have.
    pub cache_bytes: u64,
}

impl Moving<'_> {
    /// Copies what is not there yet, or links it where both are folders of one file system, and then reads all of it and compares it with
    /// its digests. Nothing is copied unless everything is whole where it is. The files stay there; unfinished uploads to a bucket
    /// that is left are forgotten in the end and begin anew. `progress` gets what is being done, how many files that is done with, and of how many.
    ///
    /// # Errors
    /// When the new place belongs to another database, an object that is fetched is damaged, or the storage fails; a repetition goes on.
    pub async fn run(&self, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Findings, StoreError> {
        const IDENTITY: &str = "SELECT identity FROM data_folder";
        // Objects are compared with their digests while they are fetched.
        let check = Verifier { database: self.database, blobs: self.from, digests: self.from.folder().is_some() };
        let findings = check.run(&mut |done, all| progress("checked", done, all)).await?;
        if !findings.is_sound() {
            return Ok(findings);
        }
        let identity: String = sql::query_scalar(IDENTITY).fetch_one(self.database.reader()).await?;
        let target = Blobs::of(self.to, self.data_dir, self.cache_bytes)?;
        DataFolder::new(self.to, self.data_dir).claim(&identity).await?;
        let entries = named(&mut self.database.reader().acquire().await?).await?;
        for (index, entry) in entries.iter().enumerate() {
            if target.length(&entry.blob_key).await?.is_none() {
                self.copy(entry, &target).await?;
            }
            if entry.sha256.is_none() {
                self.compare(entry, &target).await?;
            }
            progress("copied", index + 1, entries.len());
        }
        let verifier = Verifier { database: self.database, blobs: &target, digests: true };
        let findings = verifier.run(&mut |done, all| progress("compared", done, all)).await?;
        let leaves = self.from.bucket().is_some_and(|bucket| bucket.url() != self.to.shown());
        if findings.is_sound() && leaves {
            self.forget_uploads().await?;
        }
        Ok(findings)
    }

    async fn copy(&self, entry: &Named, target: &Blobs) -> Result<(), StoreError> {
        let file = self.from.local(&entry.blob_key, entry.sha256.as_deref()).await?;
        target.link_file(file.path(), &entry.blob_key).await
    }

    /// Compares what has no digest with what it was copied from: else nothing would be known of it but that it is there.
    async fn compare(&self, entry: &Named, target: &Blobs) -> Result<(), StoreError> {
        let key = &entry.blob_key;
        if self.from.digest(key).await? == target.digest(key).await? {
            return Ok(());
        }
        Err(StoreError::inconsistent("blobs", key.clone(), format!("the copy of {} differs", entry.what)))
    }

    /// The parts of unfinished uploads belong to the bucket that they were sent to.
    async fn forget_uploads(&self) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        for statement in ["DELETE FROM uploads", "DELETE FROM upload_parts", "DELETE FROM multipart_uploads"] {
            sql::query(statement).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }
}
