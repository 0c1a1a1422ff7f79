//! One SQLite file: a single connection that writes, a read-only pool beside it.
//!
//! The writing connection serves as long as its transactions commit. After any other end of a transaction (a failure, a
//! refusal, a request that went away) it is closed, which rolls back, and the next writer opens a fresh one: SQLite
//! ends some transactions by itself when the storage fails, and a connection that is not there cannot be in doubt about it.

use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::blobs::{Backend, FOLDER};
use super::error::StoreError;
use super::identity::DataFolder;
use super::migrations::migrator;

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
const READERS: u32 = 4;

/// The database; clones share their connections.
#[derive(Debug, Clone)]
pub struct Database {
    writer: Arc<Mutex<Option<SqliteConnection>>>,
    writing: SqliteConnectOptions,
    reader: SqlitePool,
}

/// A transaction that may write. Dropped before [`WriteTransaction::commit`], it is rolled back.
#[derive(Debug)]
pub struct WriteTransaction {
    // Dropped before the lock, so that the next writer does not wait for the one that this one's end rolls back.
    connection: SqliteConnection,
    home: OwnedMutexGuard<Option<SqliteConnection>>,
}

impl WriteTransaction {
    /// Makes everything that was written last.
    ///
    /// # Errors
    /// When the storage fails: nothing was written then, unless the machine stops before the next commit.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        let Self { connection, mut home } = self;
        *home = Some(connection);
        Ok(())
    }
}

impl Deref for WriteTransaction {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for WriteTransaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Database {
    /// Opens `engraft.db` in the folder `data_dir`, making it and bringing its schema up to date as needed.
    ///
    /// # Errors
    /// When the folder is not writable, the file is no database, its schema is newer than this program, or the files in the
    /// folder belong to another database.
    pub async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_beside(data_dir, &Backend::Folder(data_dir.join(FOLDER))).await
    }

    /// The same where the files are those of `blobs`.
    ///
    /// # Errors
    /// Those of [`Database::open`], and when a bucket does not answer.
    pub async fn open_beside(data_dir: &Path, blobs: &Backend) -> Result<Self, StoreError> {
        let path = data_dir.join("engraft.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let lock = lock(data_dir).await?;
        let folder = DataFolder::new(blobs, &path);
        folder.check_before_open().await?;
        let making = options.clone().create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
        let mut writer = making.connect().await?;
        migrator().run(&mut writer).await?;
        folder.settle(&mut writer).await?;
        drop(lock);
        // A connection that is opened later must find the file that was opened first, not make another.
        let writing = options.create_if_missing(false);
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .min_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(writing.clone().read_only(true))
            .await?;
        Ok(Self { writer: Arc::new(Mutex::new(Some(writer))), writing, reader })
    }

    /// A transaction that may write from its first statement on (`BEGIN IMMEDIATE`), rolled back unless committed.
    /// Keep it short: every other writer waits.
    ///
    /// # Errors
    /// When another process holds the write lock for longer than the busy timeout, or the storage fails.
    pub async fn write(&self) -> Result<WriteTransaction, StoreError> {
        let home = tokio::time::timeout(BUSY_TIMEOUT, self.writer.clone().lock_owned());
        let mut home = home.await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let mut connection = match home.take() {
            Some(connection) => connection,
            None => self.writing.connect().await?,
        };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await?;
        Ok(WriteTransaction { connection, home })
    }

    /// Connections that can only read.
    #[must_use]
    pub fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// A connection of its own that can only read, for who has to ask the same one again and again.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn observer(&self) -> Result<SqliteConnection, StoreError> {
        Ok(self.writing.clone().read_only(true).connect().await?)
    }

    /// Finishes what runs and closes every connection.
    pub async fn close(&self) {
        self.reader.close().await;
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.close().await
        {
            tracing::warn!(%error, "the database was not closed cleanly; the next start recovers it");
        }
    }
}

/// One process at a time makes the file and migrates it. SQLite has no lock for that: none spans several transactions, and
/// the change to write-ahead logging waits for nobody, it fails at once beside another connection. A locked file has.
async fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let path = data_dir.join("migrate.lock");
    let lock = tokio::task::spawn_blocking(move || {
        let file = File::create(&path).map_err(StoreError::file(&path))?;
        file.lock().map_err(StoreError::file(&path))?;
        Ok(file)
    });
    lock.await.map_err(|error| StoreError::file(data_dir)(std::io::Error::other(error)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_opens_twice_writes_in_one_place_and_reads_in_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = tokio::join!(Database::open(folder.path()), Database::open(folder.path()));
        let (first, second) = (first.expect("opens"), second.expect("opens beside another"));
        let mut transaction = first.write().await.expect("begins");
        sqlx::query("INSERT INTO api_keys VALUES ('k', 't', 'read', '', zeroblob(32), 0, NULL, NULL, NULL)")
            .execute(&mut *transaction)
            .await
            .expect("writes");
        transaction.commit().await.expect("commits");
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM api_keys").fetch_one(second.reader()).await.expect("reads");
        assert_eq!(count, 1);
        let refused = sqlx::query("DELETE FROM api_keys").execute(second.reader()).await;
        assert!(refused.is_err(), "the reader must not write");
        for _ in ["the first connection", "one that was opened later"] {
            let mut transaction = first.write().await.expect("begins");
            let settings: (String, i64, i64) = sqlx::query_as(
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
            sqlx::query("INSERT INTO api_keys VALUES ('k', 't', 'read', '', zeroblob(32), 0, NULL, NULL, NULL)")
                .execute(&mut *transaction)
                .await?;
            Ok::<_, StoreError>(transaction)
        };
        let count = async || {
            let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM api_keys").fetch_one(other.reader());
            count.await.expect("reads")
        };
        drop(insert(&database).await.expect("writes"));
        assert_eq!(count().await, 0, "dropped is rolled back");

        // SQLite ends a transaction by itself when the disk is full; here a statement does.
        let mut transaction = insert(&database).await.expect("writes");
        sqlx::query("ROLLBACK").execute(&mut *transaction).await.expect("rolls back");
        assert!(transaction.commit().await.is_err(), "there is nothing to commit");
        assert_eq!(count().await, 0);

        drop(insert(&other).await.expect("another process begins as soon as this one has rolled back"));
        insert(&database).await.expect("writes").commit().await.expect("commits");
        assert_eq!(count().await, 1);
    }
}
