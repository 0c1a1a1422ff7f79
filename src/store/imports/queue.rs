//! Which file is fetched next, and what became of an attempt.

use std::time::Duration;

use serde_json::json;

use super::{Imports, WantedFile, kind};
use crate::domain::access::Tenant;
use crate::domain::clock::SteadyTime;
use crate::domain::id::ImportId;
use crate::domain::problem::Problem;
use crate::store::StoreError;
use crate::store::sql;
use crate::store::sql::{Count, FromRow};

/// Files of one tenant that are fetched at the same time.
const AT_ONCE: i64 = 2;
/// How long imports that have ended are remembered.
const KEPT: Duration = Duration::from_hours(30 * 24);
/// Pauses after attempts that the source has spoilt, in seconds: seven attempts within three hours.
const PAUSES: [u64; 6] = [2, 15, 60, 300, 1800, 7200];

/// A file that somebody is about to fetch.
#[derive(Debug)]
pub struct ToFetch {
    /// The import.
    pub id: ImportId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The file.
    pub file: WantedFile,
    /// Which version an earlier attempt has begun.
    pub etag: Option<String>,
    /// Which attempt this is: what another one writes is not this one's.
    tried: u32,
}

#[derive(FromRow)]
struct Claimed {
    id: String,
    tenant: String,
    kind: String,
    name: String,
    source: String,
    sha256: Option<String>,
    labels: String,
    token: Option<String>,
    etag: Option<String>,
    tried: Count,
}

impl Claimed {
    fn read(self) -> Result<ToFetch, StoreError> {
        let wrong = |detail: String| StoreError::inconsistent("imports", self.id.clone(), detail);
        let digest = |text: &String| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(text, &mut bytes).map(|()| bytes).map_err(|error| wrong(error.to_string()))
        };
        Ok(ToFetch {
            id: self.id.parse().map_err(|error| wrong(format!("{error}")))?,
            tenant: self.tenant.parse().map_err(wrong)?,
            file: WantedFile {
                kind: kind(&self.kind),
                name: self.name.parse().map_err(|error| wrong(format!("{error}")))?,
                source: self.source.parse().map_err(wrong)?,
                sha256: self.sha256.as_ref().map(digest).transpose()?,
                labels: serde_json::from_str(&self.labels).map_err(|error| wrong(error.to_string()))?,
                token: self.token,
            },
            etag: self.etag,
            tried: self.tried.0,
        })
    }
}

