//! Files that the server fetches from elsewhere: what is wanted, and what became of it.

mod queue;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::files::Kind;
use super::idempotency::RequestKey;
use super::jobs::{JobError, once};
use super::listing::Listing;
use super::steady::Steady;
use super::{Database, StoreError};
use crate::domain::access::Tenant;
use crate::domain::clock::{SharedClock, from_millis};
use crate::domain::id::ImportId;
use crate::domain::name::FileName;
use crate::domain::problem::Problem;
use crate::domain::remote_file::RemoteFile;
use crate::store::sql;
use crate::store::sql::FromRow;

pub use queue::ToFetch;

/// Most imports of one tenant that wait or run.
pub const MOST: usize = 100;

/// A file that is wanted.
#[derive(Clone, PartialEq, Eq)]
pub struct WantedFile {
    /// What it becomes.
    pub kind: Kind,
    /// What it will be called.
    pub name: FileName,
    /// Where it is.
    pub source: RemoteFile,
    /// The SHA-256 that it must have, where that is known.
    pub sha256: Option<[u8; 32]>,
    /// Its owner's labels.
    pub labels: BTreeMap<String, String>,
    /// What shows its host that the owner may have it.
    pub token: Option<String>,
}

impl std::fmt::Debug for WantedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WantedFile").field("kind", &self.kind).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What became of a wish for a file.
#[derive(Debug)]
pub enum ImportCreation {
    /// It will be fetched.
    Made(ImportId),
    /// The Idempotency-Key has made this one.
    Before(ImportId),
    /// A file of this name is being fetched already.
    NameTaken(ImportId),
    /// The tenant has as many as it may have.
    TooMany,
}

/// How far an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportState {
    /// Nobody fetches it at the moment; maybe an attempt has failed, and there will be another one.
    Waiting {
        /// When it is tried next.
        next: Timestamp,
        /// Why the last attempt failed.
        problem: Option<Problem>,
    },
    /// It is being fetched.
    Running,
    /// It is here.
    Succeeded {
        /// The id of the checkpoint or dataset.
        file: String,
    },
    /// It will not be fetched.
    Failed(Problem),
}

/// An import as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Its id.
    pub id: ImportId,
    /// What the file becomes.
    pub kind: Kind,
    /// What it will be called.
    pub name: String,
    /// Where it is, as its owner wrote it.
    pub source: String,
    /// The SHA-256 that it must have, in hexadecimal.
    pub sha256: Option<String>,
    /// How far it is.
    pub state: ImportState,
    /// Bytes that are here, and of how many; none before it has begun and after its end.
    pub progress: Option<(u64, Option<u64>)>,
    /// When it was wanted.
    pub created: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
}

#[derive(FromRow)]
struct ImportRow {
    id: String,
    kind: String,
    name: String,
    source: String,
    sha256: Option<String>,
    state: String,
    due: Option<i64>,
    claimed_until: Option<i64>,
    file_id: Option<String>,
    problem: Option<String>,
    created_at: i64,
    finished_at: Option<i64>,
    acknowledged: Option<i64>,
    total: Option<i64>,
}

fn kind(text: &str) -> Kind {
    if text == Kind::Checkpoint.as_str() { Kind::Checkpoint } else { Kind::Dataset }
}

/// The table of imports; clones share the database.
#[derive(Debug, Clone)]
pub struct Imports {
    database: Database,
    clock: SharedClock,
    steady: Steady,
}

