//! PostgreSQL: a pool of connections, and transactions that keep each other out as far as they must.
//!
//! A transaction that decides by what it has read (limits, turns, who has a name) holds one lock for the whole schema until it ends, so it
//! runs as if alone, as in SQLite. What a running attempt writes for its own job, the bulk of all writing, shares that lock with others of
//! its kind and locks its job's row instead.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection as _, Executor, Postgres, SqlSafeStr, Transaction};

use super::answer::{PROMPTLY, answered, within};
use super::clock::DatabaseTime;
use super::connection::{Connection, Held};
use super::extent::Extent;
use super::migrations::postgres as migrator;
use crate::domain::clock::{SharedClock, SteadyTime};
use crate::domain::database::ServerUrl;
use crate::store::blobs::Backend;
use crate::store::error::{StoreError, is_connection_lost};
use crate::store::identity::DataFolder;

/// How long is waited for a connection, and for another transaction to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections of a server, apart from those that wait for notices.
const MANY_CONNECTIONS: u32 = 16;
/// Those of a worker, of which there may be many more.
const FEW_CONNECTIONS: u32 = 4;
/// A connection that was unused for so long is asked whether it still is one.
const MAY_BE_STALE: Duration = Duration::from_millis(100);
/// The pause before a transaction is begun again on another connection: the first time, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(3);
/// The pause before it is tried again to begin with a server that went away.
const BETWEEN_OPENINGS: Duration = Duration::from_secs(2);
/// Without a notice of changes waiting ends after this long all the same: a notice is a hint.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);
/// The channel of notices; their payload is the schema.
const CHANNEL: &str = "engraft";
/// The oldest version that is still maintained.
const OLDEST: i32 = 130_000;

/// What holds for each connection, whatever the server's defaults are: acknowledged is stored, nobody waits for ever, and a host that is cut
/// off in the middle of a transaction does not hold up others for long. Statements here are small: to compile one takes longer than to run it.
const SETTINGS: &str = "SET synchronous_commit = on; SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = '10s'; \
     SET jit = off; SET client_min_messages = warning";

/// Whatever the server's defaults are. Every statement finds its rows by an index: to plan one anew for its values takes longer than to run it.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL plan_cache_mode = force_generic_plan";
/// Milliseconds since the epoch, of the server.
const TIME: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
/// Waits for the lock, alone or with others, and then tells the time.
const ALONE: &str = "WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 0))) \
     SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM held";
const WITH_OTHERS: &str = "WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(hashtextextended(current_schema(), 0))) \
     SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM held";

/// Who uses a database, which decides how many connections it takes of those that a database server has for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Many requests at a time.
    Server,
    /// A few jobs at a time, in one of many processes.
    Worker,
}

/// A schema of a PostgreSQL server; clones share its connections.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pool: PgPool,
    schema: String,
    /// None where tests decide what time it is.
    time: Option<DatabaseTime>,
}

