//! One SQLite file: a single connection that writes, and a few beside it that read.
//!
//! The writing connection serves as long as its transactions commit. After any other end of a transaction (a failure, a
//! refusal, a request that went away) it is closed, which rolls back, and the next writer opens a fresh one: SQLite
//! ends some transactions by itself when the storage fails, and a connection that is not there cannot be in doubt about it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::connection::{Connection, Held};
use super::migrations::sqlite as migrator;
use super::readers::Readers;
use crate::domain::problem::Code;
use crate::store::blobs::Backend;
use crate::store::error::StoreError;
use crate::store::identity::DataFolder;

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it waits for it at a time, where there is something to begin. SQLite sleeps ever longer while it waits, up to a tenth of a second,
/// so that whoever has waited for long is overtaken by whoever comes: it is asked anew before it sleeps for long.
const BUSY_STEP: Duration = Duration::from_millis(8);

/// The one connection that writes, and how to open another; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    connection: Arc<Mutex<Option<SqliteConnection>>>,
    options: Arc<SqliteConnectOptions>,
}

/// Opens the file `path`, making it and bringing its schema up to date as needed. Its files are those in `blobs`; one process at
/// a time opens those of a `data_dir`.
pub(super) async fn open(path: &Path, data_dir: &Path, blobs: &Backend) -> Result<(Writer, Readers), StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let lock = lock(data_dir).await?;
    let folder = DataFolder::new(blobs, path);
    folder.check_before_open().await?;
    let making = options.clone().create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    let mut writer = making.connect().await?;
    migrator().run(&mut writer).await?;
    let mut writer = Connection::of(Held::Sqlite(writer));
    folder.settle(&mut writer).await?;
    drop(lock);
    // A connection that is opened later must find the file that was opened first, not make another.
    let options = options.create_if_missing(false);
    let readers = Readers::open(options.clone(), BUSY_TIMEOUT).await?;
    let mut connection = match *writer.0 {
        Held::Sqlite(connection) => Some(connection),
        _ => None,
    };
    if let Some(connection) = &mut connection {
        let step = sqlx::AssertSqlSafe(format!("PRAGMA busy_timeout = {}", BUSY_STEP.as_millis()));
        sqlx::query(step).execute(connection).await?;
    }
    let options = options.busy_timeout(BUSY_STEP);
    Ok((Writer { connection: Arc::new(Mutex::new(connection)), options: Arc::new(options) }, readers))
}

impl Writer {
    /// Begins a transaction that writes from its first statement on (`BEGIN IMMEDIATE`). A connection whose transaction has committed
    /// goes back to its home.
    ///
    /// # Errors
    /// When another process holds the write lock for longer than the busy timeout, or the storage fails.
    pub(super) async fn begin(
        &self,
    ) -> Result<(SqliteConnection, OwnedMutexGuard<Option<SqliteConnection>>), StoreError> {
        let home = tokio::time::timeout(BUSY_TIMEOUT, self.connection.clone().lock_owned());
        let mut home = home.await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let deadline = Instant::now() + BUSY_TIMEOUT;
        loop {
            match self.try_begin(&mut home).await {
                Ok(connection) => return Ok((connection, home)),
                Err(error) if is_busy(&error) && Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A connection with a transaction. One that has only waited in vain stays at home.
    async fn try_begin(&self, home: &mut Option<SqliteConnection>) -> Result<SqliteConnection, StoreError> {
        let mut connection = match home.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        match sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.map_err(StoreError::from) {
            Ok(_) => Ok(connection),
            Err(error) => {
                if is_busy(&error) {
                    *home = Some(connection);
                }
                Err(error)
            }
        }
    }

    /// A connection of its own that can only read, for who has to ask the same one again and again.
    ///
    /// # Errors
    /// When the storage fails.
    pub(super) async fn observer(&self) -> Result<SqliteConnection, StoreError> {
        Ok(self.options.as_ref().clone().read_only(true).connect().await?)
    }

    /// Finishes what runs and closes the connection.
    pub(super) async fn close(&self) {
        if let Some(writer) = self.connection.lock().await.take()
            && let Err(error) = writer.close().await
        {
            tracing::warn!(%error, "the database was not closed cleanly; the next start recovers it");
        }
    }
}

/// Whether another process writes.
fn is_busy(error: &StoreError) -> bool {
    matches!(error, StoreError::Database(sqlx::Error::Database(_))) && error.code() == Code::Unavailable
}

/// A number that changes with every commit of another connection.
///
/// # Errors
/// When the storage fails.
pub(super) async fn version(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await?)
}

/// One process at a time makes the file and migrates it. SQLite has no lock for that: none spans several transactions, and
/// the change to write-ahead logging waits for nobody, it fails at once beside another connection. A locked file has.
async fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let (folder, path) = (data_dir.to_owned(), data_dir.join("migrate.lock"));
    let lock = tokio::task::spawn_blocking(move || {
        // The folder is what is looked for, where it is not there.
        let named = |folder: PathBuf| if folder.exists() { path.clone() } else { folder };
        let file = File::create(&path).map_err(|error| StoreError::file(named(folder))(error))?;
        file.lock().map_err(StoreError::file(&path))?;
        Ok(file)
    });
    lock.await.map_err(|error| StoreError::file(data_dir)(std::io::Error::other(error)))?
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_folder_that_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("a folder").path().join("gone");
        let refused = super::lock(&folder).await.expect_err("there is no folder").to_string();
        assert!(refused.contains("gone") && !refused.contains("migrate.lock"), "{refused}");
    }

