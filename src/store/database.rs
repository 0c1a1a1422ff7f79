//! One SQLite file: a single connection that writes, a read-only pool beside it.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};

use super::error::StoreError;
use super::migrations::migrator;

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
const READERS: u32 = 4;

/// The database; clones share their connections.
#[derive(Debug, Clone)]
pub struct Database {
    writer: SqlitePool,
    reader: SqlitePool,
}

impl Database {
    /// Opens `engraft.db` in the folder `data_dir`, making it and bringing its schema up to date as needed.
    ///
    /// # Errors
    /// When the folder is not writable, the file is no database, or its schema is newer than this program.
    pub async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join("engraft.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let lock = lock(data_dir).await?;
        let writer = pool(1).connect_with(options.clone()).await?;
        let migrated = migrator().run(&writer).await;
        drop(lock);
        migrated?;
        let reader = pool(READERS).connect_with(options.create_if_missing(false).read_only(true)).await?;
        Ok(Self { writer, reader })
    }

    /// A transaction that may write from its first statement on (`BEGIN IMMEDIATE`), rolled back unless committed.
    /// Keep it short: every other writer waits.
    ///
    /// # Errors
    /// When another process holds the write lock for longer than the busy timeout.
    pub async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Connections that can only read.
    #[must_use]
    pub fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.reader).await?;
        Ok(())
    }

    /// Finishes what runs and closes every connection.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Connections that live as long as the process: reopening a file buys nothing.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(BUSY_TIMEOUT)
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
        sqlx::query("INSERT INTO api_keys VALUES ('k', 't', 'read', '', zeroblob(32), 0, NULL)")
            .execute(&mut *transaction)
            .await
            .expect("writes");
        transaction.commit().await.expect("commits");
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM api_keys").fetch_one(second.reader()).await.expect("reads");
        assert_eq!(count, 1);
        let refused = sqlx::query("DELETE FROM api_keys").execute(second.reader()).await;
        assert!(refused.is_err(), "the reader must not write");
        let settings: (String, i64) = sqlx::query_as(
            "SELECT (SELECT journal_mode FROM pragma_journal_mode), (SELECT synchronous FROM pragma_synchronous)",
        )
        .fetch_one(&first.writer)
        .await
        .expect("reads");
        assert_eq!(settings, ("wal".to_owned(), 2), "WAL, synchronous FULL");
    }
}
