//! Statements, run by whichever database is there.
//!
//! Both databases take `$1` for the first value, and most statements are the same text for both; those that are not have [`each`] its own.
//! What is bound and what is read are the few types that both store.

use std::marker::PhantomData;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use serde::Deserialize;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::{Arguments, Connection as _, Decode, Type};

use super::database::answer::answered;
use super::database::connection::{Connection, Pool, Side};
use super::error::is_plan_stale;

/// A row by the names of its columns: the trait and its macro. The other way to that macro, a feature of `sqlx`, has both drivers compiled
/// once more, for macros that look into a database at compile time.
pub(super) use sqlx::FromRow;
pub(super) use sqlx_macros::FromRow;

/// A count, which both databases have as an integer of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Count(pub(super) u32);

impl<D: sqlx::Database> Type<D> for Count
where
    i64: Type<D>,
{
    fn type_info() -> D::TypeInfo {
        i64::type_info()
    }

    fn compatible(other: &D::TypeInfo) -> bool {
        i64::compatible(other)
    }
}

impl<'r, D: sqlx::Database> Decode<'r, D> for Count
where
    i64: Decode<'r, D>,
{
    fn decode(value: D::ValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(u32::try_from(i64::decode(value)?)?))
    }
}

impl From<Count> for Value {
    fn from(Count(count): Count) -> Self {
        count.into()
    }
}

/// The text of a statement, for each of the databases.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    sqlite: &'static str,
    postgres: &'static str,
}

/// A statement whose text is not the same for both databases.
pub(super) const fn each(sqlite: &'static str, postgres: &'static str) -> Text {
    Text { sqlite, postgres }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        each(text, text)
    }
}

/// A value in the place of a `$1`.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Integer(Option<i64>),
    Boolean(Option<bool>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// Makes values of what is bound, of references to it and of what may be absent.
macro_rules! values {
    ($($from:ty => $case:ident($value:ident) $made:expr;)+) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                Self::$case(Some($made))
            }
        }

        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                Self::$case(value.map(|$value| $made))
            }
        }
    )+};
}

values! {
    i64 => Integer(value) value;
    &i64 => Integer(value) *value;
    u32 => Integer(value) i64::from(value);
    i8 => Integer(value) i64::from(value);
    bool => Boolean(value) value;
    String => Text(value) value;
    &String => Text(value) value.clone();
    &str => Text(value) value.to_owned();
    Vec<u8> => Bytes(value) value;
    &[u8] => Bytes(value) value.to_vec();
}

impl From<&Option<String>> for Value {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone())
    }
}

/// What a row is read to, of either database.
pub(super) trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

/// A statement and its values.
#[derive(Debug)]
#[must_use]
pub(super) struct Query {
    text: Text,
    values: Vec<Value>,
}

/// A statement whose rows are read as `T`.
#[derive(Debug)]
#[must_use]
pub(super) struct QueryAs<T> {
    query: Query,
    row: PhantomData<fn() -> T>,
}

/// A statement whose rows have one column, of the type `T`.
#[derive(Debug)]
#[must_use]
pub(super) struct QueryScalar<T>(QueryAs<(T,)>);

/// What a statement has changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed(u64);

impl Changed {
    /// Rows that were inserted, updated or deleted.
    pub(super) fn rows_affected(self) -> u64 {
        self.0
    }
}

/// A statement without rows.
pub(super) fn query(text: impl Into<Text>) -> Query {
    Query { text: text.into(), values: Vec::new() }
}

/// A statement with rows.
pub(super) fn query_as<T>(text: impl Into<Text>) -> QueryAs<T> {
    QueryAs { query: query(text), row: PhantomData }
}

/// A statement with rows of one column.
pub(super) fn query_scalar<T>(text: impl Into<Text>) -> QueryScalar<T> {
    QueryScalar(query_as(text))
}

/// Where a statement runs: a connection, or a pool that lends one.
#[derive(Debug)]
pub(super) enum Source<'c> {
    Connection(&'c mut Connection),
    Pool(&'c Pool),
}

impl<'c> From<&'c mut Connection> for Source<'c> {
    fn from(connection: &'c mut Connection) -> Self {
        Self::Connection(connection)
    }
}

impl<'c> From<&'c Pool> for Source<'c> {
    fn from(pool: &'c Pool) -> Self {
        Self::Pool(pool)
    }
}

/// A connection for one statement.
enum Lent<'c> {
    ByCaller(&'c mut Connection),
    ByPool(Connection),
}

impl<'c> Source<'c> {
    async fn connection(self) -> Result<Lent<'c>, sqlx::Error> {
        Ok(match self {
            Self::Connection(connection) => Lent::ByCaller(connection),
            Self::Pool(pool) => Lent::ByPool(pool.acquire().await?),
        })
    }
}

impl Lent<'_> {
    fn side(&mut self) -> Side<'_> {
        match self {
            Self::ByCaller(connection) => connection.side(),
            Self::ByPool(connection) => connection.side(),
        }
    }
}

// Futures are boxed: their types, with a lifetime for each row, are more than the compiler proves to be `Send`.
impl Query {
    /// The next value: that of `$1`, then `$2`, …
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs the statement.
    ///
    /// # Errors
    /// When the database refuses it or fails.
    pub(super) fn execute<'c>(self, source: impl Into<Source<'c>>) -> BoxFuture<'c, Result<Changed, sqlx::Error>> {
        let source = source.into();
        async move {
            let mut lent = source.connection().await?;
            let Self { text, values } = self;
            Ok(Changed(match lent.side() {
                Side::Sqlite(conn) => {
                    sqlx::query_with::<Sqlite, _>(text.sqlite, of_sqlite(values)?).execute(conn).await?.rows_affected()
                }
                Side::Postgres(conn) => {
                    let query = sqlx::query_with::<Postgres, _>(text.postgres, of_postgres(values)?);
                    let done = answered(query.execute(&mut *conn)).await;
                    with_fresh_plans(conn, done).await?.rows_affected()
                }
            }))
        }
        .boxed()
    }
}

