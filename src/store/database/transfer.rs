//! A whole database from a file to a server: table by table, in the order in which rows refer to each other. What is there already is
//! skipped, so a transfer that was cut goes on; in the end both sides are compared row by row.

use sha2::{Digest, Sha256};
use sqlx::postgres::{PgConnection, Postgres};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Column, Row, TypeInfo, ValueRef};

use super::Database;
use super::connection::{Connection, Side};
use crate::store::{StoreError, sql};

/// Every table that is transferred, those that others refer to first. Workers enter themselves anew, and machine times mean nothing there.
const TABLES: [&str; 18] = [
    "data_folder",
    "api_keys",
    "tenant_limits",
    "tenant_turns",
    "checkpoints",
    "datasets",
    "uploads",
    "idempotency_keys",
    "jobs",
    "job_inputs",
    "job_events",
    "job_metrics",
    "job_artifacts",
    "comparisons",
    "comparison_runs",
    "pins",
    "webhooks",
    "webhook_deliveries",
];
/// The same for tables whose rows belong to those.
const LAST: [&str; 3] = ["imports", "multipart_uploads", "upload_parts"];
/// Columns that a server keeps as truth values.
const TRUTHS: [&str; 4] = ["cancel_requested", "compared", "quick", "completed"];
/// Rows of one transaction.
const AT_ONCE: i64 = 1000;

/// What leases and pauses come to on another scale of time: what runs is taken for lost and goes on, what waits is due.
const SETTLED: [&str; 5] = [
    "UPDATE jobs SET claimed_at = 0, lease_until = 0 WHERE state = 'running'",
    "UPDATE jobs SET not_before = NULL WHERE not_before IS NOT NULL",
    "UPDATE datasets SET lease_until = NULL, not_before = NULL WHERE state = 'validating'",
    "UPDATE webhook_deliveries SET due = 0, claimed_until = NULL WHERE state = 'waiting'",
    "UPDATE imports SET due = 0, claimed_until = NULL WHERE state = 'waiting'",
];

/// How many rows of a table both sides have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    /// The table.
    pub table: &'static str,
    /// Its rows.
    pub rows: u64,
}

/// A value of a row, as both databases have it.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Integer(i64),
    Truth(bool),
    Text(String),
    Bytes(Vec<u8>),
}

/// Copies all rows of the file behind `from` to the server behind `to`, whose schema is up to date, and compares them. Nobody else writes to
/// the file meanwhile. Leases and pauses do not go over. `progress` gets what has been copied.
///
/// # Errors
/// When either fails, or has rows in the end that the other has not.
pub async fn transfer(
    from: &Database,
    to: &Database,
    progress: &mut dyn FnMut(&Transferred),
) -> Result<Vec<Transferred>, StoreError> {
    // Dropped in the end, which rolls back: the file stays as it is.
    let mut source = from.write().await?;
    for statement in SETTLED {
        if let Side::Sqlite(conn) = source.side() {
            sqlx::query(statement).execute(conn).await?;
        }
    }
    check_target(&mut source, to).await?;
    let mut done = Vec::new();
    for table in TABLES.into_iter().chain(LAST) {
        let rows = copy(&mut source, to, table).await?;
        let transferred = Transferred { table, rows };
        progress(&transferred);
        done.push(transferred);
    }
    for Transferred { table, .. } in &done {
        compare(&mut source, to, table).await?;
    }
    Ok(done)
}

/// Refuses a server that keeps something else already: only a transfer of the same file is gone on with.
async fn check_target(source: &mut Connection, to: &Database) -> Result<(), StoreError> {
    const IDENTITY: &str = "SELECT identity FROM data_folder";
    let ours: Option<String> = sql::query_scalar(IDENTITY).fetch_optional(source).await?;
    let theirs: Option<String> = sql::query_scalar(IDENTITY).fetch_optional(to.reader()).await?;
    if theirs.is_none() || theirs == ours {
        return Ok(());
    }
    Err(StoreError::inconsistent(
        "data_folder",
        "the target",
        "it belongs to another data folder: name an empty database or schema",
    ))
}

async fn copy(source: &mut Connection, to: &Database, table: &'static str) -> Result<u64, StoreError> {
    let Side::Sqlite(source) = source.side() else { return Err(not_a_file()) };
    let (columns, order) = columns(source, table).await?;
    let mut offset = 0;
    loop {
        let rows = page(source, table, &columns, &order, offset).await?;
        if rows.is_empty() {
            return Ok(u64::try_from(offset).unwrap_or_default());
        }
        offset += i64::try_from(rows.len()).unwrap_or_default();
        let mut transaction = to.write().await?;
        let Side::Postgres(target) = transaction.side() else { return Err(not_a_server()) };
        for row in rows {
            insert(target, table, &columns, row).await?;
        }
        transaction.commit().await?;
    }
}

