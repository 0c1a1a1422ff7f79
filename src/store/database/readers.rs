//! Connections to a SQLite file that only read: a few that stay open, each lent to one caller at a time.
//!
//! The database library's own pool asks a connection whether it is still there whenever it comes back, which takes as long as a statement. A file does not go
//! away as servers do.

use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{BuildError, Manager, Metrics, Object, Pool, PoolError, RecycleResult};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection as _};

use crate::store::error::StoreError;

/// Connections at a time.
const MOST: usize = 4;

/// The connections; clones share them.
#[derive(Debug, Clone)]
pub struct Readers(Pool<Opener>);

/// A connection that goes back when it is dropped.
pub(super) type Reader = Object<Opener>;

/// Opens connections to one file.
#[derive(Debug)]
pub(super) struct Opener(SqliteConnectOptions);

impl Manager for Opener {
    type Type = SqliteConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.0.connect().await
    }

    /// A statement that was given up ends before the next one begins: a connection has a thread that runs one after the other.
    async fn recycle(&self, _: &mut SqliteConnection, _: &Metrics) -> RecycleResult<sqlx::Error> {
        Ok(())
    }
}

impl Readers {
    /// Connections to the file that `options` name, of which one is opened now. Whoever wants one waits for `patience` at most.
    ///
    /// # Errors
    /// When the storage fails.
    pub(super) async fn open(options: SqliteConnectOptions, patience: Duration) -> Result<Self, StoreError> {
        let pool = Pool::builder(Opener(options.read_only(true)))
            .max_size(MOST)
            .wait_timeout(Some(patience))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error: BuildError| sqlx::Error::Configuration(error.into()))?;
        let readers = Self(pool);
        drop(readers.lend().await?);
        Ok(readers)
    }

    /// One of the connections.
    ///
    /// # Errors
    /// When none is free for too long, or the storage fails.
    pub(super) async fn lend(&self) -> Result<Reader, sqlx::Error> {
        self.0.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => sqlx::Error::PoolClosed,
            PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                sqlx::Error::PoolTimedOut
            }
        })
    }

    /// Closes those that are here, and the others when they come back.
    pub(super) async fn close(&self) {
        for connection in self.0.retain(|_, _| false).removed {
            if let Err(error) = connection.close().await {
                tracing::debug!(%error, "a connection that only read was not closed cleanly");
            }
        }
        self.0.close();
    }
}