    use super::*;
    use crate::store::{Database, sql};

    #[tokio::test]
    async fn a_database_opens_twice_writes_in_one_place_and_reads_in_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = tokio::join!(Database::open(folder.path()), Database::open(folder.path()));
        let (first, second) = (first.expect("opens"), second.expect("opens beside another"));
        let mut transaction = first.write().await.expect("begins");
        sql::query("INSERT INTO api_keys VALUES ('k', 't', 'read', '', zeroblob(32), 0, NULL, NULL, NULL)")
            .execute(&mut *transaction)
            .await
            .expect("writes");
        transaction.commit().await.expect("commits");
        let count: i64 =
            sql::query_scalar("SELECT count(*) FROM api_keys").fetch_one(second.reader()).await.expect("reads");
        assert_eq!(count, 1);
        let refused = sql::query("DELETE FROM api_keys").execute(second.reader()).await;
        assert!(refused.is_err(), "the reader must not write");
        for _ in ["the first connection", "one that was opened later"] {
            let mut transaction = first.write().await.expect("begins");
            let settings: (String, i64, i64) = sql::query_as(
                "SELECT (SELECT journal_mode FROM pragma_journal_mode), (SELECT synchronous FROM pragma_synchronous),
                        (SELECT foreign_keys FROM pragma_foreign_keys)",
            )
            .fetch_one(&mut *transaction)
            .await
            .expect("reads");
            assert_eq!(settings, ("wal".to_owned(), 2, 1), "WAL, synchronous FULL");
        }
    }

    #[tokio::test]
    async fn whatever_ends_a_transaction_the_next_one_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Database::open(folder.path()).await.expect("opens");
        let other = Database::open(folder.path()).await.expect("opens");
        let insert = async |database: &Database| {
            let mut transaction = database.write().await?;
            sql::query("INSERT INTO api_keys VALUES ('k', 't', 'read', '', zeroblob(32), 0, NULL, NULL, NULL)")
                .execute(&mut *transaction)
                .await?;
            Ok::<_, StoreError>(transaction)
        };
        let count = async || {
            let count = sql::query_scalar::<i64>("SELECT count(*) FROM api_keys").fetch_one(other.reader());
            count.await.expect("reads")
        };
        drop(insert(&database).await.expect("writes"));
        assert_eq!(count().await, 0, "dropped is rolled back");

        // SQLite ends a transaction by itself when the disk is full; here a statement does.
        let mut transaction = insert(&database).await.expect("writes");
        sql::query("ROLLBACK").execute(&mut *transaction).await.expect("rolls back");
        assert!(transaction.commit().await.is_err(), "there is nothing to commit");
        assert_eq!(count().await, 0);

        drop(insert(&other).await.expect("another process begins as soon as this one has rolled back"));
        insert(&database).await.expect("writes").commit().await.expect("commits");
        assert_eq!(count().await, 1);
    }

    #[tokio::test]
    async fn whoever_writes_waits_for_another_process_that_does_and_keeps_its_connection() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = (Database::open(folder.path()).await, Database::open(folder.path()).await);
        let (one, other) = (one.expect("opens"), other.expect("opens beside another"));
        let mark = "CREATE TEMP TABLE mark (a)";
        let mut transaction = other.write().await.expect("begins");
        sql::query(mark).execute(&mut *transaction).await.expect("marks the connection");
        transaction.commit().await.expect("commits");
        let held = one.write().await.expect("begins");
        let waiting = tokio::spawn(async move { other.write().await });
        // Longer than a connection waits at a time.
        tokio::time::sleep(10 * BUSY_STEP).await;
        assert!(!waiting.is_finished());
        held.commit().await.expect("commits");
        let mut transaction = waiting.await.expect("no panic").expect("begins");
        sql::query("INSERT INTO mark VALUES (1)").execute(&mut *transaction).await.expect("it is the same connection");
    }
}