/// The columns of a table, and those of its primary key.
async fn columns(source: &mut SqliteConnection, table: &str) -> Result<(Vec<String>, String), StoreError> {
    let all: Vec<(String, i64)> =
        sqlx::query_as("SELECT name, pk FROM pragma_table_info($1) ORDER BY cid").bind(table).fetch_all(source).await?;
    let mut key: Vec<&(String, i64)> = all.iter().filter(|(_, place)| *place > 0).collect();
    key.sort_by_key(|(_, place)| *place);
    let key = key.iter().map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(", ");
    Ok((all.into_iter().map(|(name, _)| name).collect(), key))
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

fn listed(columns: &[String]) -> String {
    columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

async fn page(
    source: &mut SqliteConnection,
    table: &str,
    columns: &[String],
    order: &str,
    offset: i64,
) -> Result<Vec<Vec<Cell>>, StoreError> {
    let statement = format!("SELECT {} FROM {table} ORDER BY {order} LIMIT $1 OFFSET $2", listed(columns));
    let rows = sqlx::query(AssertSqlSafe(statement)).bind(AT_ONCE).bind(offset).fetch_all(source).await?;
    rows.iter().map(of_file).collect()
}

/// A row of the file.
fn of_file(row: &SqliteRow) -> Result<Vec<Cell>, StoreError> {
    let cell = |column: &sqlx::sqlite::SqliteColumn| {
        let index = column.ordinal();
        let value = row.try_get_raw(index)?;
        if value.is_null() {
            return Ok(Cell::Null);
        }
        Ok(match value.type_info().name() {
            "INTEGER" | "BOOLEAN" if TRUTHS.contains(&column.name()) => Cell::Truth(row.try_get::<i64, _>(index)? != 0),
            "INTEGER" | "BOOLEAN" => Cell::Integer(row.try_get(index)?),
            "BLOB" => Cell::Bytes(row.try_get(index)?),
            _ => Cell::Text(row.try_get(index)?),
        })
    };
    row.columns().iter().map(cell).collect()
}

async fn insert(target: &mut PgConnection, table: &str, columns: &[String], row: Vec<Cell>) -> Result<(), StoreError> {
    // What is absent is written out: a value without a type would need the column's.
    let mut place = 0;
    let places = row.iter().map(|cell| {
        if *cell == Cell::Null {
            return "NULL".to_owned();
        }
        place += 1;
        format!("${place}")
    });
    let places = places.collect::<Vec<_>>().join(", ");
    let statement = format!("INSERT INTO {table} ({}) VALUES ({places}) ON CONFLICT DO NOTHING", listed(columns));
    let mut query = sqlx::query::<Postgres>(AssertSqlSafe(statement));
    for cell in row {
        query = match cell {
            Cell::Null => query,
            Cell::Integer(value) => query.bind(value),
            Cell::Truth(value) => query.bind(value),
            Cell::Text(value) => query.bind(value),
            Cell::Bytes(value) => query.bind(value),
        };
    }
    query.execute(target).await?;
    Ok(())
}

/// Compares what both sides have of a table.
async fn compare(source: &mut Connection, to: &Database, table: &'static str) -> Result<(), StoreError> {
    let Side::Sqlite(source) = source.side() else { return Err(not_a_file()) };
    let (columns, order) = columns(source, table).await?;
    let mut ours: Vec<[u8; 32]> = Vec::new();
    let mut offset = 0;
    loop {
        let rows = page(source, table, &columns, &order, offset).await?;
        if rows.is_empty() {
            break;
        }
        offset += i64::try_from(rows.len()).unwrap_or_default();
        ours.extend(rows.iter().map(|row| digest(row)));
    }
    let mut connection = to.reader().acquire().await?;
    let Side::Postgres(target) = connection.side() else { return Err(not_a_server()) };
    let statement = format!("SELECT {} FROM {table}", listed(&columns));
    let rows = sqlx::query(AssertSqlSafe(statement)).fetch_all(target).await?;
    let mut theirs = rows.iter().map(of_server).collect::<Result<Vec<_>, _>>()?;
    ours.sort_unstable();
    theirs.sort_unstable();
    if ours == theirs {
        return Ok(());
    }
    let detail = format!("the file has {} rows and the server {}, and they are not the same", ours.len(), theirs.len());
    Err(StoreError::inconsistent(table, "all rows", detail))
}

fn of_server(row: &sqlx::postgres::PgRow) -> Result<[u8; 32], StoreError> {
    let cell = |column: &sqlx::postgres::PgColumn| {
        let index = column.ordinal();
        let value = row.try_get_raw(index)?;
        if value.is_null() {
            return Ok(Cell::Null);
        }
        Ok(match value.type_info().name() {
            "INT8" => Cell::Integer(row.try_get(index)?),
            "BOOL" => Cell::Truth(row.try_get(index)?),
            "BYTEA" => Cell::Bytes(row.try_get(index)?),
            _ => Cell::Text(row.try_get(index)?),
        })
    };
    let cells = row.columns().iter().map(cell).collect::<Result<Vec<_>, StoreError>>()?;
    Ok(digest(&cells))
}

/// SHA-256 of a row.
fn digest(row: &[Cell]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for cell in row {
        let (kind, bytes): (u8, &[u8]) = match cell {
            Cell::Null => (0, &[]),
            Cell::Integer(value) => (1, &value.to_le_bytes()),
            Cell::Truth(value) => (2, &[u8::from(*value)]),
            Cell::Text(value) => (3, value.as_bytes()),
            Cell::Bytes(value) => (4, value),
        };
        hasher.update([kind]);
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    hasher.finalize().into()
}

fn not_a_file() -> StoreError {
    StoreError::inconsistent("database", "the source", "it is no file")
}

fn not_a_server() -> StoreError {
    StoreError::inconsistent("database", "the target", "it is no server's")
}
