//! A connection to either database, and the pools that lend them.

use std::path::Path;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection as _, Postgres};

use super::readers::{Reader, Readers};
use crate::store::error::StoreError;

/// Connections that statements outside of transactions are run on.
#[derive(Debug, Clone)]
pub enum Pool {
    /// Of SQLite: they can only read.
    Sqlite(Readers),
    /// Of PostgreSQL.
    Postgres(PgPool),
}

impl Pool {
    /// One of the connections, for statements that follow each other.
    ///
    /// # Errors
    /// When none is free for too long, or the server cannot be reached.
    pub async fn acquire(&self) -> Result<Connection, sqlx::Error> {
        Ok(Connection::of(match self {
            Self::Sqlite(pool) => Held::SqliteReader(pool.lend().await?),
            Self::Postgres(pool) => Held::Postgres(pool.acquire().await?),
        }))
    }
}

/// A connection to either database.
#[derive(Debug)]
pub struct Connection(pub(super) Box<Held>);

#[derive(Debug)]
pub(super) enum Held {
    Sqlite(SqliteConnection),
    SqliteReader(Reader),
    Postgres(PoolConnection<Postgres>),
    PostgresTransaction(sqlx::Transaction<'static, Postgres>),
}

/// A connection, by its database.
#[derive(Debug)]
pub(in crate::store) enum Side<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl Connection {
    pub(super) fn of(held: Held) -> Self {
        Self(Box::new(held))
    }

    /// A connection to the SQLite file `path`, which must exist.
    ///
    /// # Errors
    /// When the storage fails.
    pub(in crate::store) async fn to_file(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::of(Held::Sqlite(SqliteConnectOptions::new().filename(path).connect().await?)))
    }

    /// Closes a connection of one's own.
    ///
    /// # Errors
    /// When the storage fails.
    pub(in crate::store) async fn close(self) -> Result<(), StoreError> {
        if let Held::Sqlite(connection) = *self.0 {
            connection.close().await?;
        }
        Ok(())
    }

    /// What is wrong with the database, a line each. A server's looks after itself: its administrator has tools for that.
    ///
    /// # Errors
    /// When the storage fails.
    pub(in crate::store) async fn damage(&mut self) -> Result<Vec<String>, StoreError> {
        match self.side() {
            Side::Sqlite(connection) => damage(connection).await,
            Side::Postgres(_) => Ok(Vec::new()),
        }
    }

    pub(in crate::store) fn side(&mut self) -> Side<'_> {
        match &mut *self.0 {
            Held::Sqlite(connection) => Side::Sqlite(connection),
            Held::SqliteReader(connection) => Side::Sqlite(connection),
            Held::Postgres(connection) => Side::Postgres(connection),
            Held::PostgresTransaction(transaction) => Side::Postgres(transaction),
        }
    }
}

/// What is wrong with the file and its rows, a line each.
///
/// # Errors
/// When the storage fails.
async fn damage(connection: &mut SqliteConnection) -> Result<Vec<String>, StoreError> {
    let said: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut *connection).await?;
    let strays: Vec<String> =
        sqlx::query_scalar("SELECT \"table\" FROM pragma_foreign_key_check").fetch_all(connection).await?;
    let strays = strays.into_iter().map(|table| format!("a row of {table} has no parent"));
    Ok(said.into_iter().filter(|line| line != "ok").chain(strays).collect())
}