impl<T: Row + 'static> QueryAs<T> {
    /// As [`Query::bind`].
    pub(super) fn bind(self, value: impl Into<Value>) -> Self {
        Self { query: self.query.bind(value), ..self }
    }

    /// Every row.
    ///
    /// # Errors
    /// When the database refuses the statement or fails, or a row cannot be read as `T`.
    pub(super) fn fetch_all<'c>(self, source: impl Into<Source<'c>>) -> BoxFuture<'c, Result<Vec<T>, sqlx::Error>> {
        let (source, Query { text, values }) = (source.into(), self.query);
        async move {
            match source.connection().await?.side() {
                Side::Sqlite(conn) => {
                    sqlx::query_as_with::<Sqlite, T, _>(text.sqlite, of_sqlite(values)?).fetch_all(conn).await
                }
                Side::Postgres(conn) => {
                    let query = sqlx::query_as_with::<Postgres, T, _>(text.postgres, of_postgres(values)?);
                    let rows = answered(query.fetch_all(&mut *conn)).await;
                    with_fresh_plans(conn, rows).await
                }
            }
        }
        .boxed()
    }

    /// The first row, if there is one.
    ///
    /// # Errors
    /// As [`Self::fetch_all`].
    pub(super) fn fetch_optional<'c>(
        self,
        source: impl Into<Source<'c>>,
    ) -> BoxFuture<'c, Result<Option<T>, sqlx::Error>> {
        let (source, Query { text, values }) = (source.into(), self.query);
        async move {
            match source.connection().await?.side() {
                Side::Sqlite(conn) => {
                    sqlx::query_as_with::<Sqlite, T, _>(text.sqlite, of_sqlite(values)?).fetch_optional(conn).await
                }
                Side::Postgres(conn) => {
                    let query = sqlx::query_as_with::<Postgres, T, _>(text.postgres, of_postgres(values)?);
                    let row = answered(query.fetch_optional(&mut *conn)).await;
                    with_fresh_plans(conn, row).await
                }
            }
        }
        .boxed()
    }

    /// The row of a statement that has one.
    ///
    /// # Errors
    /// As [`Self::fetch_all`], and when there is none.
    pub(super) fn fetch_one<'c>(self, source: impl Into<Source<'c>>) -> BoxFuture<'c, Result<T, sqlx::Error>> {
        self.fetch_optional(source).map(|row| row?.ok_or(sqlx::Error::RowNotFound)).boxed()
    }
}

impl<T: Send + 'static> QueryScalar<T>
where
    (T,): Row,
{
    /// As [`Query::bind`].
    pub(super) fn bind(self, value: impl Into<Value>) -> Self {
        Self(self.0.bind(value))
    }

    /// The column of every row.
    ///
    /// # Errors
    /// As [`QueryAs::fetch_all`].
    pub(super) fn fetch_all<'c>(self, source: impl Into<Source<'c>>) -> BoxFuture<'c, Result<Vec<T>, sqlx::Error>> {
        self.0.fetch_all(source).map_ok(|rows| rows.into_iter().map(|(value,)| value).collect()).boxed()
    }

    /// The column of the first row, if there is one.
    ///
    /// # Errors
    /// As [`QueryAs::fetch_all`].
    pub(super) fn fetch_optional<'c>(
        self,
        source: impl Into<Source<'c>>,
    ) -> BoxFuture<'c, Result<Option<T>, sqlx::Error>> {
        self.0.fetch_optional(source).map_ok(|row| row.map(|(value,)| value)).boxed()
    }

    /// The column of the row of a statement that has one.
    ///
    /// # Errors
    /// As [`QueryAs::fetch_one`].
    pub(super) fn fetch_one<'c>(self, source: impl Into<Source<'c>>) -> BoxFuture<'c, Result<T, sqlx::Error>> {
        self.0.fetch_one(source).map_ok(|(value,)| value).boxed()
    }
}

/// Has a connection forget its plans where a newer process has changed the schema under them: whoever tries again gets new ones.
async fn with_fresh_plans<T>(conn: &mut PgConnection, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
    if outcome.as_ref().is_err_and(is_plan_stale) {
        conn.clear_cached_statements().await?;
    }
    outcome
}

fn of_sqlite(values: Vec<Value>) -> Result<SqliteArguments, sqlx::Error> {
    arguments(values)
}

fn of_postgres(values: Vec<Value>) -> Result<PgArguments, sqlx::Error> {
    arguments(values)
}

/// The values as one database takes them.
fn arguments<A: Arguments>(values: Vec<Value>) -> Result<A, sqlx::Error>
where
    for<'t> Option<i64>: sqlx::Encode<'t, A::Database> + sqlx::Type<A::Database>,
    for<'t> Option<bool>: sqlx::Encode<'t, A::Database> + sqlx::Type<A::Database>,
    for<'t> Option<String>: sqlx::Encode<'t, A::Database> + sqlx::Type<A::Database>,
    for<'t> Option<Vec<u8>>: sqlx::Encode<'t, A::Database> + sqlx::Type<A::Database>,
{
    let mut arguments = A::default();
    let added: Result<(), BoxDynError> = values.into_iter().try_for_each(|value| match value {
        Value::Integer(value) => arguments.add(value),
        Value::Boolean(value) => arguments.add(value),
        Value::Text(value) => arguments.add(value),
        Value::Bytes(value) => arguments.add(value),
    });
    added.map(|()| arguments).map_err(sqlx::Error::Encode)
}
