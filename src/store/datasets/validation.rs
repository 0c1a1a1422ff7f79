//! Whose dataset is read through next, and what became of it.

use std::time::Duration;

use crate::store::database::Connection;
use crate::store::sql;
use serde_json::json;

use super::Datasets;
use crate::domain::dataset::DatasetFacts;
use crate::domain::id::DatasetId;
use crate::domain::problem::Problem;
use crate::domain::webhook::EventType;
use crate::store::StoreError;
use crate::store::tenants::{self, Turn};
use crate::store::webhooks::announce;

/// How long a dataset waits that could not be read: the first time, and at most.
const SHORTEST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// A dataset that somebody has taken to read it through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToValidate {
    /// The dataset.
    pub id: DatasetId,
    /// Its bytes.
    pub blob_key: String,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
    /// How often it was taken, this time included.
    pub attempt: i64,
    /// Whose it is.
    tenant: String,
    /// When it was taken, in steady time.
    taken_at: i64,
}

impl ToValidate {
    /// Counts the time for which it was read, until the steady time `now`.
    async fn count(&self, conn: &mut Connection, now: i64) -> Result<(), StoreError> {
        tenants::has_read(conn, &self.tenant, now - self.taken_at, now).await
    }
}

/// How much of the reading one tenant may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Datasets that are read at the same time.
    pub most: usize,
    /// Seconds of reading within an hour, for tenants without a limit of their own.
    pub seconds: Option<u64>,
}