impl Imports {
    /// Takes the file that has been due the longest, to be fetched for `lease`, which [`Self::renew`] prolongs. A tenant has two at a time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(&self, lease: Duration) -> Result<Option<ToFetch>, StoreError> {
        let now = self.steady.now().await?;
        let due: bool = sql::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM imports WHERE state = 'waiting' AND due <= $1 \
                            AND (claimed_until IS NULL OR claimed_until <= $1))",
        )
        .bind(now.as_millis())
        .fetch_one(self.database.reader())
        .await?;
        if !due {
            return Ok(None);
        }
        let until = now.after(lease).as_millis();
        let mut transaction = self.database.write().await?;
        let row: Option<Claimed> = sql::query_as(
            "UPDATE imports SET claimed_until = $2, tried = tried + 1 WHERE id = ( \
                 SELECT id FROM imports AS waiting WHERE state = 'waiting' AND due <= $1 \
                     AND (claimed_until IS NULL OR claimed_until <= $1) \
                     AND (SELECT count(*) FROM imports AS busy WHERE busy.tenant = waiting.tenant AND busy.claimed_until > $1) < $3 \
                 ORDER BY due, id LIMIT 1) RETURNING *",
        )
        .bind(now.as_millis())
        .bind(until)
        .bind(AT_ONCE)
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        row.map(Claimed::read).transpose()
    }

    /// Goes on fetching for `lease` from now; false where the import is not this one's any more: it was deleted, or somebody else has it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew(&self, held: &ToFetch, lease: Duration) -> Result<bool, StoreError> {
        let until = self.steady.now().await?.after(lease).as_millis();
        let statement =
            "UPDATE imports SET claimed_until = $3 WHERE id = $1 AND tried = $2 AND claimed_until IS NOT NULL";
        self.write(held, statement, until).await
    }

    /// Notes which version of the file has been begun.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_version(&self, held: &ToFetch, etag: Option<&str>) -> Result<(), StoreError> {
        self.write(
            held,
            "UPDATE imports SET etag = $3 WHERE id = $1 AND tried = $2 AND claimed_until IS NOT NULL",
            etag.map(str::to_owned),
        )
        .await?;
        Ok(())
    }

    /// The file is here.
    ///
    /// # Errors
    /// When the database fails; the next attempt then finds the file.
    pub async fn succeed(&self, held: &ToFetch, file: &str) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        sql::query(
            "UPDATE imports SET state = 'succeeded', file_id = $3, due = NULL, claimed_until = NULL, token = NULL, problem = NULL, \
                 finished_at = $4 WHERE id = $1 AND tried = $2 AND claimed_until IS NOT NULL",
        )
        .bind(held.id.to_string())
        .bind(held.tried)
        .bind(file)
        .bind(self.clock.now().as_millisecond())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// An attempt has failed. There will be another one where `again`, and there were not too many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn fail(&self, held: &ToFetch, problem: &Problem, again: bool) -> Result<(), StoreError> {
        let now = self.steady.now().await?;
        let pause = held.tried.checked_sub(1).and_then(|tried| PAUSES.get(usize::try_from(tried).ok()?));
        let due = pause.filter(|_| again).map(|pause| now.after(Duration::from_secs(*pause)));
        let mut transaction = self.database.write().await?;
        sql::query(
            "UPDATE imports SET state = CASE WHEN $3 IS NULL THEN 'failed' ELSE 'waiting' END, due = $3, claimed_until = NULL, problem = $4, \
                 token = CASE WHEN $3 IS NOT NULL THEN token END, finished_at = CASE WHEN $3 IS NULL THEN $5 END \
             WHERE id = $1 AND tried = $2 AND claimed_until IS NOT NULL",
        )
        .bind(held.id.to_string())
        .bind(held.tried)
        .bind(due.map(SteadyTime::as_millis))
        .bind(json!(problem).to_string())
        .bind(self.clock.now().as_millisecond())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Gives a file back whose attempt was ended from outside; that attempt does not count.
    ///
    /// # Errors
    /// When the database fails; the lease then lapses.
    pub async fn release(&self, held: &ToFetch) -> Result<(), StoreError> {
        let statement = "UPDATE imports SET claimed_until = $3, tried = tried - 1 WHERE id = $1 AND tried = $2 AND claimed_until IS NOT NULL";
        self.write(held, statement, None::<i64>).await?;
        Ok(())
    }

    /// Runs a statement of the import, whoever holds it and one more value; whether it was still held.
    async fn write(
        &self,
        held: &ToFetch,
        statement: &'static str,
        value: impl Into<sql::Value>,
    ) -> Result<bool, StoreError> {
        let value = value.into();
        let mut transaction = self.database.write().await?;
        let changed = sql::query(statement)
            .bind(held.id.to_string())
            .bind(held.tried)
            .bind(value)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(changed.rows_affected() == 1)
    }

    /// Forgets imports that ended long ago, and says how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_old(&self) -> Result<usize, StoreError> {
        let before = self.clock.now().as_millisecond() - KEPT.as_millis() as i64;
        let mut transaction = self.database.write().await?;
        let gone = sql::query("DELETE FROM imports WHERE state <> 'waiting' AND finished_at < $1")
            .bind(before)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(usize::try_from(gone.rows_affected()).unwrap_or(usize::MAX))
    }
}
