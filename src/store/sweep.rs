//! Finds blobs that no row names: what a crash between the bytes and their row has left behind. None is touched on a doubt:
//! it must be older than a day, be found twice, an hour apart, and it only goes to the [`Trash`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::files::Kind;
use super::jobs::Jobs;
use super::sql;
use super::trash::Trash;
use super::{Blobs, Database, StoreError, multipart};
use crate::domain::clock::SharedClock;

/// Blobs younger than this may belong to a transaction that is still to come.
const YOUNGEST: Duration = Duration::from_hours(24);
/// Time between the first look that finds a blob without a row and the one that takes it.
pub const BETWEEN_LOOKS: Duration = Duration::from_hours(1);

/// Looks for blobs without a row, again and again.
#[derive(Debug)]
pub struct Sweeper {
    database: Database,
    blobs: Blobs,
    trash: Trash,
    clock: SharedClock,
    /// When each blob without a row was first seen, in milliseconds since the epoch.
    suspects: BTreeMap<String, i64>,
}

impl Sweeper {
    /// Sweeps `blobs`, of which `database` names those that are needed.
    #[must_use]
    pub fn new(database: Database, blobs: Blobs, trash: Trash, clock: SharedClock) -> Self {
        Self { database, blobs, trash, clock, suspects: BTreeMap::new() }
    }

    /// Looks once: moves the blobs to the trash that were suspects an hour ago already. Says how many.
    ///
    /// # Errors
    /// When the database or the file system fails.
    pub async fn look(&mut self) -> Result<usize, StoreError> {
        let mut blobs = Vec::new();
        for folder in [Kind::Checkpoint.plural(), Kind::Dataset.plural(), Jobs::FOLDER, multipart::FOLDER] {
            blobs.extend(self.blobs.list(folder).await?);
        }
        // Read after the blobs were listed, so that a row which was written meanwhile is seen.
        let named = self.named().await?;
        let now = self.clock.now().as_millisecond();
        let old = blobs.into_iter().filter(|(_, written)| *written <= now - YOUNGEST.as_millis() as i64);
        let orphans = old.map(|(key, _)| key).filter(|key| !named.contains(key));
        let suspects: BTreeMap<String, i64> =
            orphans.map(|key| (key.clone(), self.suspects.get(&key).copied().unwrap_or(now))).collect();
        let (taken, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
            suspects.into_iter().partition(|(_, seen)| *seen <= now - BETWEEN_LOOKS.as_millis() as i64);
        self.suspects = left;
        for key in taken.keys() {
            self.trash.take_blob(&self.blobs, key).await?;
            // A job's blobs lie in folders of its own.
            if let [Jobs::FOLDER, job, ..] = key.split('/').collect::<Vec<_>>()[..] {
                self.blobs.prune(&format!("{}/{job}", Jobs::FOLDER)).await;
            }
        }
        Ok(taken.len())
    }

    async fn named(&self) -> Result<BTreeSet<String>, StoreError> {
        let named: Vec<String> = sql::query_scalar(
            "SELECT blob_key FROM checkpoints UNION SELECT blob_key FROM datasets UNION SELECT blob_key FROM job_artifacts
             UNION SELECT checkpoint_key FROM jobs WHERE checkpoint_key IS NOT NULL UNION SELECT blob_key FROM multipart_uploads
             UNION SELECT tail_key FROM multipart_uploads WHERE tail_key IS NOT NULL",
        )
        .fetch_all(self.database.reader())
        .await?;
        Ok(named.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::clock::{Clock, ManualClock, SystemClock};
    use crate::store::testing;

    #[tokio::test]
    async fn a_blob_goes_to_the_trash_when_it_is_old_and_found_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let database = testing::open(folder.path()).await;
        let blobs = Blobs::open(folder.path()).expect("opens");
        let trash = Trash::new(folder.path(), YOUNGEST, clock.clone());
        let mut sweeper = Sweeper::new(database.clone(), blobs.clone(), trash, clock.clone());
        for key in ["checkpoints/named", "checkpoints/orphan", "jobs/j/1/orphan"] {
            let staged = folder.path().join("staged");
            std::fs::write(&staged, key).expect("writes");
            blobs.put_file(&staged, key).await.expect("moves");
        }
        let mut transaction = database.write().await.expect("begins");
        sql::query(
            "INSERT INTO checkpoints (id, tenant, name, sha256, bytes, blob_key, labels, header, created_at) VALUES ('c', 't', 'n', $1, 1, 'checkpoints/named', '{}', '{}', 0)",
        )
        .bind("0".repeat(64))
        .execute(&mut *transaction)
        .await
        .expect("writes");
        transaction.commit().await.expect("commits");
        let exists = |key: &str| folder.path().join("blobs").join(key).exists();

        assert_eq!(sweeper.look().await.expect("looks"), 0);
        clock.advance(BETWEEN_LOOKS);
        assert_eq!(sweeper.look().await.expect("looks"), 0, "found twice, but young");
        clock.advance(YOUNGEST);
        assert_eq!(sweeper.look().await.expect("looks"), 0, "old, but found for the first time");
        clock.advance(BETWEEN_LOOKS / 2);
        assert_eq!(sweeper.look().await.expect("looks"), 0, "found twice, but too soon");
        assert!(exists("checkpoints/orphan"));
        clock.advance(BETWEEN_LOOKS / 2);
        assert_eq!(sweeper.look().await.expect("looks"), 2);
        assert!(exists("checkpoints/named") && !exists("checkpoints/orphan") && !exists("jobs/j"));
        let days: Vec<_> = std::fs::read_dir(folder.path().join("trash")).expect("a trash").collect();
        let day = days.into_iter().next().expect("a day").expect("reads").path();
        assert_eq!(std::fs::read(day.join("checkpoints/orphan")).expect("still there"), b"checkpoints/orphan");
    }
}
