//! A database for a test: SQLite, or with `ENGRAFT_TEST_POSTGRES` a schema of its own on that server, so that the same tests run on both.

use std::path::Path;

use sha2::{Digest, Sha256};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use url::Url;

use super::{Database, DatabaseKind};
use crate::domain::database::DatabasePlace;
use crate::store::blobs::{Backend, FOLDER};

/// Opens the database of the test whose folder this is. Clocks that are passed in say what time it is.
pub(crate) async fn open(folder: &Path) -> Database {
    let database =
        Database::open_at(&place(folder).await, folder, &Backend::Folder(folder.join(FOLDER))).await.expect("opens");
    match database.kind {
        DatabaseKind::Postgres(server) => Database { kind: DatabaseKind::Postgres(server.without_time()), ..database },
        DatabaseKind::Sqlite(_) => database,
    }
}

/// A server's database for the test whose folder this is, whose time is its own; none without `ENGRAFT_TEST_POSTGRES`, which is said aloud.
pub(crate) async fn server(folder: &Path) -> Option<Database> {
    if std::env::var_os("ENGRAFT_TEST_POSTGRES").is_none() {
        eprintln!("skipped: ENGRAFT_TEST_POSTGRES names no server");
        return None;
    }
    Some(Database::open_at(&place(folder).await, folder, &Backend::Folder(folder.join(FOLDER))).await.expect("opens"))
}

/// Where that database is; its schema is made as needed.
async fn place(folder: &Path) -> DatabasePlace {
    let Ok(server) = std::env::var("ENGRAFT_TEST_POSTGRES") else { return DatabasePlace::DataDir };
    let schema = format!("t_{}", &hex::encode(Sha256::digest(folder.as_os_str().as_encoded_bytes()))[..24]);
    let mut connection = PgConnection::connect(&server).await.expect("ENGRAFT_TEST_POSTGRES is a server");
    let statement = sqlx::AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS {schema}"));
    sqlx::query(statement).execute(&mut connection).await.expect("makes a schema");
    connection.close().await.expect("closes");
    let mut url = Url::parse(&server).expect("an address");
    url.query_pairs_mut().append_pair("options", &format!("-csearch_path={schema}"));
    url.as_str().parse().expect("a place")
}