impl Datasets {
    /// Takes a dataset that nobody validates, for `lease`; after that anyone may take it again. Tenants take turns: of those that have
    /// fewer than `share.most` datasets being read and time left in this hour, the one with the fewest is next, then the one that has had
    /// the least time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(&self, lease: Duration, share: Share) -> Result<Option<ToValidate>, StoreError> {
        let now = self.steady.now().await?;
        let (now, until) = (now.as_millis(), now.after(lease).as_millis());
        let something: bool = sql::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM datasets WHERE state = 'validating' AND (lease_until IS NULL OR lease_until <= $1)
                            AND (not_before IS NULL OR not_before <= $1))
                 OR EXISTS (SELECT 1 FROM tenant_turns WHERE reading_ms > 0 AND reading_since <= $1 - $2)",
        )
        .bind(now)
        .bind(tenants::HOUR_MS)
        .fetch_one(self.table.database.reader())
        .await?;
        if !something {
            return Ok(None);
        }
        let mut transaction = self.table.database.write().await?;
        tenants::begin_reading_hours(&mut transaction, now).await?;
        let row: Option<(String, String, String, i64, String)> = sql::query_as(
            "WITH waiting AS (
                 SELECT id, tenant, created_at, (
                     SELECT count(*) FROM datasets AS other
                     WHERE other.state = 'validating' AND other.lease_until > $2 AND other.tenant = datasets.tenant) AS busy, coalesce((
                     SELECT most FROM tenant_limits
                     WHERE tenant_limits.tenant = datasets.tenant AND resource = 'reading_seconds'), $4) AS seconds
                 FROM datasets WHERE state = 'validating' AND (lease_until IS NULL OR lease_until <= $2)
                     AND (not_before IS NULL OR not_before <= $2))
             UPDATE datasets SET lease_until = $1, attempts = attempts + 1
             WHERE id = (SELECT id FROM waiting LEFT JOIN tenant_turns ON tenant_turns.tenant = waiting.tenant
                         WHERE busy < $3 AND (seconds = 0 OR coalesce(reading_ms, 0) < 1000 * seconds)
                         ORDER BY busy, coalesce(reading_ms, 0), coalesce(dataset, 0), created_at, id LIMIT 1)
             RETURNING id, blob_key, sha256, attempts, tenant",
        )
        .bind(until)
        .bind(now)
        .bind(i64::try_from(share.most).unwrap_or(i64::MAX))
        // Whoever asks for more seconds than this asks for no limit.
        .bind(share.seconds.map_or(0, |seconds| i64::try_from(seconds).unwrap_or(0)))
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some((.., tenant)) = &row {
            tenants::served(&mut transaction, tenant, Turn::Dataset).await?;
        }
        transaction.commit().await?;
        let parse = |(id, blob_key, sha256, attempt, tenant): (String, String, String, i64, String)| {
            let id = id.parse().map_err(|error| StoreError::inconsistent("datasets", id.clone(), error))?;
            Ok(ToValidate { id, blob_key, sha256, attempt, tenant, taken_at: now })
        };
        row.map(parse).transpose()
    }

    /// Gives a dataset back that could not be read through no fault of its own. It waits before it is taken again, twice as long
    /// each time, so that others are read.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_off(&self, taken: &ToValidate) -> Result<(), StoreError> {
        let now = self.steady.now().await?.as_millis();
        let mut transaction = self.table.database.write().await?;
        let put_off: Option<i64> = sql::query_scalar("SELECT put_off FROM datasets WHERE id = $1")
            .bind(taken.id.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        let times = 1 << put_off.unwrap_or(0).clamp(0, 20);
        sql::query(
            "UPDATE datasets SET lease_until = NULL, attempts = attempts - 1, put_off = put_off + 1, not_before = $1
             WHERE id = $2 AND attempts = $3 AND state = 'validating'",
        )
        .bind(now + (SHORTEST_WAIT.as_millis() as i64 * times).min(LONGEST_WAIT.as_millis() as i64))
        .bind(taken.id.to_string())
        .bind(taken.attempt)
        .execute(&mut *transaction)
        .await?;
        taken.count(&mut transaction, now).await?;
        transaction.commit().await
    }

    /// Gives a dataset back whose reader was ended from outside: the attempt counts, since the dataset may have been why.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn interrupted(&self, taken: &ToValidate) -> Result<(), StoreError> {
        let now = self.steady.now().await?;
        let (now, next) = (now.as_millis(), now.after(SHORTEST_WAIT));
        let mut transaction = self.table.database.write().await?;
        sql::query(
            "UPDATE datasets SET lease_until = NULL, not_before = $1 WHERE id = $2 AND attempts = $3 AND state = 'validating'",
        )
        .bind(next.as_millis())
        .bind(taken.id.to_string())
        .bind(taken.attempt)
        .execute(&mut *transaction)
        .await?;
        taken.count(&mut transaction, now).await?;
        transaction.commit().await
    }

    /// Gives a dataset back unread.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(&self, taken: &ToValidate) -> Result<(), StoreError> {
        let now = self.steady.now().await?.as_millis();
        let mut transaction = self.table.database.write().await?;
        sql::query(
            "UPDATE datasets SET lease_until = NULL, attempts = attempts - 1
             WHERE id = $1 AND attempts = $2 AND state = 'validating'",
        )
        .bind(taken.id.to_string())
        .bind(taken.attempt)
        .execute(&mut *transaction)
        .await?;
        taken.count(&mut transaction, now).await?;
        transaction.commit().await
    }

    /// Writes down what reading a dataset has shown; nothing if somebody else has taken it in the meantime.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn conclude(
        &self,
        taken: &ToValidate,
        outcome: &Result<DatasetFacts, Problem>,
    ) -> Result<(), StoreError> {
        let (state, facts, problem) = match outcome {
            Ok(facts) => ("ready", Some(json!(facts).to_string()), None),
            Err(problem) => ("invalid", None, Some(json!(problem).to_string())),
        };
        let now = self.steady.present().await?;
        let mut transaction = self.table.database.write().await?;
        let concluded: Option<(String, String)> = sql::query_as(
            "UPDATE datasets SET state = $1, facts = $2, problem = $3, validated_at = $4, lease_until = NULL
             WHERE id = $5 AND attempts = $6 AND state = 'validating' RETURNING name, sha256",
        )
        .bind(state)
        .bind(facts)
        .bind(problem)
        .bind(now.date.as_millisecond())
        .bind(taken.id.to_string())
        .bind(taken.attempt)
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some((name, sha256)) = concluded {
            let event = if outcome.is_ok() { EventType::DatasetReady } else { EventType::DatasetInvalid };
            let data = || json!({ "id": taken.id, "name": name, "sha256": sha256, "state": state, "error": outcome.as_ref().err() });
            announce(&mut transaction, &taken.tenant, event, now, data).await?;
        }
        taken.count(&mut transaction, now.steady.as_millis()).await?;
        transaction.commit().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::clock::{ManualClock, from_millis};
    use crate::domain::problem::Code;
    use crate::store::Blobs;
    use crate::store::testing;

    /// A store with these datasets of tenants, in the order of their uploads.
    async fn store(names: &[(&str, &str)]) -> (tempfile::TempDir, Datasets, Arc<ManualClock>) {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::at(from_millis(0)));
        let database = testing::open(folder.path()).await;
        let mut transaction = database.write().await.expect("begins");
        for (place, (tenant, name)) in names.iter().enumerate() {
            sql::query(
                "INSERT INTO datasets (id, tenant, name, sha256, bytes, blob_key, labels, state, created_at)
                 VALUES ($1, $2, $3, $5, 1, 'datasets/' || $1, '{}', 'validating', $4)",
            )
            .bind(DatasetId::new().to_string())
            .bind(*tenant)
            .bind(*name)
            .bind(place as i64)
            .bind("0".repeat(64))
            .execute(&mut *transaction)
            .await
            .expect("inserts");
        }
        transaction.commit().await.expect("commits");
        let datasets = Datasets::new(database, Blobs::open(folder.path()).expect("opens"), clock.clone());
        (folder, datasets, clock)
    }

    async fn take(datasets: &Datasets, most: usize) -> Option<(ToValidate, String)> {
        let share = Share { most, seconds: Some(100) };
        let taken = datasets.claim(Duration::from_mins(1), share).await.expect("claims")?;
        let name = sql::query_scalar("SELECT name FROM datasets WHERE id = $1")
            .bind(taken.id.to_string())
            .fetch_one(datasets.table.database.reader())
            .await
            .expect("reads");
        Some((taken, name))
    }

    #[tokio::test]
    async fn tenants_take_turns_and_one_never_has_all_readers() {
        let (_folder, datasets, _) = store(&[("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("b", "b2")]).await;
        let mut order = Vec::new();
        while let Some((_, name)) = take(&datasets, 2).await {
            order.push(name);
        }
        assert_eq!(order, ["a1", "b1", "a2", "b2"], "a third one of one tenant waits while two are read");
    }

    #[tokio::test]
    async fn who_has_had_its_time_waits_until_the_hour_is_over() {
        let names = [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("b", "b2")];
        let (_folder, datasets, clock) = store(&names).await;
        let facts = || Err(Problem::new(Code::DatasetInvalid, "read"));
        let mut order = Vec::new();
        while let Some((taken, name)) = take(&datasets, 9).await {
            clock.advance(Duration::from_secs(if name.starts_with('a') { 60 } else { 1 }));
            datasets.conclude(&taken, &facts()).await.expect("concludes");
            order.push(name);
        }
        assert_eq!(order, ["a1", "b1", "b2", "a2"], "the least served is next, and 120 s are more than 100");
        clock.advance(Duration::from_mins(59));
        assert_eq!(take(&datasets, 9).await.expect("another hour").1, "a3");
    }

    #[tokio::test]
    async fn what_cannot_be_read_waits_longer_each_time_and_lets_others_pass() {
        let (_folder, datasets, clock) = store(&[("a", "bad"), ("a", "good")]).await;
        let (bad, name) = take(&datasets, 1).await.expect("a dataset");
        assert_eq!(name, "bad");
        datasets.put_off(&bad).await.expect("writes");
        let (good, name) = take(&datasets, 1).await.expect("the next one");
        assert_eq!(name, "good");
        datasets
            .conclude(&good, &Err(Problem::new(crate::domain::problem::Code::DatasetInvalid, "")))
            .await
            .expect("writes");
        for wait in [SHORTEST_WAIT, 2 * SHORTEST_WAIT, 4 * SHORTEST_WAIT] {
            clock.advance(wait / 2);
            assert!(take(&datasets, 1).await.is_none(), "it waits {wait:?}");
            clock.advance(wait / 2);
            let (bad, _) = take(&datasets, 1).await.expect("its time has come");
            assert_eq!(bad.attempt, 1, "an attempt that the machine has spoilt does not count");
            datasets.put_off(&bad).await.expect("writes");
        }
        clock.advance(LONGEST_WAIT);
        let (killed, _) = take(&datasets, 1).await.expect("its time has come");
        datasets.interrupted(&killed).await.expect("writes");
        assert!(take(&datasets, 1).await.is_none());
        clock.advance(SHORTEST_WAIT);
        assert_eq!(take(&datasets, 1).await.expect("again").0.attempt, 2, "one that was killed counts");
    }
}
