//! Compares every file with what the database says of it.

use std::collections::BTreeSet;

use super::inventory::{Named, is_named, named};
use crate::store::files::Kind;
use crate::store::jobs::Jobs;
use crate::store::{Blobs, Database, StoreError};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The database itself is damaged: what it says.
    Database(String),
    /// The file of a row is gone.
    Missing(String),
    /// It has other bytes than when it was stored.
    Damaged(String),
    /// No row names this file: harmless, it goes to the trash by itself.
    Orphan(String),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Database(detail) => write!(f, "database  {detail}"),
            Self::Missing(what) => write!(f, "missing   {what}"),
            Self::Damaged(what) => write!(f, "damaged   {what}"),
            Self::Orphan(what) => write!(f, "orphan    {what}"),
        }
    }
}

/// What a look at everything has shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// Files that were looked at.
    pub files: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Everything that is not as it should be.
    pub list: Vec<Finding>,
}

impl Findings {
    /// Whether nothing is lost or damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.list.iter().all(|finding| matches!(finding, Finding::Orphan(_)))
    }
}

/// Looks at the files of a data directory, also while a server runs on it.
#[derive(Debug)]
pub struct Verifier<'a> {
    /// The rows.
    pub database: &'a Database,
    /// The files.
    pub blobs: &'a Blobs,
    /// Whether to compare digests, which reads every byte; else lengths only.
    pub digests: bool,
}

impl Verifier<'_> {
    /// Looks at everything; `progress` gets (files looked at, all files).
    ///
    /// # Errors
    /// When the database or the file system fails otherwise than by what is found.
    pub async fn run(&self, progress: &mut dyn FnMut(usize, usize)) -> Result<Findings, StoreError> {
        let mut conn = self.database.reader().acquire().await?;
        let mut findings = Findings::default();
        findings.list.extend(conn.damage().await?.into_iter().map(Finding::Database));
        let found = self.listed().await?;
        let all = named(&mut conn).await?;
        for (index, entry) in all.iter().enumerate() {
            if let Some(finding) = self.look(entry, &mut findings).await?
                // It may have been deleted since the rows were read.
                && is_named(&mut conn, &entry.blob_key).await?
            {
                findings.list.push(finding);
            }
            progress(index + 1, all.len());
        }
        let known: BTreeSet<&str> = all.iter().map(|entry| entry.blob_key.as_str()).collect();
        for key in found.iter().filter(|key| !known.contains(key.as_str())) {
            if !is_named(&mut conn, key).await? && self.blobs.length(key).await?.is_some() {
                findings.list.push(Finding::Orphan(format!("blobs/{key}")));
            }
        }
        Ok(findings)
    }

    async fn listed(&self) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        for folder in [Kind::Checkpoint.plural(), Kind::Dataset.plural(), Jobs::FOLDER] {
            keys.extend(self.blobs.list(folder).await?.into_iter().map(|(key, _)| key));
        }
        Ok(keys)
    }

    async fn look(&self, entry: &Named, findings: &mut Findings) -> Result<Option<Finding>, StoreError> {
        let what = format!("{} of tenant {} (blobs/{})", entry.what, entry.tenant, entry.blob_key);
        let Some(length) = self.blobs.length(&entry.blob_key).await? else { return Ok(Some(Finding::Missing(what))) };
        findings.files += 1;
        if entry.bytes.is_some_and(|bytes| i64::try_from(length) != Ok(bytes)) {
            return Ok(Some(Finding::Damaged(format!("{what}: {length} bytes"))));
        }
        let Some(expected) = entry.sha256.clone().filter(|_| self.digests) else { return Ok(None) };
        findings.bytes += length;
        Ok(match self.blobs.digest(&entry.blob_key).await {
            Ok(got) if got == expected => None,
            Ok(got) => Some(Finding::Damaged(format!("{what}: SHA-256 {got}, stored as {expected}"))),
            Err(error) if error.is_absence() => Some(Finding::Missing(what)),
            Err(error) => Some(Finding::Damaged(format!("{what}: {error}"))),
        })
    }
}