impl Imports {
    /// The imports in `database`.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock) -> Self {
        Self { steady: Steady::new(database.clone(), clock.clone()), database, clock }
    }

    /// Asks for a file, once for each `key`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create(
        &self,
        tenant: &Tenant,
        new: WantedFile,
        key: Option<&RequestKey>,
    ) -> Result<ImportCreation, JobError> {
        let (id, now, due) = (ImportId::new(), self.clock.now().as_millisecond(), self.steady.now().await?);
        let mut transaction = self.database.write().await?;
        if let Some(before) = once(&mut transaction, tenant, key, id, self.clock.now()).await? {
            return Ok(ImportCreation::Before(before));
        }
        let same: Option<String> = sql::query_scalar(
            "SELECT id FROM imports WHERE tenant = $1 AND kind = $2 AND name = $3 AND state = 'waiting'",
        )
        .bind(tenant.as_str())
        .bind(new.kind.as_str())
        .bind(new.name.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(same) = same {
            let wrong = |error| StoreError::inconsistent("imports", same.clone(), error);
            return Ok(same.parse().map(ImportCreation::NameTaken).map_err(wrong)?);
        }
        let made = sql::query(
            "INSERT INTO imports (id, tenant, kind, name, source, sha256, labels, token, state, due, created_at) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, 'waiting', $9, $10 \
             WHERE (SELECT count(*) FROM imports WHERE tenant = $2 AND state = 'waiting') < $11",
        )
        .bind(id.to_string())
        .bind(tenant.as_str())
        .bind(new.kind.as_str())
        .bind(new.name.as_str())
        .bind(new.source.to_string())
        .bind(new.sha256.map(hex::encode))
        .bind(serde_json::json!(new.labels).to_string())
        .bind(new.token)
        .bind(due.as_millis())
        .bind(now)
        .bind(MOST as i64)
        .execute(&mut *transaction)
        .await?;
        if made.rows_affected() == 0 {
            return Ok(ImportCreation::TooMany);
        }
        transaction.commit().await?;
        Ok(ImportCreation::Made(id))
    }

    /// A page of the tenant's imports, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, tenant: &Tenant, listing: &Listing) -> Result<Vec<Import>, StoreError> {
        self.select(tenant, None, listing.after.as_deref(), listing.fetch()).await
    }

    /// The tenant's import of this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, tenant: &Tenant, id: ImportId) -> Result<Option<Import>, StoreError> {
        Ok(self.select(tenant, Some(id), None, 1).await?.pop())
    }

    async fn select(
        &self,
        tenant: &Tenant,
        id: Option<ImportId>,
        after: Option<&str>,
        most: i64,
    ) -> Result<Vec<Import>, StoreError> {
        let now = self.steady.now().await?.as_millis();
        let rows: Vec<ImportRow> = sql::query_as(
            "SELECT imports.*, acknowledged, total FROM imports LEFT JOIN uploads ON imports.state = 'waiting' \
                 AND uploads.kind = imports.kind AND uploads.tenant = imports.tenant AND uploads.name = imports.name \
             WHERE imports.tenant = $1 AND ($2 IS NULL OR imports.id = $2) AND ($3 IS NULL OR imports.id < $3) \
             ORDER BY imports.id DESC LIMIT $4",
        )
        .bind(tenant.as_str())
        .bind(id.map(|id| id.to_string()))
        .bind(after)
        .bind(most)
        .fetch_all(self.database.reader())
        .await?;
        rows.into_iter().map(|row| self.read(row, now)).collect()
    }

    fn read(&self, row: ImportRow, now: i64) -> Result<Import, StoreError> {
        let wrong = |detail: String| StoreError::inconsistent("imports", row.id.clone(), detail);
        let problem: Option<Problem> = row
            .problem
            .as_deref()
            .map(serde_json::from_str)
            .transpose()
            .map_err(|error: serde_json::Error| wrong(error.to_string()))?;
        let missing = |column: &str| wrong(format!("an import that is {} has no {column}", row.state));
        let state = match row.state.as_str() {
            "waiting" if row.claimed_until.is_some_and(|until| until > now) => ImportState::Running,
            "waiting" => {
                let wait = row.due.ok_or_else(|| missing("due"))?.saturating_sub(now).max(0);
                ImportState::Waiting {
                    next: from_millis(self.clock.now().as_millisecond().saturating_add(wait)),
                    problem,
                }
            }
            "succeeded" => ImportState::Succeeded { file: row.file_id.clone().ok_or_else(|| missing("file_id"))? },
            "failed" => ImportState::Failed(problem.ok_or_else(|| missing("problem"))?),
            other => return Err(wrong(format!("unknown state {other:?}"))),
        };
        let size = |value: i64| u64::try_from(value).unwrap_or_default();
        Ok(Import {
            id: row.id.parse().map_err(|error| wrong(format!("{error}")))?,
            kind: kind(&row.kind),
            progress: row.acknowledged.map(|bytes| (size(bytes), row.total.map(size))),
            created: from_millis(row.created_at),
            finished: row.finished_at.map(from_millis),
            name: row.name,
            source: row.source,
            sha256: row.sha256,
            state,
        })
    }

    /// Forgets an import; one that is running stops soon. False where there is none of this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete(&self, tenant: &Tenant, id: ImportId) -> Result<bool, StoreError> {
        let mut transaction = self.database.write().await?;
        let gone = sql::query("DELETE FROM imports WHERE tenant = $1 AND id = $2")
            .bind(tenant.as_str())
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(gone.rows_affected() == 1)
    }
}
