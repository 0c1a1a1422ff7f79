//! The database that holds all state: SQLite in a file, or PostgreSQL on a server. The rest of the store runs its statements
//! ([`super::sql`]) in the transactions and on the connections that this gives, and knows which of the two is there only where a
//! statement's text differs.

pub(super) mod answer;
mod clock;
pub(super) mod connection;
mod extent;
mod migrations;
mod postgres;
mod readers;
mod sqlite;
#[cfg(test)]
pub(crate) mod testing;
mod transfer;

use std::ops::{Deref, DerefMut};
use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use tokio::sync::OwnedMutexGuard;

use super::blobs::{self, FOLDER};
use super::error::StoreError;
use crate::domain::clock::{SharedClock, SteadyTime};
use crate::domain::database::{DatabasePlace, ServerUrl};

pub use connection::{Connection, Pool};
pub(super) use extent::Extent;
pub use transfer::{Transferred, transfer};

use answer::answered;
use connection::Held;
pub use postgres::Demand;

/// The database; clones share their connections.
#[derive(Debug, Clone)]
pub struct Database {
    kind: DatabaseKind,
    reader: Pool,
}

#[derive(Debug, Clone)]
enum DatabaseKind {
    Sqlite(sqlite::Writer),
    Postgres(postgres::Server),
}

/// A transaction that may write. Dropped before [`WriteTransaction::commit`], it is rolled back.
#[derive(Debug)]
pub struct WriteTransaction {
    // Dropped before the lock, so that the next writer does not wait for the one that this one's end rolls back.
    connection: Connection,
    home: Option<OwnedMutexGuard<Option<SqliteConnection>>>,
    began: Option<SteadyTime>,
}

impl WriteTransaction {
    /// Makes everything that was written last.
    ///
    /// # Errors
    /// When the storage fails: nothing was written then, unless the machine stops before the next commit, or the connection broke before the
    /// answer came.
    pub async fn commit(self) -> Result<(), StoreError> {
        let Self { connection, home, .. } = self;
        match *connection.0 {
            Held::Sqlite(mut connection) => {
                sqlx::query("COMMIT").execute(&mut connection).await?;
                if let Some(mut home) = home {
                    *home = Some(connection);
                }
            }
            Held::PostgresTransaction(transaction) => answered(transaction.commit()).await?,
            Held::SqliteReader(_) | Held::Postgres(_) => {}
        }
        Ok(())
    }

    /// When it began, by the database's own time; none where that has none.
    pub(super) fn began(&self) -> Option<SteadyTime> {
        self.began
    }
}

