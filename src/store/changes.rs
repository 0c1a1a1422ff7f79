//! Whether anybody has written to the database: one cheap look, again and again, for all who wait for something to be written.
//! Other processes write too, and nothing but a look tells of that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::database::Observer;
use super::{Database, StoreError};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Looks while somebody waits; clones share the look.
#[derive(Debug, Clone)]
pub struct Changes {
    database: Database,
    tasks: TaskTracker,
    count: Arc<watch::Sender<u64>>,
    looking: Arc<Mutex<bool>>,
}

/// Tells of what has been written since it was asked last.
#[derive(Debug)]
pub struct Ticks(watch::Receiver<u64>);

impl Ticks {
    /// Returns when something may have been written since the call before; the first call returns at once.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody looks any more.
            std::future::pending::<()>().await;
        }
    }
}

impl Changes {
    /// Looks at `database`, by a task among `tasks`.
    #[must_use]
    pub fn new(database: Database, tasks: TaskTracker) -> Self {
        Self { database, tasks, count: Arc::new(watch::Sender::new(0)), looking: Arc::default() }
    }

    /// Begins to wait.
    #[must_use]
    pub fn ticks(&self) -> Ticks {
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut receiver = self.count.subscribe();
        receiver.mark_changed();
        if !*looking {
            *looking = true;
            self.tasks.spawn(self.clone().look());
        }
        Ticks(receiver)
    }

    /// Looks until nobody waits.
    async fn look(self) {
        let mut observer = None;
        loop {
            let changed = tokio::select! {
                changed = self.wait(&mut observer) => changed,
                () = self.count.closed() => false,
            };
            if changed {
                self.count.send_modify(|count| *count += 1);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.count.closed() => {}
            }
            let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
            if self.count.receiver_count() == 0 {
                *looking = false;
                return;
            }
        }
    }

    /// Whether there is a reason for everybody to look; a failed look is one.
    async fn wait(&self, observer: &mut Option<Observer>) -> bool {
        let outcome = async {
            let mut watching = match observer.take() {
                Some(watching) => watching,
                None => self.database.observer().await?,
            };
            let changed = watching.wait().await?;
            *observer = Some(watching);
            Ok::<_, StoreError>(changed)
        };
        outcome.await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the look for changes failed");
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql;
    use crate::store::testing;

    const PATIENCE: Duration = Duration::from_secs(10);
    const NOTHING: Duration = Duration::from_millis(500);

    async fn write(database: &Database) {
        let mut transaction = database.write().await.expect("begins");
        sql::query(
            "INSERT INTO imports (id, tenant, kind, name, source, labels, state, due, created_at)
             SELECT CAST(count(*) AS TEXT), 't', 'dataset', CAST(count(*) AS TEXT), 's', '{}', 'waiting', 0, 0 FROM imports",
        )
        .execute(&mut *transaction)
        .await
        .expect("writes");
        transaction.commit().await.expect("commits");
    }

    #[tokio::test]
    async fn commits_of_this_process_and_of_others_are_told_and_silence_is_silent() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = testing::open(folder.path()).await;
        let other = testing::open(folder.path()).await;
        let tasks = TaskTracker::new();
        let changes = Changes::new(database.clone(), tasks.clone());
        let mut ticks = changes.ticks();
        for _ in ["at once", "with the first look"] {
            tokio::time::timeout(PATIENCE, ticks.next()).await.expect("a tick");
        }
        for writer in [&database, &other] {
            assert!(tokio::time::timeout(NOTHING, ticks.next()).await.is_err(), "nobody has written");
            write(writer).await;
            tokio::time::timeout(PATIENCE, ticks.next()).await.expect("a tick");
        }
        drop(ticks);
        tasks.close();
        tokio::time::timeout(PATIENCE, tasks.wait()).await.expect("it ends with the last who waits");
    }
}