impl Server {
    /// Connects, brings the schema up to date, and checks that the files in `blobs` are its own. A server that goes away over that, as one does
    /// that is just started with everything else, is waited for.
    ///
    /// # Errors
    /// Those of [`Self::connect`], and when the files belong to another database.
    pub(super) async fn open(url: &ServerUrl, blobs: &Backend, demand: Demand) -> Result<Self, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::try_open(url, blobs, demand).await {
                Err(error) if error.is_connection_lost() && Instant::now() < deadline => {
                    tracing::warn!(%error, "the database server went away; trying again");
                    tokio::time::sleep(BETWEEN_OPENINGS).await;
                }
                opened => return opened,
            }
        }
    }

    async fn try_open(url: &ServerUrl, blobs: &Backend, demand: Demand) -> Result<Self, StoreError> {
        let server = Self::connect(url, demand).await?;
        let mut connection = server.pool.acquire().await?;
        // One process at a time settles whose the files are; the lock ends with the connection at the latest.
        sqlx::query("SELECT pg_advisory_lock(hashtextextended(current_schema(), 1))").execute(&mut *connection).await?;
        let mut connection = Connection::of(Held::Postgres(connection));
        let settled = DataFolder::new(blobs, Path::new(&url.to_string())).settle(&mut connection).await;
        if let Held::Postgres(connection) = *connection.0 {
            connection.close().await?;
        }
        settled.map(|()| server)
    }

    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// When the server cannot be reached or is too old, or the schema is newer than this program.
    pub(super) async fn connect(url: &ServerUrl, demand: Demand) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_url(url.expose())?.application_name("engraft");
        let pool = PgPoolOptions::new()
            .max_connections(match demand {
                Demand::Server => MANY_CONNECTIONS,
                Demand::Worker => FEW_CONNECTIONS,
            })
            .min_connections(1)
            .acquire_timeout(PATIENCE)
            .test_before_acquire(false)
            .before_acquire(|connection, known| {
                async move {
                    if known.idle_for < MAY_BE_STALE {
                        return Ok(true);
                    }
                    // One that is no connection any more is replaced; with an error it is not waited for to close.
                    Ok(tokio::time::timeout(PROMPTLY, connection.ping()).await.map_err(io::Error::from)?.is_ok())
                }
                .boxed()
            })
            .after_connect(|connection, _| async move { connection.execute(SETTINGS).await.map(|_| ()) }.boxed())
            .connect_with(options)
            .await?;
        let mut connection = pool.acquire().await?;
        let (version, schema): (i32, Option<String>) =
            sqlx::query_as("SELECT current_setting('server_version_num')::int, current_schema()")
                .fetch_one(&mut *connection)
                .await?;
        let wrong = |detail: &str| StoreError::inconsistent("the server", url.to_string(), detail);
        if version < OLDEST {
            return Err(wrong("PostgreSQL 13 or newer is needed"));
        }
        let schema = schema.ok_or_else(|| wrong("no schema of its search_path exists: create one, or name another"))?;
        migrator().run(&mut *connection).await?;
        Ok(Self { pool, schema, time: Some(DatabaseTime::default()) })
    }

    /// The same server where the clocks that are passed in say what time it is.
    #[cfg(test)]
    pub(super) fn without_time(self) -> Self {
        Self { time: None, ..self }
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Begins a transaction, and says when. A connection that turns out to be broken is replaced for a while: nothing was written on it.
    ///
    /// # Errors
    /// When other transactions do not end for too long, or the server cannot be reached.
    pub(super) async fn begin(
        &self,
        extent: Extent,
    ) -> Result<(Transaction<'static, Postgres>, Option<SteadyTime>), StoreError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = match answered(self.pool.acquire()).await {
                Ok(connection) => Self::try_begin(connection, extent).await,
                Err(error) => Err(error),
            };
            match begun {
                Err(error) if is_connection_lost(&error) && pause <= LAST_PAUSE => {
                    tracing::debug!(%error, "no transaction could be begun; another connection is tried");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(error.into()),
                Ok((transaction, now)) => return Ok((transaction, self.noted(now))),
            }
        }
    }

    /// Begins a transaction on a connection; where that turns out to be broken, on another one.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(super) async fn begin_on(
        &self,
        connection: PoolConnection<Postgres>,
        extent: Extent,
    ) -> Result<(Transaction<'static, Postgres>, Option<SteadyTime>), StoreError> {
        match Self::try_begin(connection, extent).await {
            Err(error) if is_connection_lost(&error) => self.begin(extent).await,
            Err(error) => Err(error.into()),
            Ok((transaction, now)) => Ok((transaction, self.noted(now))),
        }
    }

    async fn try_begin(
        connection: PoolConnection<Postgres>,
        extent: Extent,
    ) -> Result<(Transaction<'static, Postgres>, i64), sqlx::Error> {
        let begun = Transaction::begin(connection, Some(BEGIN.into_sql_str()));
        let mut transaction = answered(begun).await?;
        let lock = match extent {
            Extent::Everything => ALONE,
            Extent::OneJob => WITH_OTHERS,
        };
        let now = answered(sqlx::query_scalar(lock).fetch_one(&mut *transaction)).await?;
        Ok((transaction, now))
    }

    pub(super) fn has_time(&self) -> bool {
        self.time.is_some()
    }

    /// The server's time.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(super) async fn time(&self) -> Result<Option<SteadyTime>, StoreError> {
        if self.time.is_none() {
            return Ok(None);
        }
        let now = answered(sqlx::query_scalar(TIME).fetch_one(&mut *self.pool.acquire().await?)).await?;
        Ok(self.noted(now))
    }

    fn noted(&self, now: i64) -> Option<SteadyTime> {
        let time = self.time.as_ref()?;
        time.note(now);
        Some(SteadyTime::from_millis(now))
    }

    /// A clock whose dates are the server's.
    pub(super) fn clock(&self, local: SharedClock) -> SharedClock {
        match &self.time {
            Some(time) => time.clock(local),
            None => local,
        }
    }

    /// A connection of its own that gets notices of what others have written.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(super) async fn observer(&self) -> Result<Listener, StoreError> {
        let mut notices = PgListener::connect_with(&self.pool).await?;
        notices.ignore_pool_close_event(false);
        notices.listen(CHANNEL).await?;
        Ok(Listener { notices, schema: self.schema.clone(), is_new: true })
    }
}