impl Deref for WriteTransaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for WriteTransaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Database {
    /// Opens `engraft.db` in the folder `data_dir`, making it and bringing its schema up to date as needed.
    ///
    /// # Errors
    /// As [`Self::open_at`].
    pub async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_at(&DatabasePlace::DataDir, data_dir, &blobs::Backend::Folder(data_dir.join(FOLDER))).await
    }

    /// As [`Self::open_for`], for a server.
    ///
    /// # Errors
    /// As there.
    pub async fn open_at(place: &DatabasePlace, data_dir: &Path, blobs: &blobs::Backend) -> Result<Self, StoreError> {
        Self::open_for(Demand::Server, place, data_dir, blobs).await
    }

    /// Opens the database at `place`, making it in a file, and bringing its schema up to date as needed. Its files are those in `blobs`.
    ///
    /// # Errors
    /// When the place cannot be written or reached, what is there is no database, its schema is newer than this program, the files
    /// belong to another database, or their bucket does not answer.
    pub async fn open_for(
        demand: Demand,
        place: &DatabasePlace,
        data_dir: &Path,
        blobs: &blobs::Backend,
    ) -> Result<Self, StoreError> {
        match place {
            DatabasePlace::DataDir => Self::open_file(&data_dir.join("engraft.db"), data_dir, blobs).await,
            DatabasePlace::File(path) => Self::open_file(path, data_dir, blobs).await,
            DatabasePlace::Server(url) => {
                let server = postgres::Server::open(url, blobs, demand).await?;
                Ok(Self { reader: Pool::Postgres(server.pool().clone()), kind: DatabaseKind::Postgres(server) })
            }
        }
    }

    /// Connects to a server to which a file is to be transferred, and brings its schema up to date; whose files are whose is not asked yet.
    ///
    /// # Errors
    /// When the server cannot be reached, or its schema is newer than this program.
    pub async fn open_target(url: &ServerUrl) -> Result<Self, StoreError> {
        let server = postgres::Server::connect(url, Demand::Worker).await?;
        Ok(Self { reader: Pool::Postgres(server.pool().clone()), kind: DatabaseKind::Postgres(server) })
    }

    async fn open_file(path: &Path, data_dir: &Path, blobs: &blobs::Backend) -> Result<Self, StoreError> {
        let (writer, readers) = sqlite::open(path, data_dir, blobs).await?;
        Ok(Self { kind: DatabaseKind::Sqlite(writer), reader: Pool::Sqlite(readers) })
    }

    /// A transaction that may write, rolled back unless committed. Keep it short: every other writer waits.
    ///
    /// # Errors
    /// When another process writes for longer than is waited, or the storage fails.
    pub async fn write(&self) -> Result<WriteTransaction, StoreError> {
        self.write_to(Extent::Everything).await
    }

    /// As [`Self::write`], by somebody who has read before: a server's connection goes on with it, which saves the ways to another one.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn write_on(&self, connection: Connection) -> Result<WriteTransaction, StoreError> {
        let (DatabaseKind::Postgres(server), Held::Postgres(connection)) = (&self.kind, *connection.0) else {
            return self.write().await;
        };
        let (transaction, began) = Box::pin(server.begin_on(connection, Extent::Everything)).await?;
        let connection = Connection::of(Held::PostgresTransaction(transaction));
        Ok(WriteTransaction { connection, home: None, began })
    }

    /// A transaction that writes so much, rolled back unless committed.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) async fn write_to(&self, extent: Extent) -> Result<WriteTransaction, StoreError> {
        match &self.kind {
            DatabaseKind::Sqlite(writer) => {
                let (connection, home) = Box::pin(writer.begin()).await?;
                Ok(WriteTransaction {
                    connection: Connection::of(Held::Sqlite(connection)),
                    home: Some(home),
                    began: None,
                })
            }
            DatabaseKind::Postgres(server) => {
                let (transaction, began) = Box::pin(server.begin(extent)).await?;
                let connection = Connection::of(Held::PostgresTransaction(transaction));
                Ok(WriteTransaction { connection, home: None, began })
            }
        }
    }

    /// Connections for statements that only read.
    #[must_use]
    pub fn reader(&self) -> &Pool {
        &self.reader
    }

    /// Whether it has a time of its own.
    pub(super) fn has_time(&self) -> bool {
        match &self.kind {
            DatabaseKind::Sqlite(_) => false,
            DatabaseKind::Postgres(server) => server.has_time(),
        }
    }

    /// The present, by the database's own time; none where that has none, since all its processes share one machine's.
    ///
    /// # Errors
    /// When the storage fails.
    pub(super) async fn time(&self) -> Result<Option<SteadyTime>, StoreError> {
        match &self.kind {
            DatabaseKind::Sqlite(_) => Ok(None),
            DatabaseKind::Postgres(server) => server.time().await,
        }
    }

    /// The clock that dates are read from: the database's where it has one, since hosts that share it may differ; else `local`.
    #[must_use]
    pub fn clock(&self, local: SharedClock) -> SharedClock {
        match &self.kind {
            DatabaseKind::Sqlite(_) => local,
            DatabaseKind::Postgres(server) => server.clock(local),
        }
    }

    /// Somebody who sees that others have written.
    ///
    /// # Errors
    /// When the storage fails.
    pub(super) async fn observer(&self) -> Result<Observer, StoreError> {
        Ok(match &self.kind {
            DatabaseKind::Sqlite(writer) => Observer::Sqlite { connection: writer.observer().await?, seen: None },
            DatabaseKind::Postgres(server) => Observer::Postgres(server.observer().await?),
        })
    }

    /// Finishes what runs and closes every connection.
    pub async fn close(&self) {
        match &self.reader {
            Pool::Sqlite(readers) => readers.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
        if let DatabaseKind::Sqlite(writer) = &self.kind {
            writer.close().await;
        }
    }
}

/// Sees that something was written, by this process or another.
#[derive(Debug)]
pub(super) enum Observer {
    Sqlite { connection: SqliteConnection, seen: Option<i64> },
    Postgres(postgres::Listener),
}

impl Observer {
    /// Returns when something may have been written since the call before; false where nothing has been for a while.
    ///
    /// # Errors
    /// When the storage fails: another observer is needed then.
    pub(super) async fn wait(&mut self) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite { connection, seen } => {
                let version = sqlite::version(connection).await?;
                Ok(seen.replace(version) != Some(version))
            }
            Self::Postgres(listener) => listener.wait().await,
        }
    }
}