/// Gets notices of changes in one schema.
#[derive(Debug)]
pub(in crate::store) struct Listener {
    notices: PgListener,
    schema: String,
    is_new: bool,
}

impl Listener {
    /// Returns with the next notice, when notices may have been missed, or after a while; all of these are reasons to look.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(super) async fn wait(&mut self) -> Result<bool, StoreError> {
        if std::mem::take(&mut self.is_new) {
            return Ok(true);
        }
        let Ok(notice) = tokio::time::timeout(LOOK_ANYWAY, self.notices.try_recv()).await else {
            // One that gets no notices says nothing of its connection.
            within(PROMPTLY, self.notices.execute("SELECT")).await?;
            return Ok(true);
        };
        let Some(notice) = notice? else { return Ok(true) };
        let mut is_own = notice.payload() == self.schema;
        while let Some(notice) = self.notices.next_buffered() {
            is_own |= notice.payload() == self.schema;
        }
        Ok(is_own)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::clock::{ManualClock, from_millis};
    use crate::domain::problem::Code;
    use crate::store::database::answer::ANSWER;
    use crate::store::steady::Steady;
    use crate::store::{sql, testing};

    const SOON: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn whoever_writes_everything_is_alone_and_writers_of_single_jobs_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(database) = testing::server(folder.path()).await else { return };
        let (one, two) =
            (database.write_to(Extent::OneJob).await.expect("begins"), database.write_to(Extent::OneJob).await);
        let two = two.expect("beside the first");
        assert!(tokio::time::timeout(SOON, database.write()).await.is_err(), "it waits for both");
        one.commit().await.expect("commits");
        drop(two);
        let alone = database.write().await.expect("begins");
        for extent in [Extent::OneJob, Extent::Everything] {
            assert!(tokio::time::timeout(SOON, database.write_to(extent)).await.is_err(), "it waits");
        }
        drop(alone);
        database.write().await.expect("begins as soon as that was rolled back").commit().await.expect("commits");
    }

    #[tokio::test]
    async fn a_connection_that_was_ended_is_replaced_before_the_next_transaction() {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(database) = testing::server(folder.path()).await else { return };
        let super::super::connection::Pool::Postgres(pool) = database.reader() else { panic!("a server") };
        let mut ids = Vec::new();
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut connection = pool.acquire().await.expect("a connection");
            let id: i32 =
                sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await.expect("reads");
            ids.push(id);
            held.push(connection);
        }
        let other = testing::server(folder.path()).await.expect("another process");
        drop(held);
        for id in ids {
            let ended: bool = sql::query_scalar("SELECT pg_terminate_backend($1::int)")
                .bind(i64::from(id))
                .fetch_one(other.reader())
                .await
                .expect("ends it");
            assert!(ended);
        }
        for _ in 0..3 {
            let mut transaction = database.write().await.expect("begins on another connection");
            sql::query("UPDATE data_folder SET probed_at = 1").execute(&mut *transaction).await.expect("writes");
            transaction.commit().await.expect("commits");
        }
    }

    #[tokio::test]
    async fn a_network_that_loses_everything_costs_a_while_and_then_other_connections() {
        let folder = tempfile::tempdir().expect("a folder");
        let Some((database, network)) = testing::server_behind_a_network(folder.path()).await else { return };
        let mut transaction = database.write().await.expect("begins");
        let look = async |connection: &mut crate::store::database::Connection| {
            sql::query_scalar::<i64>("SELECT count(*) FROM jobs").fetch_one(connection).await
        };
        let mut reader = database.reader().acquire().await.expect("a connection");
        look(&mut reader).await.expect("reads");
        let mut observer = database.observer().await.expect("listens");
        assert!(observer.wait().await.expect("looks first of all"));
        network.set_works(false);
        let began = Instant::now();
        let (read, written, waited) = tokio::join!(look(&mut reader), look(&mut transaction), observer.wait());
        for lost in [StoreError::from(read.expect_err("no answer")), written.expect_err("no answer").into()] {
            assert_eq!(lost.code(), Code::Unavailable);
        }
        assert_eq!(waited.expect_err("no answer").code(), Code::Unavailable);
        assert!(began.elapsed() >= ANSWER);
        network.set_works(true);
        drop((reader, transaction));
        let transaction = database.write().await.expect("begins on another connection");
        transaction.commit().await.expect("commits");
        database.observer().await.expect("listens again");
    }

    #[tokio::test]
    async fn a_newer_process_that_changes_the_schema_costs_an_older_one_a_repetition() {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(database) = testing::server(folder.path()).await else { return };
        let mut connection = database.reader().acquire().await.expect("a connection");
        let mut look = async || {
            let rows: Result<Vec<(i64, String, i64)>, _> =
                sql::query_as("SELECT * FROM data_folder").fetch_all(&mut connection).await;
            rows.map(|rows| rows.len())
        };
        assert_eq!(look().await.expect("reads"), 1);
        let newer = testing::server(folder.path()).await.expect("another process");
        let mut transaction = newer.write().await.expect("begins");
        sql::query("ALTER TABLE data_folder ADD COLUMN later TEXT").execute(&mut *transaction).await.expect("alters");
        transaction.commit().await.expect("commits");
        let refused = StoreError::from(look().await.expect_err("the plan is of another schema"));
        assert_eq!(refused.code(), Code::Unavailable);
        assert_eq!(look().await.expect("reads by a new plan"), 1);
    }

    #[tokio::test]
    async fn leases_count_the_servers_time_however_far_off_the_hosts_clocks_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(database) = testing::server(folder.path()).await else { return };
        let mut seen = Vec::new();
        for host in [0, 1_000_000_000_000, 4_000_000_000_000] {
            let local: SharedClock = Arc::new(ManualClock::at(from_millis(host)));
            let steady = Steady::new(database.clone(), database.clock(local.clone()));
            seen.push(steady.now().await.expect("reads").as_millis());
            let transaction = database.write().await.expect("begins");
            seen.push(steady.moment(&transaction).await.expect("known").steady.as_millis());
            seen.push(database.clock(local).now().as_millisecond());
        }
        let (least, most) = (seen.iter().min().expect("some"), seen.iter().max().expect("some"));
        assert!(most - least < 60_000, "{seen:?}");
    }
}
